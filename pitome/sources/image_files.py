"""The images of a data set, found by the names that its annotations give them: in folders and zip files."""

from __future__ import annotations

import os
import re
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.sources.folders import ignored, walk
from pitome.sources.images import DEFAULT, MAX_BYTES, ImageRules, decode, file_bytes, suffixes
from pitome.sources.json_files import damaged

Key = tuple[str, ...]
"""The parts of a path from its end, e.g. of `a/0001.jpg`: 0001.jpg, a, and "" for the folder of the data."""


@dataclass(frozen=True)
class _Place:
    """An image's file, or the member of a zip file."""

    name: str  # relative to the folder of the data
    path: Path  # of the file, or of the zip file
    member: zipfile.ZipInfo | None = None


class ImageFiles:
    """The images of a folder, of all folders in it and of its zip files, by the names in `names`.

    A name may begin with folders. Of the files of that name the image is the one that shares most folders
    with it, counted from the end: `val2014/1.jpg` is coco/val2014/1.jpg rather than coco/train2014/1.jpg,
    and images/1.jpg where there is no other. Where no file has the exact name, one is taken whose name
    differs in case, Unicode normal form or percent-encoding, and then one that differs in its suffix.
    Names that end alike (a/1.jpg, b/1.jpg) never lead to one file, nor test/1.jpg to train/1.jpg. Files come
    before members of zip files.
    """

    def __init__(self, root: Path, names: Collection[str], rules: ImageRules = DEFAULT) -> None:
        """Raises DataError for a damaged zip file, and where two images have equal claims to a name."""
        self._rules = rules
        self._places = _find(set(names), root)
        self._labels = short_names(names)
        self._archives: dict[tuple[int, Path], zipfile.ZipFile] = {}

    def read(self, name: str) -> Image.Image:
        """An image in mode RGB. Raises Unreadable."""
        place, label = self._places.get(name), self._labels.get(name, name)
        if place is None:
            raise Unreadable(f"{label}: no such file")
        content = file_bytes(place.path, label) if place.member is None else self._unpack(place, label)
        return decode(content, label, self._rules).image

    def _unpack(self, place: _Place, label: str) -> bytes:
        assert place.member is not None
        if place.member.file_size > MAX_BYTES:
            raise Unreadable(f"{label}: the file is larger than {MAX_BYTES / 1e6:.0f} MB")
        try:
            # Each process has its own: with one open file they would move each other's place in it.
            key = os.getpid(), place.path
            if key not in self._archives:
                self._archives[key] = zipfile.ZipFile(place.path)
            return self._archives[key].read(place.member)
        except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, zlib.error, EOFError) as problem:
            raise Unreadable(f"{label}: {problem}") from None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_archives": {}}  # open files stay in their process

    def size(self, name: str) -> str:
        """Bytes of an image's file; empty where there is none."""
        return self._of_file(name, lambda status: status.st_size, lambda member: member.file_size)

    def stamp(self, name: str) -> str:
        """Changes whenever the file does."""
        return self._of_file(name, lambda status: status.st_mtime_ns, lambda member: member.CRC)

    def _of_file(
        self, name: str, of_file: Callable[[os.stat_result], int], of_member: Callable[[zipfile.ZipInfo], int]
    ) -> str:
        place = self._places.get(name)
        try:
            if place is None:
                return ""
            return str(of_file(place.path.stat()) if place.member is None else of_member(place.member))
        except OSError:
            return ""


def short_names(names: Collection[str]) -> dict[str, str]:
    """What to call images: by their file names, with their folders where several have the same."""
    known: dict[str, set[str]] = defaultdict(set)
    for name in names:
        known[_last(name)].add(name)
    return {name: _last(name) if len(known[_last(name)]) == 1 else name for name in names}


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _exact(name: str) -> Key:
    return (*reversed([part for part in name.split("/") if part not in ("", ".", "..")]), "")


def _folded(name: str) -> Key:
    """Equal for names that differ in case, Unicode normal form, percent-encoding or space around them."""
    name = unquote(name).strip()
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return _exact(name.lower())


