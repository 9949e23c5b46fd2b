"""From a file of conf/data to its data module."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Any

from torch.utils.data import DataLoader

from pitome.config import DataConfig
from pitome.errors import UsageError, nearest
from pitome.sources.images import ImageRules
from pitome.tasks.classification.checks import DATA
from pitome.tasks.data import DataInfo, Preprocess
from pitome.tasks.loading import TrainingData


class ClassData(TrainingData):
    """Batches: images [B, C, H, W] as the model's `preprocess` asks, labels [B], sample indices [B];
    nothing is read or fetched before it is used.

    source: local (data.root), hub, package, or auto: data.root if given, else what is at hand. limit: so
    many test images. workers: processes that load batches; None leaves it to the data set. bank: so many
    training images in `bank_dataloader`, every class by its share, all by default. limit_train: so many
    training images, likewise, those for validation not among them. seed: of the order of training images and
    of how each is changed.
    """

    def __init__(
        self,
        config: DataConfig,
        preprocess: Preprocess,
        batch_size: int,
        *,
        source: str = "auto",
        limit: int | None = None,
        workers: int | None = None,
        bank: int | None = None,
        limit_train: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.source, self.rules = config, source, ImageRules.of(config.max_pixels, config.exif)
        self.preprocess, self.batch_size, self.limit = preprocess, batch_size, limit
        self.workers, self.bank = workers or 0, bank
        self.limit_train, self.seed = limit_train, seed

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """Of the tested split; its skipped samples are known once it has been read."""

    @property
    @abstractmethod
    def train_info(self) -> DataInfo:
        """Of the training split."""

    @property
    @abstractmethod
    def bank_info(self) -> DataInfo:
        """Of the images in `bank_dataloader`; those skipped are known once they have been read."""

    @abstractmethod
    def test_dataloader(self) -> DataLoader[Any]: ...

    @abstractmethod
    def bank_dataloader(self) -> DataLoader[Any]:
        """`bank` images of the training split, those for validation among them; prepared as for testing and
        in file order."""


def build_image_data(config: DataConfig, preprocess: Preprocess, batch_size: int, **how: Any) -> ClassData:
    """The data module of `config`; `how`: as of `ClassData`. A set with `classes` that has no reader of its
    own is files of images.

    Raises UsageError for an unknown name without classes, and DataError where source, root or model do
    not fit.
    """
    if config.name not in DATA and not config.classes:
        raise UsageError(f"unknown data {config.name!r}; {nearest(config.name, DATA)}")
    module, kind = (config.name, DATA[config.name]) if config.name in DATA else ("images", "ImageData")
    build: type[ClassData] = getattr(importlib.import_module(f"pitome.tasks.classification.{module}"), kind)
    return build(config, preprocess, batch_size, **how)
