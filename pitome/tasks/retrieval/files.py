"""Flickr30k and COCO: annotations in the usual forms, images in folders or zip files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.checksums import checksum
from pitome.sources.folders import check_source, find_file
from pitome.sources.hub import fetch_folder
from pitome.sources.image_files import ImageFiles, short_names
from pitome.sources.images import DEFAULT, ImageRules
from pitome.sources.json_files import damaged
from pitome.tasks.retrieval.pairs import Pairs
from pitome.tasks.retrieval.sets import SETS, CaptionSet

_OURS = {"validation": "val"}  # our name of a split -> Karpathy's, where they differ
_LONGEST = 1 << 30  # characters of one CSV field

Rows = list[tuple[str, list[str]]]
"""Name of an image, perhaps with folders, its captions in order."""


def file_pairs(
    name: str,
    split: str,
    *,
    source: str,
    root: str | None,
    repository: str,
    revision: str,
    rules: ImageRules = DEFAULT,
) -> Pairs:
    """The `test`, `validation` or `train` split of a set of photographs.

    source: local (data.root), hub (the test split alone), or auto: data.root if given, else the hub.
    Raises DataError, one line, for what is missing or damaged; images are looked at when read.
    """
    data, given = SETS[name], check_source(source, root)
    own = f"{data.karpathy} or {data.lists['test']}"
    otherwise = (
        f"give a folder with {own} and the images with data.root=FOLDER, or use data=scenes, which "
        "needs no hub"
    )
    if source == "package":
        raise DataError(f"{name} is in no package; use source=hub, or {otherwise}")
    if given is None and split != "test":
        raise DataError(f"the hub's copy of {name} holds the test split alone: {otherwise}")
    if given is None:
        for pattern in (data.table, data.archive):
            given = fetch_folder(
                repository, pattern, kind="dataset", revision=revision, error=DataError, otherwise=otherwise
            )
    assert given is not None
    rows = read_annotations(given, data, split)
    if not rows:
        raise DataError(f"the {split} split of {name} in {given} holds no image; {otherwise}")
    paths, captions = [row[0] for row in rows], [row[1] for row in rows]
    images, names = ImageFiles(given, set(paths), rules), [*map(short_names(paths).__getitem__, paths)]
    lines = [text for row, own in zip(names, captions, strict=True) for text in (row, *own)]
    hub = root is None
    return Pairs(
        source="hub" if hub else "local",
        revision=given.name if hub else checksum([*lines, *map(images.size, paths)]),
        names=names,
        captions=captions,
        read=lambda index: images.read(paths[index]),
        stamp="" if hub else checksum(map(images.stamp, paths)),
        settings=rules.settings(),
    )


def read_annotations(folder: Path, data: CaptionSet, split: str) -> Rows:
    """Images and captions of a split, from the first of the known files that is in `folder` or a
    folder in it. Raises DataError if there is none, or for a damaged one."""
    part = _OURS.get(split, split)
    wanted = data.train if split == "train" else (part,)
    readers: dict[str, Callable[[Path], Rows]] = {
        data.karpathy: lambda path: karpathy_rows(path, wanted),
        data.lists[part]: list_rows,
    }
    if split == "test":
        readers[data.table] = table_rows
    for name, reader in readers.items():
        if (path := find_file(folder, name)) is not None:
            return reader(path)
    raise DataError(
        f"{folder} holds none of {', '.join(readers)}, which say what the images of the {split} split show; "
        "put one of them there"
    )


def karpathy_rows(path: Path, splits: Iterable[str]) -> Rows:
    """Karpathy's form: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, of COCO with "filepath",
    the folder of the file."""
    found = _json(path)
    entries = found.get("images") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise damaged(path, 'expected an object with the list "images"')
    rows: Rows = []
    for number, entry in enumerate(entries):
        try:
            if entry["split"] in splits:
                name, own = _row(path, number, entry["filename"], [s["raw"] for s in entry["sentences"]])
                rows.append((_inside(entry.get("filepath"), name), own))
        except (TypeError, KeyError) as problem:
            raise damaged(path, f"image {number} lacks {problem}, or has another form") from None
    return rows


def list_rows(path: Path) -> Rows:
    """BLIP's form: [{"image", "caption"}], with all captions of an image or one at a time."""
    entries = _json(path)
    if not isinstance(entries, list):
        raise damaged(path, "expected a list of objects with image and caption")
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(entries):
        try:
            given = entry["caption"]
            name, own = _row(path, number, entry["image"], [given] if isinstance(given, str) else given)
        except (TypeError, KeyError) as problem:
            raise damaged(path, f"entry {number} lacks {problem}, or has another form") from None
        captions.setdefault(name, []).extend(own)
    return list(captions.items())


def table_rows(path: Path) -> Rows:
    """The hub's form: CSV with the columns filename and raw, a JSON list of captions."""
    csv.field_size_limit(_LONGEST)
    rows: Rows = []
    try:
        for number, entry in enumerate(csv.DictReader(io.StringIO(_text(path)))):
            rows.append(_row(path, number, entry["filename"], json.loads(entry["raw"])))
    except (TypeError, KeyError, ValueError, csv.Error) as problem:
        raise damaged(path, f"expected a table with filename and raw; {problem}") from None
    return rows


def _row(path: Path, number: int, name: Any, captions: Any) -> tuple[str, list[str]]:
    if not isinstance(name, str) or not name:
        raise damaged(path, f"the image of entry {number} has no file name")
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise damaged(path, f"the captions of {name} are not texts")
    return name.replace("\\", "/"), captions


def _inside(folder: object, name: str) -> str:
    """The name with its folder, which may be the whole path already."""
    if not isinstance(folder, str) or not folder:
        return name
    path = folder.replace("\\", "/").rstrip("/")
    return path if f"/{path}".endswith(f"/{name}") else f"{path}/{name}"


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as problem:
        raise damaged(path, f"not valid JSON: {problem}") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{path} is not UTF-8 (byte {problem.start}); convert it, e.g. with iconv -f latin1 -t utf-8"
        ) from None
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from None
