"""A model as a task builds it: weights, preprocessing, identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from pitome.config import PreprocessConfig
from pitome.sources.weights import Weights
from pitome.tasks.data import Preprocess

Model = TypeVar("Model", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Built(Generic[Model]):
    """A model as a task builds it."""

    model: Model  # in eval mode
    preprocess: Preprocess  # the images it expects
    weights: Weights
    sha256: str | None  # of the weights; None if random


def weights_of(weights: Weights, sha256: str | None) -> dict[str, str]:
    """What the card of a search says of the weights."""
    digest = "" if sha256 is None else f", sha256 {sha256}"
    return {"weights": f"{weights.name} ({weights.source}{digest})"}


def preprocess_of(model: nn.Module, given: PreprocessConfig | None) -> Preprocess:
    """The input a model was made for: `given` in its configuration, or timm's own record of it."""
    if given is not None:
        named: dict[str, Any] = {key: value for key, value in vars(given).items() if value is not None}
        return Preprocess(**named | {"mean": tuple(given.mean), "std": tuple(given.std)})
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    channels, size, _ = config["input_size"]
    return Preprocess(
        size=size,
        channels=channels,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_pct=config["crop_pct"],
        interpolation=config["interpolation"],
    )
