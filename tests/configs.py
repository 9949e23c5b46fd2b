"""Configurations for tests of builders, from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pitome.config import DataConfig, ModelConfig
from pitome.fields import decode


def model_of(values: Mapping[str, Any]) -> ModelConfig:
    """The model of a file of conf/model."""
    return decode(ModelConfig, {"task": "classification"} | dict(values))


def data_of(values: Mapping[str, Any]) -> DataConfig:
    """The data of a file of conf/data."""
    return decode(DataConfig, {"task": "classification"} | dict(values))


def data_in(folder: Path, name: str = "fashion_mnist", **values: Any) -> DataConfig:
    """A data set in a folder."""
    return data_of({"name": name, "root": str(folder), **values})


def after(epochs: int) -> Any:
    """What a data module sees of a trainer that has had so many epochs."""
    return SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=epochs)))
    )