def _stem(name: str) -> Key:
    """Equal for names that differ in an image's suffix besides."""
    last, *folders = _folded(name)
    stem, suffix = os.path.splitext(last)
    return (stem if suffix in suffixes() else last, *folders)


_SPLIT = re.compile(r"(?<![a-z])(?:train|val|test|dev)(?=\d|[^a-z]|idation|$)")  # in the name of a folder
_KEYS: tuple[Callable[[str], Key], ...] = (_exact, _folded, _stem)  # by decreasing strictness


def _find(names: set[str], root: Path) -> dict[str, _Place]:
    """Name -> its file, for those that have one. Raises DataError."""
    wanted = {_stem(name)[0] for name in names}
    places = [place for place in _places(root) if _stem(_last(place.name))[0] in wanted]
    found: dict[str, _Place] = {}
    for key in _KEYS:
        if len(found) == len(names):
            break
        by_last: dict[str, list[tuple[Key, _Place]]] = defaultdict(list)
        for place in places:
            parts = key(place.name)
            by_last[parts[0]].append((parts, place))
        needed = _needed(names, key)
        for name in sorted(names - set(found)):
            parts = key(name)
            fitting = [
                place
                for own, place in by_last[parts[0]]
                if _shared(own, parts) >= needed[parts] and _same_split(place.name, name)
            ]
            if fitting:
                found[name] = _choose(name, fitting, root)
    return found


def _same_split(file: str, name: str) -> bool:
    """Whether no folder says that the two are of different splits; COCO_val2014_1.jpg says it itself."""
    one, other = map(_splits, (file, name))
    return not one or not other or bool(one & other) or _SPLIT.search(_last(name).lower()) is not None


def _splits(path: str) -> set[str]:
    """The splits that the folders of a path name."""
    found = (word for part in path.split("/")[:-1] for word in _SPLIT.findall(part.lower()))
    return {"val" if word == "dev" else word for word in found}


def _needed(names: Iterable[str], key: Callable[[str], Key]) -> dict[Key, int]:
    """How many parts a file has to share with a name: those that no other name shares with it; more than
    there are where another name has the same key."""
    alike: dict[Key, set[Key]] = defaultdict(set)
    for name in names:
        alike[key(name)].add(_exact(name))
    needed = {parts: 1 if len(exact) == 1 else len(parts) + 1 for parts, exact in alike.items()}
    for first, other in pairwise(sorted(needed)):  # the most similar names are neighbours
        shared = _shared(first, other)
        needed[first], needed[other] = max(needed[first], shared + 1), max(needed[other], shared + 1)
    return needed


def _shared(name: Key, other: Key) -> int:
    """How many parts two paths share, from their ends."""
    count = 0
    for a, b in zip(name, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _choose(name: str, places: list[_Place], root: Path) -> _Place:
    """The place that shares most parts with the name. Raises DataError where that is not one image."""
    for key in _KEYS if len(places) > 1 else ():
        shared = [_shared(key(place.name), key(name)) for place in places]
        places = [place for place, count in zip(places, shared, strict=True) if count == max(shared)]
    places = [place for place in places if place.member is None] or places
    first, *others = places
    for other in others:
        if first.member is not None or not _one_file(first.path, other.path):
            raise DataError(
                f"{name} may be {first.name} or {other.name} in {root}; remove one, or give the image's "
                "folders in its name"
            )
    return first


def _one_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # a link to nowhere
        return False


def _places(root: Path) -> Iterator[_Place]:
    """All files and members of zip files. Raises DataError for a damaged zip file."""
    for name in walk(root):
        path = root / name
        if path.suffix.lower() != ".zip" or not path.is_file():
            yield _Place(name, path)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError) as problem:
            raise damaged(path, str(problem)) from None
        inside = name.rpartition(".")[0]  # where it is usually unpacked
        for member in members:
            parts = [part for part in member.filename.replace("\\", "/").split("/") if part.strip(".")]
            if parts and not member.is_dir() and not any(map(ignored, parts)):
                yield _Place("/".join([inside, *parts]), path, member)
