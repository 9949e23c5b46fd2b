"""Fashion-MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes (Xiao et al., 2017).

The bytes are the same from every source, and so is the revision: a checksum of images and labels.
"""

from __future__ import annotations

from functools import cached_property

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
from pitome.tasks.loading import ImageBatch, identity
from pitome.tasks.selection import STRATIFIED, stratified_selection


def jitter(images: Tensor, padding: int = 2) -> Tensor:
    """Shift each image of [B, C, H, W] by up to `padding` pixels (zeros come in), and mirror half of them."""
    batch, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    rows = torch.randint(2 * padding + 1, (batch, 1)) + torch.arange(height)
    columns = torch.randint(2 * padding + 1, (batch, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


class Images(Dataset[ImageBatch]):
    """Items: image [C, H, W] float, label, sample index; asked for many, it makes a batch at once."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        preprocess: Preprocess,
        *,
        train: bool,
    ) -> None:
        self.images = torch.from_numpy(images)[:, None]
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.train = train
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
        chosen = torch.tensor(indices)
        images = self.images[chosen]
        if self.train:
            images = jitter(images)
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
    def train_info(self) -> DataInfo:
        """Validation images left out."""
        count = len(self._train[1]) - VALIDATION
        return self._info("train", count, count)

    def _loader(
        self, data: tuple[Place, np.ndarray, np.ndarray], which: slice | np.ndarray, *, train: bool = False
    ) -> DataLoader[ImageBatch]:
        _, images, labels = data
        ids = np.arange(len(images))[which]
        return DataLoader(
            Images(images[ids], labels[ids], ids, self.preprocess, train=train),
            self.batch_size,
            shuffle=train,
            drop_last=train,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity,
        )

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        return self._loader(self._train, slice(-VALIDATION), train=True)

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
