"""Fashion-MNIST as arrays: found on disk, fetched from the hub, or taken from the Debian package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pitome.errors import DataError, Unreadable
from pitome.sources.debian import fetch_package
from pitome.sources.folders import cache_folder, check_source
from pitome.sources.hub import fetch_folder
from pitome.sources.idx import find_idx, read_idx
from pitome.sources.images import DEFAULT, ImageRules, decode

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
VALIDATION = 5_000  # the last training images; model selection never sees the test split
SIZE = 28
PACKAGE = "dataset-fashion-mnist"
INSIDE = "usr/share/datasets/fashion-mnist"
_PARTS = {"train": "train", "test": "t10k"}
_ELSE = "give a folder with its four IDX files with data.root=FOLDER"


@dataclass(frozen=True)
class Place:
    """A folder that holds the data set: IDX files, or (hub) parquet files."""

    source: str
    folder: Path


def locate(source: str, root: str | None, split: str, repository: str, revision: str) -> Place:
    """Find the data set, fetching it if need be.

    source: auto (what is on disk: data.root, the cached or installed package, the hub's cache;
    then the hub; then the package), hub, local or package. Raises DataError, one line, when no
    source has it.
    """
    given = check_source(source, root)
    if given is not None:
        return Place("local", given)
    cached, installed = cache_folder() / "fashion_mnist", Path("/") / INSIDE
    pattern = f"*{split}-*.parquet"
    if source != "hub":
        for folder in (cached, installed):
            if folder.is_dir():
                return Place("package", folder)
    if source != "package":
        try:
            folder = fetch_folder(
                repository,
                pattern,
                kind="dataset",
                revision=revision,
                error=DataError,
                otherwise=f"use source=package, or {_ELSE}",
            )
        except DataError:
            if source == "hub":
                raise
        else:
            return Place("hub", folder)
    return Place("package", fetch_package(PACKAGE, INSIDE, cached, otherwise=f"go online, or {_ELSE}"))


def read_split(place: Place, split: str, rules: ImageRules = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N] of `train` or `test`, as uint8. Raises DataError."""
    if place.source == "hub":
        images, labels = _read_parquet(place.folder, split, rules)
    else:
        part = _PARTS[split]
        images = read_idx(find_idx(place.folder, f"{part}-images-idx3-ubyte"), dims=3)
        labels = read_idx(find_idx(place.folder, f"{part}-labels-idx1-ubyte"), dims=1)
    if (
        len(images) != len(labels)
        or not len(images)
        or images.shape[1:] != (SIZE, SIZE)
        or labels.max() >= len(CLASSES)
    ):
        raise DataError(
            f"{place.folder}: {len(images)} images of {images.shape[1:]} and {len(labels)} labels "
            f"are not a split of Fashion-MNIST; {_ELSE}"
        )
    return images, labels


def _read_parquet(folder: Path, split: str, rules: ImageRules) -> tuple[np.ndarray, np.ndarray]:
    """The hub's form: a column `image` of PNG bytes and a column `label`."""
    from pitome.sources.parquet import encoded_image, load_parquet

    table = load_parquet(sorted(folder.rglob(f"*{split}-*.parquet")), ["image", "label"])
    images = []
    for number, cell in enumerate(table["image"]):
        try:
            image = decode(encoded_image(cell) or b"", f"row {number}", rules).image
        except Unreadable as problem:
            raise DataError(f"{folder}: {problem}; delete it to fetch it again, or {_ELSE}") from None
        images.append(np.asarray(image.convert("L")))
    return np.stack(images), np.asarray(list(table["label"]), np.uint8)
