"""Folders with data: looked at before a run starts. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pitome.errors import DataError

_READ = 1 << 28  # bytes; to read the 50,000 photographs of ImageNet would take minutes


def cache_folder() -> Path:
    """Where this project keeps what it fetched: PITOME_CACHE, else ~/.cache/pitome."""
    return Path(os.environ.get("PITOME_CACHE") or "~/.cache/pitome").expanduser()


def check_root(root: str | Path) -> Path:
    """The data folder as a path. Raises DataError when it is missing, no folder, empty or closed."""
    path = Path(root).expanduser()
    hint = "give the folder of the data set with data.root=FOLDER, or use source=auto without data.root"
    if not path.exists():
        raise DataError(f"data.root={root}: no such folder; {hint}")
    if not path.is_dir():
        raise DataError(f"data.root={root} is not a folder; {hint}")
    try:
        empty = next(path.iterdir(), None) is None
    except OSError as problem:
        raise DataError(f"data.root={root} cannot be read ({problem.strerror}); {hint}") from None
    if empty:
        raise DataError(f"data.root={root} is empty; {hint}")
    return path


def check_source(source: str, root: str | Path | None) -> Path | None:
    """Check `source` against `data.root`, and the folder itself. Raises DataError when they disagree."""
    if root is not None and source in ("hub", "package"):
        raise DataError(f"source={source} and data.root={root} exclude each other; leave one out")
    if source == "local" and root is None:
        raise DataError("source=local needs the folder of the data set: data.root=FOLDER")
    return None if root is None else check_root(root)


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """What stands for files, each given with its name: `sha256:` of names and contents or, of more than
    256 MB, `names:`, a sha256 of names and sizes. One that cannot be read counts as empty."""
    found = [(name, path, path.stat().st_size if path.is_file() else 0) for name, path in files]
    read = sum(size for _, _, size in found) <= _READ
    digest = hashlib.sha256()
    for name, path, size in found:
        digest.update(f"{name} {size}\n".encode("utf-8", "surrogateescape"))
        if read:
            with contextlib.suppress(OSError):
                digest.update(path.read_bytes())
    return f"{'sha256' if read else 'names'}:{digest.hexdigest()}"


def folder_fingerprint(root: Path) -> str:
    """`fingerprint` of all files in a folder and its folders, hidden ones left out."""
    return fingerprint((str(path.relative_to(root)), path) for path in sorted(_visible(root)))


def _visible(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if not path.name.startswith("."):
            if path.is_dir():
                yield from _visible(path)
            else:
                yield path
