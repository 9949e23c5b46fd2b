"""Tables of one's own, by split: which files of a folder they are, and rows of images with something about
each. Imports no torch."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pitome.errors import DataError
from pitome.sources.folders import walk
from pitome.sources.hub import say
from pitome.sources.image_files import ImageFiles
from pitome.sources.images import ImageRules
from pitome.sources.json_files import brief, damaged, id_of, names_of
from pitome.sources.rows import SUFFIXES, Row, read_rows

# A file belongs to the split whose name opens its own, else that of its folder.
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLIT_NAMES |= {"dev": "validation", "test": "test"}
_IMAGE = ("image", "file_name", "filename", "image_name", "image_path", "filepath", "path", "image_id")


def split_of(file: Path) -> str | None:
    """The split that the name of a file or folder begins with."""
    stem = file.stem.lower()
    return next((split for word, split in SPLIT_NAMES.items() if stem.startswith(word)), None)


def find_tables(root: Path) -> list[tuple[Path, str | None]]:
    """The tables in a folder and its folders, sorted, each with its split; None where no name says one."""
    names = [Path(name) for name in walk(root, depth=2) if Path(name).suffix.lower() in SUFFIXES]
    return [(root / name, split_of(name) or split_of(name.parent)) for name in names]


def check_tables(root: Path, columns: Sequence[str]) -> list[tuple[Path, str | None]]:
    """`find_tables`. Raises DataError where there are none."""
    if not (found := find_tables(root)):
        raise DataError(
            f"{root} holds no parquet, jsonl, json, csv or tsv file; give a table with the columns "
            f"{', '.join(columns)}"
        )
    return found


def check_twice(read: Sequence[tuple[Path, str | None, Sequence[str]]]) -> None:
    """Raise DataError for two files of one split with the same rows: one set in two formats, or a copy."""
    seen: dict[tuple[str | None, frozenset[str]], Path] = {}
    for file, split, texts in read:
        first = seen.setdefault((split, frozenset(texts)), file)
        if first != file and texts:
            raise DataError(f"{first} and {file} hold the same rows; remove one of them")


@dataclass(frozen=True)
class ImageRows:
    """The rows of one split, each about an image."""

    # Of all tables in order; `image` is the image's name, the other keys are those of the columns asked for.
    rows: list[Row]
    # The image of that name in mode RGB; raises Unreadable.
    read: Callable[[str], Image.Image]
    # Bytes of an image's file, and what changes whenever the file does; empty where there is none.
    size: Callable[[str], str]
    stamp: Callable[[str], str]


def image_rows(root: Path, split: str, columns: Mapping[str, Sequence[str]], rules: ImageRules) -> ImageRows:
    """The rows of a split in the tables of a folder.

    columns: what is read besides the image: our name -> its usual names; those that begin with `?` may be
    missing. An image is the name of a file, found as `ImageFiles` says, or itself in a parquet file. A row
    belongs to the split that its column `split` names, else to that of its file; where neither a file nor a
    row names one, all rows are tested on. Raises DataError.
    """
    read: list[tuple[Path, str | None, list[Row]]] = []
    strange: DataError | None = None
    embedded: dict[str, tuple[Path, int]] = {}
    needed = ["image", *(name for name in columns if not name.startswith("?"))]
    for file, of_file in check_tables(root, needed):
        try:
            read.append((file, of_file, _table(file, columns, embedded)))
        except DataError as problem:
            if of_file is not None and not isinstance(problem, _OtherTable):
                raise
            strange = problem
            say(f"{file.name} is not read: {problem}")
    if strange is not None and not read:
        raise strange
    check_twice([(file, of, [json.dumps(row, sort_keys=True) for row in rows]) for file, of, rows in read])
    known = [(_split(file, n, row, of), row) for file, of, rows in read for n, row in enumerate(rows, 1)]
    rows = [row for of, row in known if of == split]
    if not rows and split == "test" and not any(of for of, _ in known):
        rows = [row for _, row in known]
    names = {row["image"] for row in rows if row["image"]}
    files = ImageFiles(root, names - embedded.keys(), rules)
    if not embedded:
        return ImageRows(rows, files.read, files.size, files.stamp)
    # The name of an image in a parquet file stands for its content.
    read_image = _Embedded(embedded, files, rules).read
    return ImageRows(rows, read_image, files.size, files.stamp)


class _OtherTable(DataError):
    """A table without the columns that are read."""


class _Embedded:
    """Images in parquet files, beside others in files."""

    def __init__(self, places: Mapping[str, tuple[Path, int]], files: ImageFiles, rules: ImageRules) -> None:
        from pitome.sources.parquet import ParquetImages

        self.places, self.files = places, files
        self.tables = {path: ParquetImages([path], rules) for path, _ in places.values()}

    def read(self, name: str) -> Image.Image:
        if name not in self.places:
            return self.files.read(name)
        path, row = self.places[name]
        return self.tables[path].read(row, name)


def _table(
    file: Path, columns: Mapping[str, Sequence[str]], embedded: dict[str, tuple[Path, int]]
) -> list[Row]:
    """The rows of a table under our names. embedded: gets the images that are in it, by a name from their
    content, so that rows with one image are known to be of one. Raises DataError, _OtherTable."""
    if file.suffix.lower() == ".parquet":
        from pitome.sources.parquet import load_parquet

        source: Any = load_parquet([file])
    else:
        source = read_rows(file)
    if not len(source):
        return []
    header = {str(name).strip().lower(): name for name in source[0]}
    found: dict[str, str] = {}
    for ours, names in {"image": _IMAGE, **columns, "?split": ("split",)}.items():
        name = next((header[name] for name in names if name in header), None)
        if name is not None:
            found[ours.removeprefix("?")] = name
        elif not ours.startswith("?"):
            raise _OtherTable(f"{file} has no column {names[0]}, it has {names_of(source[0])}")
    rows = []
    for number, entry in enumerate(source, 1):
        row = {ours: entry.get(name) for ours, name in found.items()}
        row["image"] = _image(file, number, row["image"], embedded)
        rows.append(row)
    return rows


def _image(file: Path, number: int, value: Any, embedded: dict[str, tuple[Path, int]]) -> str:
    """The name of a row's image; empty where there is none."""
    from pitome.sources.parquet import encoded_image

    if content := encoded_image(value):
        name = f"image {hashlib.sha256(content).hexdigest()[:16]}"
        embedded.setdefault(name, (file, number - 1))
        return name
    value = value.get("path") if isinstance(value, dict) else value
    return "" if value is None else id_of(file, number, value).strip().replace("\\", "/")


def _split(file: Path, number: int, row: Row, of_file: str | None) -> str | None:
    """The split of a row. Raises DataError for one that is none."""
    given = row.get("split")
    if given is None or not str(given).strip():
        return of_file
    known = SPLIT_NAMES.get(str(given).strip().lower())
    if known is None:
        raise damaged(file, f"the split of row {number} is {given!r}, none of {', '.join(SPLIT_NAMES)}")
    return known


def texts_in(file: object, number: int, what: str, value: Any) -> list[str]:
    """One text or several: a text, a list of texts (in a CSV, as JSON or Python write it), a number, nothing.
    Raises DataError."""
    if isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]":
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    values = value if isinstance(value, list) else [] if value is None else [value]
    texts = [one.get("answer") if isinstance(one, dict) else one for one in values]
    if wrong := [one for one in texts if isinstance(one, bool) or not isinstance(one, str | int | float)]:
        raise DataError(f"{file}, row {number}: the {what} {brief(wrong[0])} is not a text")
    return [str(one) for one in texts]
