"""Texts and labels from tables (`pitome.sources.rows`) and from folders of .txt files. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.folders import cache_folder, check_source, entries, walk
from pitome.sources.hub import fetch_folder, say
from pitome.sources.json_files import read_text
from pitome.sources.rows import SUFFIXES, Row
from pitome.sources.rows import read_rows as read_table
from pitome.tasks.text.sets import TextSet, package_rows, text_set
from pitome.tasks.text.split import SPLITS, hash_split, official_split

_ELSE = (
    "give a folder with data.root=FOLDER (parquet, jsonl, csv or tsv files with the columns text and label, "
    "or a folder of .txt files for each class)"
)
_TEXTS, _LABELS = ("text", "sentence", "review"), ("label", "sentiment")  # names of columns, as published
# A file belongs to the split whose name opens its own.
_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_NAMES |= {"dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Rows:
    """Texts and labels of one data set in file order; `splits`: None where they name none.

    source: hub, local or package.
    """

    source: str
    texts: list[str]
    labels: list[int]
    splits: list[str] | None


def read_rows(
    name: str,
    kind: str,
    *,
    source: str,
    root: str | None,
    repository: str,
    revision: str,
    classes: Sequence[str] = (),
) -> Rows:
    """Find and read the data set `name`, with `classes` where it is not a set of the project, fetching it if
    need be.

    kind: `official` needs files of splits; source: auto (data.root; for a hash split a cached
    package, then the hub, then the package), hub, local or package. Raises DataError, one line,
    when no source has it, for missing columns and for labels outside the classes.
    """
    data = text_set(name, classes)
    given = check_source(source, root)
    if given is not None:
        return _local(data, given)
    packaged = data.archive is not None and kind == "hash"
    if source == "package" and not packaged:
        raise DataError(
            f"the package of {name} holds no official split; use data.split=hash, or source=hub"
            if data.archive is not None
            else f"no package holds {name}; use source=hub, or {_ELSE}"
        )
    if packaged and source != "hub" and (source == "package" or (cache_folder() / name).is_dir()):
        return Rows("package", *package_rows(f"go online, or {_ELSE}"), None)
    try:
        return _hub(data, repository, revision)
    except DataError:
        if source == "hub" or not packaged:
            raise
    return Rows("package", *package_rows(f"go online, or {_ELSE}"), None)


def assign(rows: Rows, kind: str, name: str) -> list[str | None]:
    """The split of every row: `official` (see `official_split`) or by `hash_split`. Raises DataError."""
    if kind == "hash":
        return [hash_split(text) for text in rows.texts]
    if rows.splits is None:
        raise DataError(
            f"the files of {name} name no splits; call them train... and test..., or use data.split=hash"
        )
    return official_split(rows.texts, rows.splits)


def _hub(data: TextSet, repository: str, revision: str) -> Rows:
    texts: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    otherwise = f"use source=package, or {_ELSE}" if data.archive is not None else _ELSE
    for ours, theirs in sorted(data.splits.items(), key=lambda pair: SPLITS.index(pair[0])):
        pattern = data.files.format(theirs)
        folder = fetch_folder(
            repository, pattern, kind="dataset", revision=revision, error=DataError, otherwise=otherwise
        )
        for file in sorted(folder.rglob(pattern)):
            file_texts, file_labels = read_file(file, data)
            texts += file_texts
            labels += file_labels
            splits += [ours] * len(file_texts)
    return Rows("hub", texts, labels, splits)


def _local(data: TextSet, root: Path) -> Rows:
    """All files of a folder; a set that is tested on its validation split may name it either way.

    Other tables than of texts, which name no split, are left out and named. Raises DataError for the same
    rows in two files.
    """
    read: list[tuple[Path, str | None, list[str], list[int]]] = []
    strange: DataError | None = None
    for file, split in find_files(root, data):
        if data.splits["test"] == "validation" and split in ("test", "validation"):
            if split == "test":
                continue
            split = "test"
        try:
            read.append((file, split, *read_file(file, data)))
        except DataError as problem:
            stray = isinstance(problem, NoTexts) or file.suffix.lower() == ".json"
            if split is not None or not stray:
                raise
            strange = problem
            say(f"{file.name} is not read: {problem}")
    if strange is not None and not read:
        raise strange
    _check_twice(read)
    splits = [split or "" for _, split, texts, _ in read for _ in texts]
    return Rows(
        "local",
        [text for _, _, texts, _ in read for text in texts],
        [label for *_, labels in read for label in labels],
        splits if all(split for _, split, *_ in read) else None,
    )


def _check_twice(read: Sequence[tuple[Path, str | None, list[str], list[int]]]) -> None:
    """Raise DataError for two files of one split with the same rows: one set in two formats, or a copy."""
    seen: dict[tuple[str | None, frozenset[str]], Path] = {}
    for file, split, texts, _ in read:
        first = seen.setdefault((split, frozenset(texts)), file)
        if first != file and texts:
            raise DataError(f"{first} and {file} hold the same rows; remove one of them")


def find_files(root: Path, data: TextSet) -> list[tuple[Path, str | None]]:
    """Folders of .txt files named after the classes, else tables in a folder and its folders, sorted, with
    the split whose name their own begins with (of a folder, that of the folder around it).

    Raises DataError if there are neither.
    """
    folders = [path for path in _folders(root, 3) if _class_of(path.name, data.classes) is not None]
    if folders := [path for path in folders if any(name.endswith(".txt") for name in walk(path, depth=1))]:
        return [(path, None if path.parent == root else _split_of(path.parent)) for path in folders]
    names = [name for name in walk(root, depth=2) if Path(name).suffix.lower() in SUFFIXES]
    if not names:
        raise DataError(f"{root} holds no parquet, jsonl, csv or tsv file; {_ELSE}")
    return [(root / name, _split_of(Path(name)) or _split_of(Path(name).parent)) for name in names]


def _folders(root: Path, depth: int) -> list[Path]:
    folders = [Path(entry.path) for entry in entries(root) if entry.is_dir()]
    return [
        path for folder in folders for path in (folder, *(_folders(folder, depth - 1) if depth > 1 else ()))
    ]


def _class_of(name: str, classes: Sequence[str]) -> int | None:
    """The label of a class by its name in any case, or by its beginning (`pos`)."""
    if name in classes:
        return classes.index(name)
    known = [name.casefold() for name in classes]
    if known.count(name.casefold()) == 1:
        return known.index(name.casefold())
    if len(name) < 3 or name.casefold() in _NAMES:
        return None
    starts = [label for label, known_name in enumerate(known) if known_name.startswith(name.casefold())]
    return starts[0] if len(starts) == 1 else None


def _split_of(file: Path) -> str | None:
    stem = file.stem.lower()
    return next((split for word, split in _NAMES.items() if stem.startswith(word)), None)


class NoTexts(DataError):
    """A table that has not the columns of a set of texts."""


def read_file(path: Path, data: TextSet) -> tuple[list[str], list[int]]:
    """Texts and labels of one file: a column `text` (or as the set is published) and a column `label`; or
    of a folder of .txt files, named after their class.

    Labels are numbers or names of classes, see `_label`. Raises DataError, one line, for a damaged file, a
    missing column (NoTexts), a missing text, and a label outside the classes, naming its row from 1.
    """
    if path.is_dir():
        label = _class_of(path.name, data.classes)
        assert label is not None
        texts = [read_text(path / name) for name in walk(path, depth=1) if name.endswith(".txt")]
        return texts, [label] * len(texts)
    rows = read_table(path)
    if not rows:
        return [], []
    column, target = _column(path, rows, (data.column, *_TEXTS)), _column(path, rows, _LABELS)
    for number, row in enumerate(rows, 1):
        for needed in (column, target):
            if needed not in row:
                raise DataError(f"{path} has no column {needed} in row {number}, it has {_names(row)}")
        if not isinstance(row[column], str):
            raise DataError(f"{path}, row {number}: the text is {row[column]!r}, not a string")
    labels = [_label(row[target], data.classes, f"{path}, row {n}") for n, row in enumerate(rows, 1)]
    return [row[column] for row in rows], labels


def _column(path: Path, rows: Sequence[Row], names: Sequence[str]) -> str:
    """The first of the columns that the first row has, `text` before others."""
    for name in ("text", *names) if "text" in names else names:
        if name in rows[0]:
            return name
    raise NoTexts(
        f"{path} has no column {names[0]} in row 1, it has {_names(rows[0])}; expected text and label"
    )


def _names(row: Row) -> str:
    return ", ".join(map(str, row)) or "none"


def _label(value: Any, classes: Sequence[str], where: str) -> int:
    """A label: a class's name in any case, its number (1, "1", 1.0), or True or False of two classes."""
    label: int | None = None
    word = value.strip() if isinstance(value, str) else str(value)
    if isinstance(value, str | bool):
        label = _class_of(word, classes)
    if label is None and len(classes) == 2 and word.casefold() in ("true", "false"):
        label = int(word.casefold() == "true")
    if label is None and not isinstance(value, bool):
        try:
            number = float(word)
            label = int(number) if number.is_integer() and 0 <= number < len(classes) else None
        except (ValueError, OverflowError):
            label = None
    if label is None:
        names = ", ".join(f"{label} ({name})" for label, name in enumerate(classes))
        raise DataError(f"{where}: label {value!r} is none of the classes {names}")
    return label
