"""The optimiser that image and image-text training share."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from timm.optim import param_groups_weight_decay
from torch import nn


class Schedule(Protocol):
    """epochs, warmup: in epochs; lr: at the peak, min_lr: at the end."""

    @property
    def epochs(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def min_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup(self) -> float: ...


def adamw_cosine(
    model: nn.Module, recipe: Schedule, steps: int, betas: tuple[float, float] = (0.9, 0.999)
) -> OptimizerLRSchedulerConfig:
    """AdamW without decay of norms and biases; linear warm-up, then cosine over `steps` in all."""
    groups = param_groups_weight_decay(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=betas)
    warmup = max(int(steps * recipe.warmup / recipe.epochs), 1)
    floor = recipe.min_lr / recipe.lr

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
