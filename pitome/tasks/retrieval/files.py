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
from pitome.sources.annotation_files import AnnotationFiles
from pitome.sources.checksums import checksum
from pitome.sources.folders import check_source
from pitome.sources.hub import fetch_folder, say
from pitome.sources.image_files import ImageFiles, short_names
from pitome.sources.images import DEFAULT, ImageRules
from pitome.sources.json_files import File, damaged, field_of, read_json, read_text
from pitome.sources.rows import read_rows
from pitome.tasks.retrieval.pairs import Pairs
from pitome.tasks.retrieval.sets import SETS, CaptionSet
from pitome.tasks.tables import image_rows, texts_in

_KARPATHY = "dataset.json"  # in his archive of one set
_OURS = {"validation": "val"}  # our name of a split -> Karpathy's, where they differ
# An image and its caption, by what separates them, without and with a number of the caption. One line of
# Flickr30k's results.csv lacks the second mark.
_TOKEN = re.compile(r"(.+?)#\d+\t(.*)")
_LINES = {
    "|": (re.compile(r"([^|]+)\|(.*)"), re.compile(r"([^|]+)\|\s*\d+\s*\|?(.*)")),
    ",": (re.compile(r'("[^"]+"|[^,]+),(.*)'), re.compile(r'("[^"]+"|[^,]+),\s*\d+\s*,(.*)')),
}

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "raw", "title", "comment")

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
        given = fetch_folder(
            repository,
            data.table,
            data.archive,
            kind="dataset",
            revision=revision,
            error=DataError,
            otherwise=otherwise,
        )
    rows = read_annotations(given, data, split)
    if not rows:
        raise DataError(f"the {split} split of {name} in {given} holds no image; {otherwise}")
    images = ImageFiles(given, {path for path, _ in rows}, rules)
    hub = given.name if root is None else None
    return _pairs(rows, images.read, images.size, images.stamp, rules, hub)


def custom_pairs(
    name: str, split: str, *, source: str, root: str | None, rules: ImageRules = DEFAULT
) -> Pairs:
    """A split of a set of one's own: tables with the columns image and caption, one caption a row or several.

    Raises DataError, one line, for what is missing or damaged.
    """
    given = check_source(source, root)
    if given is None:
        raise DataError(f"data={name} is read from a folder: give data.root=FOLDER")
    found = image_rows(given, split, {"caption": CAPTION_COLUMNS}, rules)
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(found.rows, 1):
        texts = texts_in(name, number, "caption", row["caption"])
        captions.setdefault(row["image"] or "(no image)", []).extend(texts)
    if not captions:
        raise DataError(f"the {split} split of {name} in {given} holds no image; call its table {split}.csv")
    return _pairs(list(captions.items()), found.read, found.size, found.stamp, rules)


def _pairs(
    rows: Captions,
    read: Callable[[str], Image.Image],
    size: Callable[[str], str],
    stamp: Callable[[str], str],
    rules: ImageRules,
    commit: str | None = None,
) -> Pairs:
    """commit: of the hub's repository; None: the files are the user's own."""
    paths, captions = [row[0] for row in rows], [row[1] for row in rows]
    names = [*map(short_names(paths).__getitem__, paths)]
    lines = [text for row, own in zip(names, captions, strict=True) for text in (row, *own)]
    return Pairs(
        source="local" if commit is None else "hub",
        revision=checksum([*lines, *map(size, paths)]) if commit is None else commit,
        names=names,
        captions=captions,
        read=partial(_read, read, paths),
        stamp=checksum(map(stamp, paths)) if commit is None else "",
        settings=rules.settings(),
    )


def _read(read: Callable[[str], Image.Image], paths: list[str], index: int) -> Image.Image:
    return read(paths[index])


