"""Fashion-MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes (Xiao et al., 2017).

The bytes are the same from every source, and so is the revision: a checksum of images and labels.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from pitome.sources.fashion_mnist import CLASSES, SIZE, VALIDATION, Place, checksum, locate, read_split
from pitome.sources.images import DEFAULT, ImageRules
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


class Images(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Items: image [C, H, W] float, label, sample index; asked for many, it makes a batch at once."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        preprocess: Preprocess,
        *,
        train: bool,
        ids: np.ndarray | None = None,
    ) -> None:
        self.images = torch.from_numpy(images.copy())[:, None]
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.train = train
        self.ids = torch.from_numpy(np.arange(len(images)) if ids is None else ids)
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


class FashionMNIST(lightning.LightningDataModule):
    """Batches: images [B, C, H, W] as the model's `preprocess` asks, labels [B], sample indices [B].

    Grey images are repeated over three channels and resized to the model's input, never cropped.
    limit: the first so many test images in file order (the file is shuffled). The last 5,000
    training images are for validation. bank: so many training images in `bank_dataloader`, all by
    default. Raises DataError, when first used, for data that is missing
    or damaged.
    """

    def __init__(
        self,
        root: str | None,
        preprocess: Preprocess,
        batch_size: int,
        limit: int | None = None,
        workers: int | None = None,
        *,
        source: str = "auto",
        repository: str = "zalando-datasets/fashion_mnist",
        revision: str = "main",
        bank: int | None = None,
        rules: ImageRules = DEFAULT,
    ) -> None:
        super().__init__()
        self.bank, self.rules = bank, rules
        self.root, self.source, self.repository, self.revision = root, source, repository, revision
        self.preprocess, self.batch_size, self.limit, self.workers = (
            preprocess,
            batch_size,
            limit,
            workers or 0,
        )

    def _read(self, split: str) -> tuple[Place, np.ndarray, np.ndarray]:
        place = locate(self.source, self.root, split, self.repository, self.revision)
        return place, *read_split(place, split, self.rules)

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

    def _loader(
        self, images: Images, batch_size: int, train: bool = False
    ) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        return DataLoader(
            images,
            batch_size,
            shuffle=train,
            drop_last=train,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity,
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        _, images, labels = self._train
        data = Images(images[:-VALIDATION], labels[:-VALIDATION], self.preprocess, train=True)
        return self._loader(data, self.batch_size, train=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        _, images, labels = self._train
        ids = np.arange(len(images))[-VALIDATION:]
        data = Images(images[ids], labels[ids], self.preprocess, train=False, ids=ids)
        return self._loader(data, self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        _, images, labels = self._test
        count = self.info.n_selected
        return self._loader(
            Images(images[:count], labels[:count], self.preprocess, train=False), self.batch_size
        )

    @cached_property
    def _bank_ids(self) -> np.ndarray:
        _, images, labels = self._train
        return stratified_selection("fashion_mnist", labels, self.bank or len(images))

    @cached_property
    def bank_info(self) -> DataInfo:
        """Of the images in `bank_dataloader`."""
        limited = len(self._bank_ids) < len(self._train[1])
        return dataclasses.replace(
            self.train_info,
            n_selected=len(self._bank_ids),
            limit=len(self._bank_ids) if limited else None,
            selection=STRATIFIED if limited else "all",
        )

    def bank_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        """`bank` images of the training split, validation images among them, every class by its share;
        prepared as for testing and in file order."""
        _, images, labels = self._train
        ids = self._bank_ids
        data = Images(images[ids], labels[ids], self.preprocess, train=False, ids=ids)
        return self._loader(data, self.batch_size)
