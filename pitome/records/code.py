"""Which code decided a result: its digest by syntax tree, where comments, docstrings and layout do not count.

A record keeps one digest for each module that a result comes from: the method's, the adapter's and the
task's. A digest covers the module and all that it imports, directly or through others, of this package, or,
for a user's own module, beside it. Left out is what decides no result: see `_LEFT_OUT`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pitome.records.schema import Record

PACKAGE = "pitome"
_LEFT_OUT = re.compile(
    r"pitome(\.(errors|fields|config|records|paper|report|runs|cli"  # they check, keep and show
    r"|sources\.(cache|checksums|debian|folders|hub|pypi|yaml_files)"  # bytes, whose checksums a run has
    r"|tasks\.(loggers|checks|training|\w+\.(checks|training)))(\..*)?)?"  # training is a module of its own
)
_FOLDER = Path(__file__).parent.parent
_NAMED = 3  # revisions in a line
_NO_MEANING = ("ctx", "kind", "type_comment", "type_ignores")  # what the rest of a tree says as well
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digests(modules: Iterable[str]) -> dict[str, str]:
    """Module -> digest of its code, 12 digits, without those that are not found; and that of the files of
    the whole package as they are: where it is equal, nothing of the package has changed."""
    found = {PACKAGE: _whole()} | {module: _digest(module) for module in modules}
    return {module: digest for module, digest in found.items() if digest is not None}


def changed(record: Record) -> list[str]:
    """The modules that the record was made with and that are others today; its task where it does not
    say. A user's own module that is not found here has not changed."""
    if not record.code:
        return [f"{PACKAGE}.tasks.{record.task}.task"]
    same = record.code.get(PACKAGE) == _whole()  # quicker than trees
    modules = [module for module in record.code if module != PACKAGE and not (same and _is_ours(module))]
    today = {module: _digest(module) for module in modules}
    return [
        module
        for module, digest in today.items()
        if digest != record.code[module] and (digest is not None or _is_ours(module))
    ]


def own_changed(record: Record) -> bool:
    """Whether a record is of a user's own module that is another one today."""
    return bool(record.code) and any(not _is_ours(module) for module in changed(record))


def other_code(records: Sequence[Record]) -> str | None:
    """One line on the records that were made by other code than this, by their revisions; None without."""
    done = [record for record in records if record.done]
    others = [record for record in done if changed(record)]
    if not others:
        return None
    counts = Counter(_revision(record) for record in others).most_common()
    made = [f"{count} by {revision}" for revision, count in counts[:_NAMED]]
    if rest := counts[_NAMED:]:
        made.append(f"{sum(count for _, count in rest)} by {len(rest)} other revisions")
    return (
        f"{len(others)} of {len(done)} runs were made by other code than this: {', '.join(made)}; "
        "overwrite=changed repeats them"
    )


def _revision(record: Record) -> str:
    place = record.environment
    if place is None or place.git_revision is None:
        return "an unknown revision"
    return place.git_revision[:7] + (" with changes" if place.git_dirty else "")


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


@dataclass(frozen=True)
class _Source:
    """What a file of Python holds."""

    digest: str  # of its syntax tree
    imports: tuple[str, ...]  # modules, and their members, which may be modules


@functools.cache
def _whole() -> str:
    """Of all files of the package."""
    content = hashlib.sha256()
    for path in sorted([*_FOLDER.rglob("*.py"), *_FOLDER.rglob("*.c")]):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


@functools.cache
def _digest(module: str) -> str | None:
    """Of a module and what it imports; None where it is not found."""
    files: dict[Path, _Source] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = None if name != module and _LEFT_OUT.fullmatch(name) else _find(name, module)
        if path is not None and path not in files:
            files[path] = _read(path, name)
            waiting += files[path].imports
    digests = sorted(source.digest for source in files.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12] if files else None


@functools.cache
def _find(name: str, root: str) -> Path | None:
    """The file of a module: of this package, of that of `root`, or beside `root` in a user's folder."""
    top = name.partition(".")[0]
    if _is_ours(name):
        return _file(_FOLDER.parent, name)
    own = root.partition(".")[0]
    for folder in dict.fromkeys([Path.cwd(), *map(Path, sys.path)]):
        if _file(folder, own) is not None or (folder / own).is_dir():
            return _file(folder, name) if top == own or folder == Path.cwd() else None
    return None


def _file(folder: Path, name: str) -> Path | None:
    path = folder.joinpath(*name.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _read(path: Path, name: str) -> _Source:
    """A file that cannot be parsed has no imports, and the digest of its bytes."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return _Source(hashlib.sha256(content).hexdigest(), ())
    words: list[str] = []
    imports: list[str] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    _walk(tree, words, imports, package)
    words += [file.read_text() for file in sorted(path.parent.glob("*.c")) if repr(file.name) in words]
    return _Source(hashlib.sha256("\0".join(words).encode()).hexdigest(), tuple(dict.fromkeys(imports)))


def _walk(node: ast.AST, words: list[str], imports: list[str], package: str) -> None:
    """Add a tree to `words`, without what is empty: versions of Python differ in that."""
    if isinstance(node, ast.Import):
        imports += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        above = parents[: len(parents) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        imports += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    words.append(type(node).__name__)
    for field in node._fields:
        value = getattr(node, field, None)
        if field in _NO_MEANING or value is None or value == []:
            continue
        words += [field, "("]
        if isinstance(node, _DOCUMENTED) and field == "body" and ast.get_docstring(node, False) is not None:
            value = value[1:]
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                _walk(part, words, imports, package)
            else:
                words.append(repr(part))
        words.append(")")
