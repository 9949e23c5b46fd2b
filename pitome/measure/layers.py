"""Where the time of a patched model goes: attention, plan, merge and MLP of every block."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pitome.adapters.core import LayerPatch
from pitome.adapters.patch import tower_patch
from pitome.errors import UsageError
from pitome.measure.copies import evaluating
from pitome.measure.inputs import Inputs, device_of, forward


@dataclass(frozen=True)
class LayerTime:
    """Seconds that one block spends on a batch, the median of several forwards."""

    tokens: int  # entering the block
    # From the block's start to the merge, with norm, residual and size bias; where a method merges after
    # the block, with the MLP.
    attention: float
    plan: float  # what decides: metric, class attention, the method
    merge: float  # what carries it out
    mlp: float  # the rest

    @property
    def total(self) -> float:
        """Seconds of the whole block."""
        return self.attention + self.plan + self.merge + self.mlp


def layer_times(
    model: nn.Module,
    inputs: Inputs,
    *,
    repeats: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> list[LayerTime]:
    """The blocks of the patched `model`, timed on `inputs` after one forward that is not counted.

    `clock` is read at every boundary between two parts; on CUDA, work that was submitted is waited
    for there, so the parts add up to more than an undisturbed forward takes.
    Raises UsageError for a model that is not patched.

    >>> import pitome, timm, torch
    >>> model = timm.create_model("vit_tiny_patch16_224")
    >>> with pitome.patch(model, "pitome", ratio=0.9):
    ...     times = layer_times(model, torch.randn(1, 3, 224, 224))
    >>> len(times), times[0].tokens
    (12, 197)
    """
    handle = tower_patch(model)
    if handle is None:
        raise UsageError(f"this {type(model).__name__} is not patched; patch it first (none will do)")
    device, depth = device_of(inputs), handle.state.depth

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    marks: list[dict[str, float]] = [{} for _ in range(depth)]
    seconds = np.zeros((repeats, depth, 4))
    with evaluating(model), _marking(model, marks, now):
        forward(model, inputs)
        for row in seconds:
            for mark in marks:
                mark.clear()
            forward(model, inputs)
            row[:] = [_parts(mark) for mark in marks]
    median = np.median(seconds, axis=0)
    return [LayerTime(n, *map(float, row)) for n, row in zip(handle.tokens, median, strict=False)]


def _parts(mark: dict[str, float]) -> tuple[float, float, float, float]:
    """Attention, plan, merge and MLP of one block from the times noted in it."""
    plan = mark.get("plan", 0.0)
    merge = mark["merged"] - mark["attended"] - plan
    return mark["attended"] - mark["start"], plan, merge, mark["end"] - mark["merged"]


@contextlib.contextmanager
def _marking(model: nn.Module, marks: list[dict[str, float]], now: Callable[[], float]) -> Iterator[None]:
    """While it lasts, every block notes the time at its start and end, and around plan and merge."""
    hooks, patches = [], []
    try:
        for module in model.modules():
            patch = vars(module).get("_pitome")
            if not isinstance(patch, LayerPatch):
                continue
            mark = marks[patch.layer]
            hooks.append(module.register_forward_pre_hook(_note(mark, "start", now), prepend=True))
            hooks.append(module.register_forward_hook(_note(mark, "end", now)))
            patches.append(patch)
            _time_patch(patch, mark, now)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for patch in patches:
            del patch.merge, patch.decide


def _time_patch(patch: Any, mark: dict[str, float], now: Callable[[], float]) -> None:
    merge, decide = patch.merge, patch.decide

    def timed_merge(*args: Any, **kwargs: Any) -> Any:
        mark["attended"] = now()
        out = merge(*args, **kwargs)
        mark["merged"] = now()
        return out

    def timed_decide(*args: Any, **kwargs: Any) -> Any:
        start = now()
        out = decide(*args, **kwargs)
        mark["plan"] = now() - start
        return out

    patch.merge, patch.decide = timed_merge, timed_decide


def _note(mark: dict[str, float], name: str, now: Callable[[], float]) -> Callable[..., None]:
    def note(*args: object) -> None:
        mark[name] = now()

    return note
