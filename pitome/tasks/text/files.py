"""Texts and labels from parquet, JSON lines and CSV files. Imports no torch."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.folders import cache_folder, check_source, walk
from pitome.sources.hub import fetch_folder
from pitome.tasks.text.sets import TextSet, package_rows, text_set
from pitome.tasks.text.split import SPLITS, hash_split, official_split

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
_ELSE = "give a folder with data.root=FOLDER (parquet, jsonl or csv files with the columns text and label)"
# A file belongs to the split whose name opens its own.
_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
_NAMES |= {"dev": "validation", "test": "test"}
_LONGEST = 1 << 30  # characters of one CSV field


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
    """Find and read the data set `name`, with `classes` where it is no set of the project, fetching it if
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
            else f"{name} is in no package; use source=hub, or {_ELSE}"
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


def checksum(texts: Iterable[str], labels: Iterable[int]) -> str:
    """sha256 of texts and labels in order: names the data whatever file they came in."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{label}\t{text}\n".encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


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
            own_texts, own_labels = read_file(file, data)
            texts += own_texts
            labels += own_labels
            splits += [ours] * len(own_texts)
    return Rows("hub", texts, labels, splits)


def _local(data: TextSet, root: Path) -> Rows:
    """All files of a folder; a set that is tested on its validation split may name it either way."""
    files = find_files(root)
    named = [_split_of(file) for file in files]
    if data.splits["test"] == "validation":
        files = [file for file, split in zip(files, named, strict=True) if split != "test"]
        named = ["test" if split == "validation" else split for split in named if split != "test"]
    texts: list[str] = []
    labels: list[int] = []
    splits: list[str] = []
    for file, split in zip(files, named, strict=True):
        own_texts, own_labels = read_file(file, data)
        texts += own_texts
        labels += own_labels
        splits += [split or ""] * len(own_texts)
    return Rows("local", texts, labels, splits if all(named) else None)


def find_files(root: Path) -> list[Path]:
    """Files of texts in a folder and its folders, sorted. Raises DataError if there are none."""
    files = [root / name for name in walk(root, depth=2) if Path(name).suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{root} holds no parquet, jsonl or csv file; {_ELSE}")
    return files


def _split_of(file: Path) -> str | None:
    stem = file.stem.lower()
    return next((split for word, split in _NAMES.items() if stem.startswith(word)), None)


def read_file(path: Path, data: TextSet) -> tuple[list[str], list[int]]:
    """Texts and labels of one file: a column `text` (or the hub's name of it) and a column `label`.

    Labels are numbers or names of classes. Raises DataError, one line, for a damaged file, a
    missing column, a missing text, and a label outside the classes, naming its row from 1.
    """
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _lines(path)
    texts: list[str] = []
    labels: list[int] = []
    try:
        for number, row in enumerate(rows, 1):
            column = "text" if "text" in row else data.column
            for needed in (column, "label"):
                if needed not in row:
                    raise DataError(
                        f"{path} has no column {needed} in row {number}, it has "
                        f"{', '.join(map(str, row)) or 'none'}; expected text and label"
                    )
            if not isinstance(row[column], str):
                raise DataError(f"{path}, row {number}: the text is {row[column]!r}, not a string")
            texts.append(row[column])
            labels.append(_label(row["label"], data.classes, f"{path}, row {number}"))
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as problem:
        reason = " ".join(str(problem).split())
        raise DataError(f"{path} cannot be read ({reason}); repair it or fetch it again") from None
    return texts, labels


def _label(value: Any, classes: Sequence[str], where: str) -> int:
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    try:
        label = int(value)
    except (TypeError, ValueError):
        label = -1
    if isinstance(value, bool) or not 0 <= label < len(classes) or float(value) != label:
        names = ", ".join(f"{label} ({name})" for label, name in enumerate(classes))
        raise DataError(f"{where}: label {value!r} is none of the classes {names}")
    return label


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as problem:
        raise ValueError(str(problem)) from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines, or CSV with a header (tabs in a .tsv)."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() in (".jsonl", ".json"):
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object; expected one JSON object a line")
                    yield row
            return
        csv.field_size_limit(_LONGEST)
        yield from csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
