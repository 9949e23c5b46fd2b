"""Texts and labels from tables (`pitome.sources.rows`) and from folders of .txt files. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.folders import cache_folder, check_source, entries, walk
from pitome.sources.hub import fetch_folder, say
from pitome.sources.json_files import brief, names_of, read_text
from pitome.sources.rows import Row
from pitome.sources.rows import read_rows as read_table
from pitome.tasks.labels import by_name, class_of, label_of
from pitome.tasks.tables import SPLIT_NAMES, check_twice, find_tables, split_of
from pitome.tasks.text.sets import SETS, TextSet, package_rows, text_set
from pitome.tasks.text.split import SPLITS, hash_split, official_split

_ELSE = (
    "give a folder with data.root=FOLDER (parquet, jsonl, csv or tsv files with the columns text and label, "
    "or a folder of .txt files for each class)"
)
_TEXTS, _LABELS = ("text", "sentence", "review"), ("label", "sentiment")  # names of columns, as published


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
    patterns = {ours: data.files.format(theirs) for ours, theirs in data.splits.items()}
    folder = fetch_folder(
        repository,
        *patterns.values(),
        kind="dataset",
        revision=revision,
        error=DataError,
        otherwise=otherwise,
    )
    for ours in sorted(patterns, key=SPLITS.index):
        for file in sorted(folder.rglob(patterns[ours])):
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
    check_twice([(file, split, texts) for file, split, texts, _ in read])
    splits = [split or "" for _, split, texts, _ in read for _ in texts]
    return Rows(
        "local",
        [text for _, _, texts, _ in read for text in texts],
        [label for *_, labels in read for label in labels],
        splits if all(split for _, split, *_ in read) else None,
    )


def find_files(root: Path, data: TextSet) -> list[tuple[Path, str | None]]:
    """Folders of .txt files named after the classes, else tables in a folder and its folders, sorted, with
    the split whose name their own begins with (of a folder, that of the folder around it).

    Raises DataError if there are neither.
    """
    named = [path for path in _folders(root, 3) if _class_of(path.name, data) is not None]
    if folders := [path for path in named if _texts(path)]:
        beside = {path.parent for path in folders}
        if empty := [path for path in named if path.parent in beside and path not in folders]:
            raise DataError(f"{empty[0]} holds no .txt files; add some, or remove the folder")
        return [(path, None if path.parent == root else split_of(path.parent)) for path in folders]
    if not (tables := find_tables(root)):
        raise DataError(f"{root} holds no parquet, jsonl, csv or tsv file; {_ELSE}")
    return tables


def _texts(folder: Path) -> list[str]:
    """The names of the .txt files in a folder."""
    return [name for name in walk(folder, depth=1) if name.lower().endswith(".txt")]


def _folders(root: Path, depth: int) -> list[Path]:
    folders = [Path(entry.path) for entry in entries(root) if entry.is_dir()]
    return [
        path for folder in folders for path in (folder, *(_folders(folder, depth - 1) if depth > 1 else ()))
    ]


def _class_of(name: str, data: TextSet) -> int | None:
    """The label of a class by its name in any case or, of the project's sets, by its beginning (`pos`)."""
    label = class_of(name, known := _known(data))
    word = name.strip().casefold()
    if label is not None or data.name not in SETS or len(word) < 3 or word in SPLIT_NAMES:
        return label
    starts = [label for known_name, label in known.items() if known_name.startswith(word)]
    return starts[0] if len(starts) == 1 else None


def _known(data: TextSet) -> dict[str, int]:
    return {name: label for label, name in enumerate(data.classes)}


class NoTexts(DataError):
    """A table that has not the columns of a set of texts."""


def read_file(path: Path, data: TextSet) -> tuple[list[str], list[int]]:
    """Texts and labels of one file: a column `text` (or as the set is published) and a column `label`; or
    of a folder of .txt files, named after their class.

    Labels are numbers or names of classes, see `_label`. Raises DataError, one line, for a damaged file, a
    missing column (NoTexts), a missing text, and a label outside the classes, naming its row from 1.
    """
    if path.is_dir():
        label = _class_of(path.name, data)
        assert label is not None
        names = _texts(path)
        if others := [name for name in walk(path, depth=1) if name not in names]:
            say(f"{path}: {len(names)} texts are read; {len(others)} other files are not, e.g. {others[0]}")
        return [read_text(path / name) for name in names], [label] * len(names)
    rows = read_table(path)
    if not rows:
        return [], []
    column, target = _column(path, rows, (data.column, *_TEXTS)), _column(path, rows, _LABELS)
    for number, row in enumerate(rows, 1):
        for needed in (column, target):
            if needed not in row:
                raise DataError(f"{path} has no column {needed} in row {number}, it has {names_of(row)}")
        if not isinstance(row[column], str):
            raise DataError(f"{path}, row {number}: the text is {brief(row[column])}, not a string")
    meant = by_name(_names_in(path, target), _known(data))
    labels = [
        meant[row[target]]
        if meant and row[target] in meant
        else _label(row[target], data, f"{path}, row {n}")
        for n, row in enumerate(rows, 1)
    ]
    return [row[column] for row in rows], labels


def _names_in(path: Path, column: str) -> list[str] | None:
    """What a parquet file says that its labels mean."""
    if path.suffix.lower() != ".parquet":
        return None
    from pitome.sources.parquet import class_names, load_parquet

    return class_names(load_parquet([path]), column)


def _column(path: Path, rows: Sequence[Row], names: Sequence[str]) -> str:
    """The first of the columns that the first row has, `text` before others."""
    header = {str(name).strip().lower(): name for name in rows[0]}
    for name in ("text", *names) if "text" in names else names:
        if name in header:
            return header[name]
    raise NoTexts(
        f"{path} has no column {names[0]} in row 1, it has {names_of(rows[0])}; expected text and label"
    )


def _label(value: Any, data: TextSet, where: str) -> int:
    """A label as `label_of` reads it. Raises DataError for one of no class."""
    label = label_of(value, _known(data))
    if label is None and isinstance(value, str):
        label = _class_of(value, data)
    if label is None:
        names = ", ".join(f"{label} ({name})" for label, name in enumerate(data.classes))
        raise DataError(f"{where}: label {brief(value)} is none of the classes {names}")
    return label
