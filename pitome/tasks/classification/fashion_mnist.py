"""Fashion-MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes (Xiao et al., 2017).

The bytes are the same from every source, and so is the revision: a checksum of images and labels.
"""

from __future__ import annotations

import functools
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from pitome.sources.checksums import checksum_of_arrays
from pitome.sources.fashion_mnist import CLASSES, SIZE, VALIDATION, Place, locate, read_split
from pitome.tasks.classification.data import ClassData
from pitome.tasks.data import DataInfo, Preprocess
from pitome.tasks.labels import check_labels
from pitome.tasks.loading import ImageBatch, identity
from pitome.tasks.selection import STRATIFIED, stratified_selection

PADDING = 2  # pixels by which training images are shifted at most


def jitter(images: Tensor, draws: Tensor, padding: int = PADDING) -> Tensor:
    """Shift images [B, C, H, W] by up to `padding` pixels (zeros come in) and mirror some: draws [B, 3] are
    rows and columns in [0, 2 * padding], and 1 for those that are mirrored."""
    batch, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    rows = draws[:, :1] + torch.arange(height)
    columns = draws[:, 1:2] + torch.arange(width)
    columns = torch.where(draws[:, 2:] == 1, columns.flip(1), columns)
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


@functools.lru_cache(maxsize=2)
def draws_of(seed: int, epoch: int, count: int, padding: int = PADDING) -> Tensor:
    """For `jitter`: of all `count` images of an epoch."""
    random = np.random.RandomState([seed, epoch, 1])
    return torch.from_numpy(random.randint(0, [2 * padding + 1] * 2 + [2], (count, 3)))


class Images(Dataset[ImageBatch]):
    """Items: image [C, H, W] float, label, sample index; asked for many, it makes a batch at once. seed: of
    training, whose items are numbers of `pitome.tasks.loading.SampleNumbers`."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        preprocess: Preprocess,
        *,
        seed: int | None = None,
    ) -> None:
        self.images = torch.from_numpy(images)[:, None]
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.seed = seed
        self.ids = torch.from_numpy(ids)
        steps: list[v2.Transform] = []
        shape = preprocess.shape or (preprocess.size, preprocess.size)
        if shape != (SIZE, SIZE):
            mode = InterpolationMode(preprocess.interpolation)
            steps.append(v2.Resize(list(shape), interpolation=mode, antialias=True))
        if preprocess.channels == 3:
            steps.append(v2.Grayscale(3))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(preprocess.mean, preprocess.std)]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> ImageBatch:
        chosen = torch.tensor(indices) % len(self)
        images = self.images[chosen]
        if self.seed is not None:
            images = jitter(images, draws_of(self.seed, indices[0] // len(self), len(self))[chosen])
        return self.transform(images), self.labels[chosen], self.ids[chosen]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        images, labels, ids = self.__getitems__([index])
        return images[0], labels[0], ids[0]


class FashionMNIST(ClassData):
    """Grey images are repeated over three channels and resized to the model's input, never cropped.

    limit: the first so many test images in file order (the file is shuffled). The last 5,000 training
    images are for validation. Raises DataError, when first used, for data that is missing or damaged.
    """

    def _read(self, split: str) -> tuple[Place, np.ndarray, np.ndarray]:
        config = self.config
        place = locate(self.source, config.root, split, config.repository, config.revision)
        return place, *read_split(place, split, self.rules)

    @cached_property
    def _test(self) -> tuple[Place, np.ndarray, np.ndarray]:
        return self._read("test")

    @cached_property
    def _train(self) -> tuple[Place, np.ndarray, np.ndarray]:
        return self._read("train")

    def _info(
        self, split: str, count: int, total: int, selection: str = "the first in file order"
    ) -> DataInfo:
        place, images, labels = self._test if split == "test" else self._train
        where = ("fashion_mnist", checksum_of_arrays(images, labels), split, place.source)
        return DataInfo.of(*where, count, total, classes=len(CLASSES), selection=selection)

    @cached_property
    def info(self) -> DataInfo:
        total = len(self._test[1])
        return self._info("test", min(self.limit or total, total), total)

    @cached_property
    def _train_ids(self) -> np.ndarray:
        """Of the training images, those for validation left out."""
        labels = self._train[2][:-VALIDATION]
        return stratified_selection("fashion_mnist", labels, self.limit_train or len(labels))

    @cached_property
    def train_info(self) -> DataInfo:
        """Validation images left out."""
        return self._info("train", len(self._train_ids), len(self._train[1]) - VALIDATION)

    def _loader(
        self, data: tuple[Place, np.ndarray, np.ndarray], which: slice | np.ndarray, *, train: bool = False
    ) -> DataLoader[ImageBatch]:
        _, images, labels = data
        ids = np.arange(len(images))[which]
        batches: dict[str, Any] = {"batch_size": self.batch_size}
        if train:
            batches = {"batch_sampler": self.drawn(len(ids), self.batch_size, self.seed)}
        return DataLoader(
            Images(images[ids], labels[ids], ids, self.preprocess, seed=self.seed if train else None),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity,
            generator=torch.Generator(),
            **batches,
        )

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        check_labels(self._train[2][self._train_ids], CLASSES, "fashion_mnist")
        return self._loader(self._train, self._train_ids, train=True)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self._train, slice(-VALIDATION, None))

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self._test, slice(self.info.n_selected))

    @cached_property
    def _bank_ids(self) -> np.ndarray:
        _, images, labels = self._train
        return stratified_selection("fashion_mnist", labels, self.bank or len(images))

    @cached_property
    def bank_info(self) -> DataInfo:
        return self._info("train", len(self._bank_ids), len(self._train[1]), STRATIFIED)

    def bank_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self._train, self._bank_ids)
