"""Flickr30k and COCO: annotations in the usual forms, images in folders or zip files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pitome.errors import DataError
from pitome.sources.checksums import checksum
from pitome.sources.folders import check_source, find_file
from pitome.sources.hub import fetch_folder
from pitome.sources.image_files import ImageFiles, short_names
from pitome.sources.images import DEFAULT, ImageRules
from pitome.sources.json_files import damaged, field_of, read_json, read_text
from pitome.sources.rows import read_rows
from pitome.tasks.retrieval.pairs import Pairs
from pitome.tasks.retrieval.sets import SETS, CaptionSet

_OURS = {"validation": "val"}  # our name of a split -> Karpathy's, where they differ
# An image and its caption: `1.jpg#0<tab>caption`, `1.jpg| 0| caption` (one line of Flickr30k lacks the second
# mark) or `1.jpg,caption`.
_LINE = re.compile(r"([^\t|,#]+\.[^\t|,#]+)(?:#\d+\t|\|\s*\d+\s*\|?|,)(.*)")

Captions = list[tuple[str, list[str]]]
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
        raise DataError(f"no package holds {name}; use source=hub, or {otherwise}")
    if given is None and not data.table:
        raise DataError(f"{name} is read from a folder: {otherwise}")
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
        read=partial(_read, images, paths),
        stamp="" if hub else checksum(map(images.stamp, paths)),
        settings=rules.settings(),
    )


def _read(images: ImageFiles, paths: list[str], index: int) -> Image.Image:
    return images.read(paths[index])


def read_annotations(folder: Path, data: CaptionSet, split: str) -> Captions:
    """Images and captions of a split, from the first of the known files that is in `folder` or a
    folder in it. Raises DataError if there is none, or for a damaged one."""
    part = _OURS.get(split, split)
    wanted = data.train if split == "train" else (part,)
    readers: dict[str, Callable[[Path], Captions]] = {
        data.karpathy: lambda path: karpathy_rows(path, wanted),
        data.lists[part]: list_rows,
    }
    benchmark = data.benchmark.format(part)
    readers[benchmark] = line_rows if benchmark.endswith(".txt") else coco_rows
    if split == "test" and data.table:
        readers[data.table] = table_rows
    readers |= {name: lambda path: _of_split(line_rows(path), path, folder, part) for name in data.raw}
    for name, reader in readers.items():
        if (path := find_file(folder, name)) is not None:
            return reader(path)
    raise DataError(
        f"{folder} has no captions of the {split} split: none of {', '.join(readers)} is there; "
        "put one of them there"
    )


def _of_split(rows: Captions, path: Path, folder: Path, part: str) -> Captions:
    """The rows of images that a list of a split names, with or without the suffix."""
    flickr8k = f"Flickr_8k.{'dev' if part == 'val' else part}Images.txt"
    for name in (f"{part}.txt", f"flickr30k_{part}.txt", flickr8k):
        if (found := find_file(folder, name)) is not None:
            wanted = {line.strip() for line in read_text(found).split("\n")}
            return [row for row in rows if {row[0], Path(row[0]).stem} & wanted]
    raise DataError(
        f"{path} does not say which images the split {part} has: put {part}.txt, a list of their names, "
        "beside it, or Karpathy's file"
    )


def karpathy_rows(path: Path, splits: Iterable[str]) -> Captions:
    """Karpathy's form: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, of COCO with "filepath",
    the folder of the file."""
    found = read_json(path)
    entries = found.get("images") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise damaged(path, 'expected an object with the list "images"')
    rows: Captions = []
    for number, entry in enumerate(entries):
        try:
            if entry["split"] in splits:
                name, own = _row(path, number, entry["filename"], [s["raw"] for s in entry["sentences"]])
                rows.append((_inside(entry.get("filepath"), name), own))
        except (TypeError, KeyError) as problem:
            raise damaged(path, f"image {number} lacks {problem}, or has another form") from None
    return rows


def list_rows(path: Path) -> Captions:
    """BLIP's form: [{"image", "caption"}], with all captions of an image or one at a time."""
    entries = read_json(path)
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


def coco_rows(path: Path) -> Captions:
    """COCO's form: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}."""
    found = read_json(path)
    parts = [found.get(key) if isinstance(found, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(part, list) for part in parts):
        raise damaged(path, 'expected an object with the lists "images" and "annotations"')
    images: dict[Any, tuple[Any, list[Any]]] = {}
    for number, entry in enumerate(parts[0] or ()):
        images[field_of(path, number, entry, "id")] = field_of(path, number, entry, "file_name"), []
    for number, entry in enumerate(parts[1] or ()):
        id = field_of(path, number, entry, "image_id")
        if id not in images:
            raise damaged(path, f"annotation {number} is of image {id}, which is not in the file")
        images[id][1].append(field_of(path, number, entry, "caption"))
    return [_row(path, number, *image) for number, image in enumerate(images.values())]


def line_rows(path: Path) -> Captions:
    """An image and one of its captions a line, see `_LINE`; the first line may be a header."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        match = _LINE.fullmatch(line.strip())
        if match:
            captions.setdefault(match[1].strip(), []).append(match[2].strip())
        elif line.strip() and number > 1:
            raise damaged(path, f"line {number} is not an image and its caption")
    return list(captions.items())


def table_rows(path: Path) -> Captions:
    """The hub's form: CSV with the columns filename and raw, a JSON list of captions."""
    rows: Captions = []
    try:
        for number, entry in enumerate(read_rows(path)):
            rows.append(_row(path, number, entry["filename"], json.loads(entry["raw"])))
    except (TypeError, KeyError, ValueError) as problem:
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
