"""A file of conf/trainer as the training loop reads it."""

from __future__ import annotations

from dataclasses import dataclass

from pitome.config import TrainerConfig


@dataclass(frozen=True)
class Recipe:
    """How one stage of training runs."""

    epochs: int  # passes over the training samples
    batch_size: int  # samples in a step
    lr: float  # peak learning rate of AdamW
    min_lr: float = 0.0  # learning rate at the end of a cosine or linear schedule
    warmup: float = 0.0  # epochs of linear warm-up, with cosine and linear
    schedule: str = "cosine"  # of the learning rate; see `pitome.tasks.optimizers.adamw`
    weight_decay: float = 0.0  # of weights; biases and norms are not decayed
    clip: float = 1.0  # largest norm of the gradient; a larger gradient is scaled down to it
    smoothing: float = 0.0  # of the labels of a classifier
    mixup: float = 0.0  # alpha of timm's Mixup, for classes of images; 0: off
    cutmix: float = 0.0  # alpha of CutMix, likewise
    patch_size: int | None = None  # of the image tower, in pixels; None: the model's own


def recipes(trainer: TrainerConfig) -> list[Recipe]:
    """One recipe for each stage."""
    return [
        Recipe(
            epochs=stage.epochs,
            batch_size=stage.batch_size,
            lr=stage.lr,
            min_lr=stage.min_lr,
            warmup=stage.warmup,
            schedule=trainer.schedule,
            weight_decay=trainer.weight_decay,
            clip=trainer.clip,
            smoothing=trainer.smoothing,
            mixup=trainer.mixup,
            cutmix=trainer.cutmix,
            patch_size=stage.patch_size,
        )
        for stage in trainer.stages
    ]
