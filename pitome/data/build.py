"""From a file of conf/data to its data module."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pitome.data.base import Preprocess
from pitome.errors import UsageError, nearest

if TYPE_CHECKING:
    from pitome.data.fashion_mnist import FashionMNIST
    from pitome.data.imagenet import ImageNet

DATA = {"fashion_mnist": "FashionMNIST", "imagenet": "ImageNet"}  # module of this package -> its class


def build(
    config: Mapping[str, Any],
    preprocess: Preprocess,
    *,
    batch_size: int,
    source: str = "auto",
    limit: int | None = None,
    workers: int | None = None,
    bank: int | None = None,
) -> FashionMNIST | ImageNet:
    """The data module of `config` (name, root, repository, revision); nothing is read or fetched yet.

    workers: processes that load batches; None leaves it to the data set. bank: training images that
    the nearest neighbours are looked for in, all if None.
    Raises UsageError for an unknown name, and DataError where source, root or model do not fit.
    """
    name = config["name"]
    if name not in DATA:
        raise UsageError(f"unknown data {name!r}; {nearest(str(name), DATA)}")
    module = importlib.import_module(f"pitome.data.{name}")
    return getattr(module, DATA[name])(
        config["root"],
        preprocess,
        batch_size,
        limit,
        workers,
        source=source,
        repository=config["repository"],
        revision=config["revision"],
        bank=bank,
    )
