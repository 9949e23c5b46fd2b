"""The breakdown per layer: attention, plan, merge and MLP."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

import pitome
from pitome.measure.layers import layer_times
from scripts.bench.groups import BASE, METHODS, RATIO, SMALL
from scripts.bench.record import Record
from scripts.bench.subjects import build, own_size
from scripts.bench.timing import UNMERGED, threads

PART = "layers"
Wanted = tuple[str, int, int, str]  # model, size, batch, method


def wanted(
    batch: int = 16, models: Sequence[str] = (SMALL, BASE), methods: Sequence[str] = METHODS
) -> list[Wanted]:
    """What is broken down: every model at its own size, and the longest input."""
    every = dict.fromkeys((UNMERGED, *methods))
    short: list[Wanted] = [(model, own_size(model), batch, method) for model in models for method in every]
    long: list[Wanted] = [(SMALL, 1024, 1, "pitome")]
    return [*short, *(entry for entry in long if entry[0] in models and entry[3] in methods)]


def break_down(
    cells: list[Wanted],
    record: Record,
    deadline: float,
    device: str,
    dtype: torch.dtype,
    ratio: float = RATIO,
    repeats: int = 5,
) -> bool:
    """Time the layers of every cell that is not in `record` yet, on one thread, CPU time (wall time on an
    accelerator). Returns whether all were done before `deadline` (time.monotonic)."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    for model, size, batch, method in cells:
        kept = 1.0 if method == UNMERGED else ratio
        key = f"{model}-{size}-batch{batch}-{method}"
        key += "" if kept in (1.0, RATIO) else f"-{kept}"
        if record.find(PART, key) is not None:
            continue
        if time.monotonic() > deadline:
            return False
        with threads(1):
            subject = build(model, batch, size, device, dtype)
            with pitome.patch(subject.model, method, ratio=kept):
                layers = layer_times(subject.model, subject.inputs, repeats=repeats, clock=clock)
        cell = {
            "model": model,
            "size": size,
            "batch": batch,
            "method": method,
            "ratio": kept,
            "repeats": repeats,
            "layers": [vars(layer) for layer in layers],
        }
        record.keep(PART, key, cell)
    return True
