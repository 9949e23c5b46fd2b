"""Digests of code: what changes them, and what is said of records that other code made."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pitome.records import Environment, Record, code
from tests.records.examples import example, failed

PACKAGE = Path(code.__file__).parent.parent
METHODS, ADAPTERS = "pitome.merge.methods.", "pitome.adapters."
TEXT, IMAGES = "pitome.tasks.text.task", "pitome.tasks.classification.task"
ROOTS = (METHODS + "tome", METHODS + "tofu", ADAPTERS + "timm", ADAPTERS + "transformers", TEXT, IMAGES)


def forget() -> None:
    for function in (code._digest, code._find, code._read, code._whole):
        function.cache_clear()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout") / "pitome"
    shutil.copytree(
        PACKAGE,
        folder,
        ignore=lambda at, names: [n for n in names if "." in n and n[-3:] != ".py" and n[-2:] != ".c"],
    )
    return folder


def comment(text: str) -> str:
    return f"# said once more\n{text}  # and at the end\n"


def docstring(text: str) -> str:
    return text.replace('"""', '"""Other words. ', 1)


def layout(text: str) -> str:
    return ast.unparse(ast.parse(text))


def statement(text: str) -> str:
    return f"{text}\nCHANGED = True\n"


CASES: list[tuple[str, Callable[[str], str], set[str]]] = [
    ("merge/methods/tome.py", comment, set()),
    ("merge/methods/tome.py", docstring, set()),
    ("merge/methods/tome.py", layout, set()),
    ("merge/methods/tome.py", statement, {METHODS + "tome", METHODS + "tofu"}),  # ToFu matches as ToMe does
    ("merge/methods/tofu.py", statement, {METHODS + "tofu"}),
    ("merge/plan.py", statement, set(ROOTS)),
    ("merge/kernel.c", statement, set(ROOTS)),  # which a module names that all of them import
    ("adapters/timm.py", statement, {ADAPTERS + "timm"}),
    ("adapters/transformers/text.py", statement, {ADAPTERS + "transformers"}),
    ("tasks/text/module.py", statement, {TEXT}),
    ("tasks/classification/neighbours.py", statement, {IMAGES}),
    ("measure/flops.py", statement, {TEXT, IMAGES}),
    ("sources/images.py", statement, {TEXT, IMAGES}),
    ("sources/hub.py", statement, set()),
    ("tasks/text/training.py", statement, set()),
    ("tasks/loggers.py", statement, set()),
    ("records/store.py", statement, set()),
    ("report/tables.py", statement, set()),
    ("runs/job.py", statement, set()),
    ("cli/main.py", statement, set()),
]


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    CASES,
    ids=lambda value: getattr(value, "__name__", None) or (value if isinstance(value, str) else "concerns"),
)
def test_what_a_change_concerns(
    file: str, change: Callable[[str], str], expected: set[str], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_FOLDER", copied)
    before = code.digests(ROOTS)
    path = copied / file
    text = path.read_text()
    forget()
    try:
        path.write_text(change(text))
        after = code.digests(ROOTS)
    finally:
        path.write_text(text)
    assert {module for module in ROOTS if before[module] != after[module]} == expected
    assert before[code.PACKAGE] != after[code.PACKAGE]


def made_by(revision: str | None, digests: dict[str, str], dirty: bool = False, **changes: object) -> Record:
    place = Environment(device="cpu", dtype="32", git_revision=revision, git_dirty=dirty)
    return dataclasses.replace(example(**changes), environment=place, code=digests)


def test_one_line_says_how_many_runs_other_code_made_and_which() -> None:
    today = code.digests(ROOTS)
    other = today | {code.PACKAGE: "x", METHODS + "tome": "x"}
    gone = {code.PACKAGE: "x", METHODS + "of_old": "x"}
    same = [made_by("a" * 40, today), made_by("b" * 40, today | {code.PACKAGE: "x"}), failed(code=other)]
    assert code.other_code(same) is None and code.other_code([]) is None
    assert code.changed(made_by("a" * 40, other)) == [METHODS + "tome"]
    others = [
        made_by("c" * 40, other),
        made_by("c" * 40, gone),
        made_by(None, {}),
        made_by("d" * 40, {}, True),
    ]
    line = code.other_code([*same, *others])
    assert line is not None and line.startswith(
        "4 of 6 runs were made by other code than this: 2 by ccccccc, 1 by an unknown revision, "
        "1 by ddddddd with changes; overwrite=changed"
    )
    many = [made_by(str(i) * 40, {}) for i in range(9)]
    line = code.other_code(many)
    assert line is not None and "6 by 6 other revisions" in line and "\n" not in line


def test_a_module_of_ones_own_and_what_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, helper, other = (tmp_path / f"{name}.py" for name in ("own_method", "own_helper", "unrelated"))
    own.write_text("import torch, pitome.merge.plan\nfrom own_helper import half\n")
    helper.write_text("half = 0.5\n")
    other.write_text("x = 1\n")
    record = made_by("a" * 40, code.digests(["own_method"]))
    for file, text, expected in (
        (other, "x = 2\n", False),
        (helper, "# a comment\nhalf = 1 / 2\n", True),
        (helper, "# a comment\nhalf = 0.5\n", False),
        (own, "def half(:", True),
    ):
        forget()
        file.write_text(text)
        assert code.own_changed(record) is expected and bool(code.changed(record)) is expected
    forget()
    own.unlink()
    assert not code.changed(record)  # nothing can be said of what is not here


def test_quick_where_nothing_has_changed() -> None:
    """Trees are parsed only where the files are others."""
    record = made_by("a" * 40, code.digests(ROOTS))
    forget()
    start = time.perf_counter()
    assert not code.changed(record)
    assert code._read.cache_info().misses == 0 and time.perf_counter() - start < 1
