"""A file of conf/trainer as the training loop reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pitome.config import StageConfig, TrainerConfig


@dataclass(kw_only=True)
class Recipe(StageConfig, TrainerConfig):
    """How one stage of training runs: its own settings, and those that it shares with the other stages."""


def recipes(trainer: TrainerConfig) -> list[Recipe]:
    """One recipe for each stage."""
    return [Recipe(**vars(trainer), **vars(stage)) for stage in trainer.stages]
