"""The optimizer that all training shares."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pitome
from pitome.errors import DivergedError
from pitome.tasks.recipe import Recipe

Piece = TypeVar("Piece")

# What a schedule gives of the peak rate after the warm-up, at a progress from 0 to 1, above its floor.
_DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
}


class Trainable(lightning.LightningModule):
    """What `pitome.tasks.training.train` trains: it logs `monitor` after every epoch."""

    monitor: ClassVar[str]  # the validation score, larger is better, by which the best epoch is chosen
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)  # of AdamW

    def __init__(self, model: nn.Module, recipe: Recipe | None = None) -> None:
        """recipe: None for a module that only tests."""
        super().__init__()
        self.model, self.recipe = model, recipe
        self._teacher: list[nn.Module] = []  # in a list, so that it is no part of this module

    def learn_from(self, teacher: nn.Module) -> None:
        """With `distill`, have the answers of another model in the loss, which stays as it is."""
        self._teacher = [teacher.eval().requires_grad_(False)]

    def distilled(self, loss: Tensor, logits: Tensor, answer: Callable[[nn.Module], Tensor]) -> Tensor:
        """The loss, mixed with the cross entropy of `logits` [B, C] and the teacher's, which are
        `answer(teacher)` (Hinton et al. 2015, at temperature 1)."""
        if not self._teacher or self.recipe is None:
            return loss
        (teacher,) = self._teacher
        with torch.no_grad():
            given = answer(teacher.to(self.device)).float().softmax(-1)
        weight = self.recipe.distill
        return (1 - weight) * loss + weight * nn.functional.cross_entropy(logits.float(), given)

    def in_parts(self, count: int, work: Callable[[slice], Piece]) -> list[Piece]:
        """`work` of the `count` samples of a batch, in as many parts as the recipe says. Only one of several
        is held at a time: for the backward pass each is computed again."""
        assert self.recipe is not None, "training needs a recipe"
        size = -(-count // self.recipe.parts)
        if size == count:
            return [work(slice(0, count))]
        dtype = torch.get_default_dtype()  # precision=64 sets it for the forward pass alone
        return [
            checkpoint(
                work,
                slice(start, start + size),
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), _default_dtype(dtype)),
            )
            for start in range(0, count, size)
        ]

    def on_before_backward(self, loss: Tensor) -> None:
        self._check("loss", loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        if self.trainer.precision != "16-mixed":  # whose scaler leaves such a step out
            self._check("gradient", norm)
        self.log("grad_norm", norm)
        self.log("lr", optimizer.param_groups[0]["lr"])
        handle = pitome.patched(self.model)
        tokens = handle.tokens if handle is not None else []
        for place, counts in tokens.items() if isinstance(tokens, dict) else [("", tokens)]:
            if counts:
                self.log(f"merged_{place}" if place else "merged", 1 - counts[-1] / counts[0])

    def _check(self, what: str, value: Tensor) -> None:
        """Raises DivergedError for what is no number; the last checkpoint was written before it."""
        if not bool(value.isfinite()):
            batch = self.trainer.fit_loop.epoch_loop.batch_idx
            raise DivergedError(
                f"the {what} is {value.item()} in step {self.global_step + 1} "
                f"(epoch {self.current_epoch + 1}, batch {batch + 1}); the last checkpoint is kept. Give a "
                "smaller learning rate in trainer.stages, a smaller trainer.clip, or precision=32"
            )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.recipe is not None, "training needs a recipe"
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self.model, self.recipe, steps, self.monitor, self.betas)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def adamw(
    model: nn.Module,
    recipe: Recipe,
    steps: int,
    monitor: str,
    betas: tuple[float, float] = (0.9, 0.999),
) -> OptimizerLRSchedulerConfig:
    """AdamW without decay of norms and biases, and its schedule over `steps` in all.

    cosine, linear: a linear warm-up, then down to `min_lr`; plateau: no warm-up, a tenth of the rate
    whenever an epoch brings no better `monitor`.
    """
    groups = param_groups_weight_decay(model, recipe.weight_decay)
    if recipe.layer_decay < 1:
        groups = param_groups_layer_decay(model, recipe.weight_decay, layer_decay=recipe.layer_decay)
        groups = [group | {"lr": recipe.lr * group.pop("lr_scale")} for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=betas)
    if recipe.schedule == "plateau":
        # patience 0: from the first epoch without improvement on
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "interval": "epoch", "monitor": monitor},
        }
    decay = _DECAYS[recipe.schedule]
    warmup = max(int(steps * recipe.warmup / recipe.epochs), 1)
    floor = recipe.min_lr / recipe.lr

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return floor + (1 - floor) * decay(progress)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
