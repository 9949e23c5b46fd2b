"""A file of conf/trainer as the training loop reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pitome.config import StageConfig, TrainerConfig


@dataclass(kw_only=True)
class Recipe(StageConfig, TrainerConfig):  # type: ignore[misc]  # whose `epochs` are all stages' or none's
    """How one stage of training runs: its own settings, and those that it shares with the other stages."""


def stages(trainer: TrainerConfig) -> list[StageConfig]:
    """The stages with `epochs` as it is given for all of them."""
    given = {} if trainer.epochs is None else {"epochs": trainer.epochs}
    return [dataclasses.replace(stage, **given) for stage in trainer.stages]


def recipes(trainer: TrainerConfig) -> list[Recipe]:
    """One recipe for each stage."""
    return [Recipe(**vars(trainer) | vars(stage)) for stage in stages(trainer)]