def read_annotations(folder: Path, data: CaptionSet, split: str) -> Captions:
    """Images and captions of a split, from the first of the known files that is in `folder` or a
    folder in it. Raises DataError if there is none, or for a damaged one."""
    part = _OURS.get(split, split)
    wanted = data.train if split == "train" else (part,)
    readers: dict[str, Callable[[File], Captions]] = {
        data.karpathy: lambda path: karpathy_rows(path, wanted),
        _KARPATHY: lambda path: karpathy_rows(path, wanted, name=data.karpathy),
        data.lists[part]: list_rows,
    }
    benchmark = data.benchmark.format(part)
    readers[benchmark] = line_rows if benchmark.endswith(".txt") else coco_rows
    if split == "test" and data.table:
        readers[data.table] = table_rows
    files = AnnotationFiles(folder)
    readers |= {name: lambda path: _of_split(line_rows(path), path, files, part) for name in data.raw}
    for name, reader in readers.items():
        if (path := files.find(name)) is not None:
            return reader(path)
    raise DataError(
        f"{folder} has no captions of the {split} split: none of {', '.join(readers)} is there; "
        "put one of them there"
    )


def _of_split(rows: Captions, path: File, files: AnnotationFiles, part: str) -> Captions:
    """The rows of images that a list of a split names, with or without the suffix."""
    flickr8k = f"Flickr_8k.{'dev' if part == 'val' else part}Images.txt"
    found = files.first((f"{part}.txt", f"flickr30k_{part}.txt", flickr8k))
    if found is None:
        raise DataError(
            f"{path} does not say which images the split {part} has: put {part}.txt, a list of their names, "
            "beside it, or Karpathy's file"
        )
    wanted = {Path(name).name for line in read_text(found).split("\n") if (name := line.strip())}
    rows = [row for row in rows if {Path(row[0]).name, Path(row[0]).stem} & wanted]
    if missing := sorted(wanted - {word for name, _ in rows for word in (Path(name).name, Path(name).stem)}):
        say(f"{found}: {len(missing)} of {len(wanted)} images have no captions in {path}, e.g. {missing[0]}")
    return rows


def karpathy_rows(path: File, splits: Iterable[str], *, name: str = "") -> Captions:
    """Karpathy's form: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, of COCO with "filepath",
    the folder of the file. name: of the set's file, if the set is to be the one that "dataset" says."""
    found = read_json(path)
    if name and isinstance(found, dict) and f"dataset_{found.get('dataset')}.json" != name:
        raise damaged(path, f"its dataset is {found.get('dataset')!r}, expected {name}")
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


def list_rows(path: File) -> Captions:
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


def coco_rows(path: File) -> Captions:
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


def line_rows(path: File) -> Captions:
    """An image and one of its captions a line: `1.jpg#0<tab>caption`, `1.jpg| 0| caption`, `1.jpg,caption` or
    `1.jpg,0,caption`, after a header that says which, or none. Quotation marks may enclose a caption."""
    lines = [(n, line.strip()) for n, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        return []
    first = lines[0][1]
    pattern, mark = _TOKEN, "," if "|" not in first else "|"
    if not _TOKEN.fullmatch(first):
        header = [name.strip().strip('"').lower() for name in first.split(mark)]
        named = "." not in header[0]
        pattern = _LINES[mark][len(header) > 2 if named else mark == "|"]
        lines = lines[named:]
    captions: dict[str, list[str]] = {}
    for number, line in lines:
        match = pattern.fullmatch(line)
        if match is None or "." not in match[1]:
            raise damaged(path, f"line {number} is not an image and its caption")
        captions.setdefault(match[1].strip(' "'), []).append(_unquoted(match[2].strip()))
    return list(captions.items())


def _unquoted(text: str) -> str:
    """A caption without the marks that enclose it as a field of a CSV file."""
    inner = text[1:-1].replace('""', "\0")
    return inner.replace("\0", '"') if text[:1] == text[-1:] == '"' and '"' not in inner and inner else text


def table_rows(path: File) -> Captions:
    """The hub's form: CSV with the columns filename and raw, a JSON list of captions."""
    rows: Captions = []
    try:
        for number, entry in enumerate(read_rows(path)):
            rows.append(_row(path, number, entry["filename"], json.loads(entry["raw"])))
    except (TypeError, KeyError, ValueError) as problem:
        raise damaged(path, f"expected a table with filename and raw; {problem}") from None
    return rows


def _row(path: File, number: int, name: Any, captions: Any) -> tuple[str, list[str]]:
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
