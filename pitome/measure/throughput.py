"""Speed of a merged model beside the unmerged one, timed alternately in the same run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pitome.errors import UsageError
from pitome.measure.copies import evaluating, unmerged_copy
from pitome.measure.inputs import Inputs, batch_size, cast, device_of, forward
from pitome.measure.memory import peak_memory

LEAST_PAIRS = 6
"""The fewest values whose median has a 95 % interval: minimum to maximum covers 1 - 2 / 2**6."""

_AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True)
class Timing:
    """Speed and memory of a merged model beside the unmerged one."""

    images_per_s: float  # samples (images, texts) per second of the merged model
    images_per_s_unmerged: float
    speedup: float  # the median of the pairs' ratios
    speedup_low: float  # its 95 % interval
    speedup_high: float
    pairs: int
    batch: int
    device: str
    threads: int
    dtype: str  # of the arithmetic
    # Bytes on the device during a forward of the merged model, weights included; where the device does
    # not count them (CPU), the largest resident size of the process so far.
    peak_memory: int
    peak_memory_unmerged: int | None  # likewise; None on a CPU


def throughput(
    model: nn.Module,
    inputs: Inputs,
    *,
    unmerged: nn.Module | None = None,
    pairs: int = 20,
    seconds: float | None = None,
    warmup: int = 3,
    precision: str = "32",
    progress: bool = True,
) -> Timing:
    """Time the patched `model` against `unmerged` on `inputs`, a whole batch a call: images
    [B, C, H, W], token ids [B, N], or the keywords of its forward.

    By default `unmerged` is the model without the patch, with the same weights. The two run in turn, and
    who goes first changes from pair to pair, so that a machine that drifts slows down both.
    `seconds` ends the timing early, after 6 pairs or more. `precision` `16-mixed` or `bf16-mixed`
    times under autocast, any other in the type of the weights.

    Raises UsageError for a model that is not patched or compiled, without `unmerged`, and for
    fewer than 6 pairs.

    >>> import pitome, timm, torch
    >>> model = timm.create_model("deit_tiny_patch16_224")
    >>> with pitome.patch(model, "pitome", ratio=0.9):
    ...     timing = pitome.throughput(model, torch.randn(8, 3, 224, 224))
    >>> print(f"{timing.speedup:.2f} times as fast")  # doctest: +SKIP
    """
    if pairs < LEAST_PAIRS:
        raise UsageError(f"pairs={pairs} is too few for an interval; give {LEAST_PAIRS} or more")
    other = unmerged_copy(model) if unmerged is None else unmerged
    merged_run, other_run = (_runner(net, inputs, precision) for net in (model, other))
    device = device_of(inputs)
    with evaluating(model, other):
        memory = [_warm_up(run, device, warmup) for run in (merged_run, other_run)]
        merged, plain = alternate(
            merged_run, other_run, pairs=pairs, seconds=seconds, timer=_timer(device), progress=progress
        )
    ratios = plain / merged
    low, high = median_interval(ratios)
    batch = batch_size(inputs)
    return Timing(
        images_per_s=batch / float(np.median(merged)),
        images_per_s_unmerged=batch / float(np.median(plain)),
        speedup=float(np.median(ratios)),
        speedup_low=low,
        speedup_high=high,
        pairs=len(ratios),
        batch=batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        dtype=str(_AUTOCAST.get(precision, _dtype(model))).removeprefix("torch."),
        peak_memory=memory[0],
        peak_memory_unmerged=memory[1] if device.type == "cuda" else None,
    )


def alternate(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    seconds: float | None = None,
    timer: Callable[[Callable[[], object]], float],
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each call by `timer`, [pairs] for both; A B, then B A, and so on.

    Once `seconds` of measured time are spent, it ends after the pair at hand, the sixth at the
    earliest.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    order = [(0, first), (1, second)]
    for pair in tqdm(range(pairs), desc="timing", leave=False, disable=not progress or None):
        if seconds is not None and pair >= LEAST_PAIRS and sum(map(sum, taken)) >= seconds:
            break
        for side, call in order:
            taken[side].append(timer(call))
        order.reverse()
    return np.array(taken[0]), np.array(taken[1])


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the median of `values` [n], n >= 6, from order statistics: no assumption on
    their distribution."""
    ordered = np.sort(values)
    n = len(ordered)
    # How many values lie below the median is binomial(n, 1/2): leave out what has 2.5 % a side.
    tail = np.cumsum([math.comb(n, k) / 2**n for k in range(n + 1)])
    rank = int(np.searchsorted(tail, 0.025, side="right")) - 1
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def _runner(model: nn.Module, inputs: Inputs, precision: str) -> Callable[[], object]:
    if precision not in _AUTOCAST:
        inputs = cast(inputs, _dtype(model))

    def run() -> object:
        with computing(device_of(inputs), precision):
            return forward(model, inputs)

    return run


def computing(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Autocast for `16-mixed` and `bf16-mixed`, nothing for other precisions."""
    if precision not in _AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, _AUTOCAST[precision])


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _warm_up(run: Callable[[], object], device: torch.device, times: int) -> int:
    """Run a few times; the peak memory of it, in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(times):
        run()
    return peak_memory(device)


def _timer(device: torch.device) -> Callable[[Callable[[], object]], float]:
    """Seconds of one call; on an accelerator until the work it submitted is done."""
    if device.type == "cuda":
        return _cuda_seconds

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start

    return seconds


def _cuda_seconds(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
