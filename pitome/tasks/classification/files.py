"""Files of classified images: folders of encoded images, or parquet files, opened one sample at a time.

Imports no torch, so that a folder can be looked at before a run starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.sources.folders import entries, fingerprint, stamp, walk
from pitome.sources.images import DEFAULT, ImageRules, decode, is_image, read_file
from pitome.sources.parquet import class_names, encoded_image, load_parquet
from pitome.tasks.labels import by_name, class_of, label_of


@dataclass(frozen=True)
class ImageSet:
    """A classified set of images."""

    name: str
    labels: Mapping[str, int]  # by name of a class folder
    # of `test` and `train`: how a folder or file begins, the hub's word last
    splits: Mapping[str, tuple[str, ...]]
    pattern: str  # of the hub's parquet files of a split, {} its word
    named: str  # what a class folder's name is, for messages
    example: str  # of a class folder and its files, likewise


def custom_set(name: str, classes: Sequence[str], split: str | None = None) -> ImageSet:
    """A user's own set, whose class folders bear the names of its classes in any case, given in the order of
    the labels. split: what is tested on, test (None) or validation."""
    tested = ("val", "validation") if split == "validation" else ("test",)
    return ImageSet(
        name=name,
        labels={title: label for label, title in enumerate(classes)},
        splits={"test": tested, "train": ("train",)},
        pattern="*{}-*.parquet",
        named=f"a class of data={name}",
        example=f"<class>/*.jpg ({', '.join(classes[:2])}{' ...' if len(classes) > 2 else ''})",
    )


class Folder:
    """Samples of a folder of class folders, sorted by class and name; in a class folder images may lie in
    folders.

    The name of a class folder decides the label, so a folder with some of the classes works. Without
    a folder of the split, `root` itself is what is tested on. Raises DataError for folders of other names,
    and when there are no images, in all or in one class folder.

    files, labels: of the samples; left_out: name -> reason of the files that are not samples.
    """

    def __init__(
        self, kind: ImageSet, root: Path, split: str, mode: str = "RGB", rules: ImageRules = DEFAULT
    ) -> None:
        self.mode, self.rules, known, names = mode, rules, kind.labels, kind.splits[split]
        self.known = known
        folders = {e.name.lower(): root / e.name for e in reversed(entries(root)) if (root / e.name).is_dir()}
        folder = next((folders[name] for name in names if name in folders), None)
        wanted = f"{'|'.join(names)}/{kind.example}"
        if folder is None and split == "train":
            raise DataError(f"{root} holds no training images; expected {wanted} in data.root")
        self.base = folder or root
        inside = [entry.name for entry in entries(self.base)]
        classes = [name for name in inside if (self.base / name).is_dir()]
        strange = [
            name
            for name in classes
            if class_of(name, known) is None
            and any(self._is_image(f"{name}/{file}") for file in walk(self.base / name))
        ]
        classes = [name for name in classes if class_of(name, known) is not None]
        if strange:
            raise DataError(
                f"{self.base}/{strange[0]} is not named after {kind.named}"
                f"{f' ({len(strange) - 1} more)' if len(strange) > 1 else ''}; expected {wanted} in data.root"
            )
        files = {name: [f"{name}/{file}" for file in walk(self.base / name)] for name in classes}
        images = {name: list(filter(self._is_image, files[name])) for name in classes}
        if not any(images.values()):
            raise DataError(
                f"{self.base} holds no images and no parquet files; expected {wanted} in data.root"
            )
        if empty := [name for name in classes if not images[name]]:
            raise DataError(
                f"{self.base / empty[0]} holds no images that can be read (PNG, JPEG, WebP, AVIF, TIFF and "
                "others, no HEIC); add some, or remove the folder"
            )
        self.files = [file for name in classes for file in images[name]]
        labels = {name: class_of(name, known) for name in classes}
        self.labels = [label for name in classes if (label := labels[name]) is not None for _ in images[name]]
        others = {file for of_class in files.values() for file in of_class} - set(self.files)
        stray = [name for name in inside if name not in classes and self._is_image(name)]
        self.left_out = dict.fromkeys(sorted(others), "no image that can be read")
        self.left_out |= dict.fromkeys(stray, "in no class folder")

    def _is_image(self, name: str) -> bool:
        return is_image(self.base / name)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = read_file(self.base, self.files[index], self.rules)
        return image.convert(self.mode), self.labels[index]

    def stamp(self) -> str:
        """Changes whenever a file does."""
        return stamp(self.base / name for name in self.files)

    def revision(self) -> str:
        """Of the files and their labels; see `fingerprint`."""
        pairs = zip(self.files, self.labels, strict=True)
        return fingerprint((f"{label} {name}", self.base / name) for name, label in pairs)


def parquet_files(root: Path) -> list[Path]:
    """Parquet files in `root` and its folders, sorted; not deeper, where a million images may lie."""
    return [root / name for name in walk(root, depth=2) if name.endswith(".parquet")]


def files_of_split(kind: ImageSet, root: Path, split: str) -> list[Path]:
    """Parquet files whose names begin with the split's (train; val, validation or test); for testing, all
    of them if none bears the name of a split. Raises DataError if there are none."""
    files, names = parquet_files(root), kind.splits[split]
    of_split = [path for path in files if path.name.startswith(names)]
    others = any(path.name.startswith(("train", "test", "val")) for path in files)
    paths = of_split or ([] if others or split == "train" else files)
    if not paths:
        raise DataError(f"{root} holds no parquet files of the split {split}; expected {names[0]}*.parquet")
    return paths


def open_files(
    kind: ImageSet, root: Path, split: str, mode: str = "RGB", rules: ImageRules = DEFAULT
) -> Folder | Parquet:
    """The samples of a split. Raises DataError as `Folder` and `Parquet` do, and where there are both."""
    return (
        Parquet(kind, root, split, mode, rules)
        if _is_parquet(kind, root)
        else Folder(kind, root, split, mode, rules)
    )


def _is_parquet(kind: ImageSet, root: Path) -> bool:
    if not (tables := parquet_files(root)):
        return False
    places = [root, *(root / name for names in kind.splits.values() for name in names)]
    inside = [Path(entry.path) for place in places if place.is_dir() for entry in entries(place)]
    if both := [path for path in inside if class_of(path.name, kind.labels) is not None and path.is_dir()]:
        raise DataError(f"{tables[0]} and the class folder {both[0]} may hold the same images; remove one")
    return True


def check_files(kind: ImageSet, root: Path, *, train: bool) -> None:
    """Look for the files of a run in a folder, by their names; train: for training images as well. Raises
    DataError as `Folder` and `files_of_split` do."""
    for split in ("train", "test") if train else ("test",):
        if _is_parquet(kind, root):
            files_of_split(kind, root, split)
        else:
            Folder(kind, root, split)


class Parquet:
    """Samples of parquet files with a column `image` (struct with `bytes`) and a column `label`, a number
    or the name of a class.

    Raises DataError for no files (see `files_of_split`), damaged files and other columns.
    """

    left_out: Mapping[str, str] = {}

    def __init__(
        self, kind: ImageSet, root: Path, split: str, mode: str = "RGB", rules: ImageRules = DEFAULT
    ) -> None:
        self.mode, self.rules, self.known = mode, rules, kind.labels
        self.paths = files_of_split(kind, root, split)
        self.table = load_parquet(self.paths, ["image", "label"])
        self._meant = by_name(class_names(self.table, "label"), self.known)

    @cached_property
    def labels(self) -> list[int]:
        """Of every sample; -1 where there is none."""
        return [-1 if (label := self._label(given)) is None else label for given in self.table["label"]]

    def _label(self, given: Any) -> int | None:
        if self._meant is not None and isinstance(given, int):
            return self._meant.get(given)
        return label_of(given, self.known)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.table[index]
        content = encoded_image(row["image"])
        if content is None:
            raise Unreadable("no bytes")
        label = self._label(row["label"])
        if label is None:
            raise Unreadable(f"label {row['label']} is not one of {len(self.known)}")
        name = row["image"].get("path") if isinstance(row["image"], dict) else None
        image = decode(content, name or "image", self.rules).image
        return image.convert(self.mode), label

    def stamp(self) -> str:
        """Changes whenever a file does."""
        return stamp(self.paths)

    def revision(self) -> str:
        """Of the files and the number of classes; see `fingerprint`."""
        return fingerprint((f"{len(self.known)} {path.name}", path) for path in self.paths)
