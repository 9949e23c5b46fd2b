"""Speed of a merged model beside the unmerged one, timed alternately in the same run."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pitome.errors import UsageError


@dataclass(frozen=True)
class Timing:
    """Images per second of both sides, and the median of the pairs' ratios with its 95 % interval."""

    images_per_s: float
    images_per_s_unmerged: float
    speedup: float
    speedup_low: float
    speedup_high: float
    pairs: int
    batch: int
    device: str
    threads: int


def throughput(
    model: nn.Module,
    images: Tensor,
    *,
    pairs: int = 20,
    warmup: int = 3,
    precision: str = "32",
    progress: bool = True,
) -> Timing:
    """Time the patched `model` against its unmerged twin on `images` [B, C, H, W].

    The twin shares the weights. The two run in turn, and who goes first changes from pair to pair,
    so that a machine that drifts slows down both. `precision` with `-mixed` times under autocast.
    Raises UsageError for a model that is not patched.
    """
    twin = unmerged_twin(model)
    merged_run, unmerged_run = (_runner(net, images, precision) for net in (model, twin))
    was_training = model.training
    model.eval(), twin.eval()
    try:
        with torch.no_grad():
            merged, unmerged = alternate(
                merged_run,
                unmerged_run,
                pairs=pairs,
                warmup=warmup,
                clock=_clock(images.device),
                progress=progress,
            )
    finally:
        model.train(was_training)
    ratios = unmerged / merged
    low, high = median_interval(ratios)
    batch = images.shape[0]
    device = images.device
    return Timing(
        images_per_s=batch / float(np.median(merged)),
        images_per_s_unmerged=batch / float(np.median(unmerged)),
        speedup=float(np.median(ratios)),
        speedup_low=low,
        speedup_high=high,
        pairs=pairs,
        batch=batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
    )


def unmerged_twin(model: nn.Module) -> nn.Module:
    """A copy of the patched `model` without the patch; parameters and buffers are shared.

    Raises UsageError for a model that is not patched.
    """
    from pitome.adapters.patch import patched, remove

    if patched(model) is None:
        raise UsageError(
            f"this {type(model).__name__} is not patched; throughput compares merged with unmerged"
        )
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    remove(twin)
    return twin


def alternate(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    warmup: int,
    clock: Callable[[], float],
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each call, [pairs] for both; A B, then B A, and so on, after `warmup` of both."""
    for _ in range(warmup):
        first(), second()
    seconds = np.empty((2, pairs))
    for pair in tqdm(range(pairs), desc="timing", leave=False, disable=not progress):
        order = ((0, first), (1, second))
        for side, call in order if pair % 2 == 0 else order[::-1]:
            start = clock()
            call()
            seconds[side, pair] = clock() - start
    return seconds[0], seconds[1]


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the median of `values` [n] from order statistics: no assumption on their
    distribution. The widest one, minimum to maximum, for fewer than six values."""
    ordered = np.sort(values)
    n = len(ordered)
    # Number of values below the median: binomial(n, 1/2).
    tail = np.cumsum([math.comb(n, k) / 2.0**n for k in range(n + 1)])
    rank = max(int(np.searchsorted(tail, 0.025, side="right")) - 1, 0)
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def _runner(model: nn.Module, images: Tensor, precision: str) -> Callable[[], object]:
    kinds = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    if precision not in kinds:
        return lambda: model(images)

    def run() -> object:
        with torch.autocast(images.device.type, kinds[precision]):
            return model(images)

    return run


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds; on an accelerator after the work that was submitted is done."""
    if device.type == "cpu":
        return time.perf_counter
    synchronize = torch.cuda.synchronize if device.type == "cuda" else torch.mps.synchronize

    def read() -> float:
        synchronize()
        return time.perf_counter()

    return read
