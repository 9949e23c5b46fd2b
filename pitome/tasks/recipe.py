"""A file of conf/trainer as the training loop reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pitome.config import StageConfig, TrainerConfig


@dataclass(kw_only=True)
class Recipe(StageConfig, TrainerConfig):  # type: ignore[misc]  # whose `epochs` are all stages' or none's
    """How one stage of training runs: its own settings, and those that it shares with the other stages."""


def stages(trainer: TrainerConfig) -> list[StageConfig]:
    """The stages with what is given for all of them: `epochs`, and of a batch the size of all its parts."""
    given = {} if trainer.epochs is None else {"epochs": trainer.epochs}
    times = trainer.accumulate_grad_batches
    return [
        dataclasses.replace(stage, batch_size=times * stage.batch_size, **given) for stage in trainer.stages
    ]


def recipes(trainer: TrainerConfig) -> list[Recipe]:
    """One recipe for each stage."""
    parts = {"parts": trainer.parts * trainer.accumulate_grad_batches}
    return [Recipe(**vars(trainer) | parts | vars(stage)) for stage in stages(trainer)]
