"""The breakdown per layer: attention, plan, merge and MLP."""

from __future__ import annotations

import time

import torch

import pitome
from pitome.bench.groups import BASE, METHODS, RATIO, SMALL
from pitome.bench.record import Record
from pitome.bench.subjects import build
from pitome.bench.timing import UNMERGED, threads
from pitome.measure.layers import layer_times

PART = "layers"
Wanted = tuple[str, int, int, str]  # model, size, batch, method


def wanted(batch: int = 16) -> list[Wanted]:
    """What is broken down: both sizes of the targets, and the longest input."""
    methods = (UNMERGED, *METHODS)
    short: list[Wanted] = [(model, 224, batch, method) for model in (SMALL, BASE) for method in methods]
    return [*short, (SMALL, 1024, 1, "pitome")]


def break_down(
    cells: list[Wanted], record: Record, deadline: float, device: str, dtype: torch.dtype, repeats: int = 5
) -> bool:
    """Time the layers of every cell that is not in `record` yet, on one thread, CPU time (wall time on an
    accelerator). Returns whether all were done before `deadline` (time.monotonic)."""
    done = record.part(PART)
    clock = time.process_time if device == "cpu" else time.perf_counter
    for model, size, batch, method in cells:
        key = f"{model}-{size}-batch{batch}-{method}"
        if key in done:
            continue
        if time.monotonic() > deadline:
            return False
        with threads(1):
            subject = build(model, batch, size, device, dtype)
            with pitome.patch(subject.model, method, ratio=1.0 if method == UNMERGED else RATIO):
                layers = layer_times(subject.model, subject.inputs, repeats=repeats, clock=clock)
        done[key] = {
            "model": model,
            "size": size,
            "batch": batch,
            "method": method,
            "repeats": repeats,
            "layers": [vars(layer) for layer in layers],
        }
        record.save()
    return True
