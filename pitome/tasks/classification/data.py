"""From a file of conf/data to its data module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pitome.config import DataConfig
from pitome.errors import UsageError, nearest
from pitome.sources.images import ImageRules
from pitome.tasks.data import Preprocess

if TYPE_CHECKING:
    from pitome.tasks.classification.fashion_mnist import FashionMNIST
    from pitome.tasks.classification.images import ImageData

DATA = {"fashion_mnist": "FashionMNIST", "imagenet": "ImageNet"}  # module of this package -> its class
"""Those with a reader of their own; every other set is files of images, with `classes`."""


def build_image_data(
    config: DataConfig,
    preprocess: Preprocess,
    *,
    batch_size: int,
    source: str = "auto",
    limit: int | None = None,
    workers: int | None = None,
    bank: int | None = None,
) -> FashionMNIST | ImageData:
    """The data module of `config` (name, root, repository, revision, max_pixels, exif; classes and split of
    a user's own set); nothing is read or fetched yet.

    workers: processes that load batches; None leaves it to the data set. bank: training images that
    the nearest neighbours are looked for in, all if None.
    Raises UsageError for an unknown name without classes, and DataError where source, root or model do
    not fit.
    """
    name, classes = config.name, config.classes
    kind: Callable[..., FashionMNIST | ImageData]
    if name in DATA:
        kind = getattr(importlib.import_module(f"pitome.tasks.classification.{name}"), DATA[name])
    elif classes:
        from pitome.tasks.classification.files import own_set
        from pitome.tasks.classification.images import ImageData

        kind = partial(ImageData, own_set(name, classes, config.split))
    else:
        raise UsageError(f"unknown data {name!r}; {nearest(str(name), DATA)}")
    return kind(
        config.root,
        preprocess,
        batch_size,
        limit,
        workers,
        source=source,
        repository=config.repository,
        revision=config.revision,
        bank=bank,
        rules=ImageRules.of(config.max_pixels, config.exif),
    )
