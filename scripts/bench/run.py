"""All parts of the bench, in order, until the time is spent."""

from __future__ import annotations

import functools
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pitome.merge import native
from pitome.records.files import write_atomically
from pitome.runs.environment import describe_environment, resolve_device
from scripts.bench import export, groups, layers, plot, table
from scripts.bench.allocator import keep_memory
from scripts.bench.choice import Choice
from scripts.bench.groups import BASE, LEAST_PAIRS, METHODS, QUICK_MODEL, RATIO, SMALL, Group
from scripts.bench.llava import time_llava
from scripts.bench.record import Record
from scripts.bench.reference import reference
from scripts.bench.results import results
from scripts.bench.startup import startup
from scripts.bench.subjects import check_model, own_size
from scripts.bench.sweep import sweep, sweep_over_files
from scripts.bench.timing import all_threads, time_group

Step = Callable[[Record, float], bool]


def bench(choice: Choice) -> bool:
    """Measure what the record of these conditions lacks; write its table after every step,
    its plot at the end.

    Returns whether nothing is missing. Raises UsageError for a choice that cannot be measured.
    """
    choice.check()
    device = str(resolve_device(choice.device))
    _check_models(choice)
    conditions = describe(device, choice.dtype, choice.batch) | {"memory": keep_memory()}
    name = file_name(conditions) + ("-quick" if choice.quick else "")
    record = Record(choice.results / f"{name}.json", conditions)
    for note in choice.notes():
        print(note, file=sys.stderr)
    deadline = math.inf if choice.minutes is None else time.monotonic() + 60 * choice.minutes
    complete = True
    for part in choice.parts:
        for title, step in [] if choice.left_out(part) else _steps(part, choice, device):
            print(f"{part}: {title}", flush=True)
            complete = step(record, deadline) and complete
            _write_table(record)
    timed = results(record.part("speed"))
    plot.plot(timed, record.path.with_suffix(".png"), record.conditions, table.revisions(record.parts))
    print(table.targets_table(record.conditions, record.parts), record.path.with_suffix(".md"), sep="\n\n")
    return complete


def _check_models(choice: Choice) -> None:
    """Raises UsageError for a model or method that would stop the bench later."""
    if choice.models is None and choice.methods is None:
        return
    for model in choice.models or ():
        own_size(model)
    wanted = dict.fromkeys(
        (group.model, group.size, group.methods, group.ratio, group.layers)
        for group in _groups("speed", choice)
    )
    for model, size, methods, ratio, named in wanted:
        check_model(model, size, methods, ratio, named)


def _write_table(record: Record) -> None:
    text = table.markdown(record.conditions, record.parts)
    write_atomically(record.path.with_suffix(".md"), text.encode())


def describe(device: str, dtype: str, batch: int) -> dict[str, Any]:
    """The conditions of a record; `load`: processes that wanted a processor in the minute before; `kernel`:
    what merges (`pitome.merge.native`)."""
    environment = describe_environment(torch.device(device), dtype, "sdpa")
    return {
        "device": environment.device,
        "processor": platform.machine() if device == "cpu" else environment.device,
        "dtype": dtype,
        "batch": batch,
        "threads": all_threads(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": native.state() if device == "cpu" else None,
        "git_revision": environment.git_revision,
        "git_dirty": environment.git_dirty,
        "torch": environment.versions["torch"],
        "timm": environment.versions["timm"],
    }


def file_name(conditions: dict[str, Any]) -> str:
    """What the record of these conditions is called."""
    device = conditions["device"].replace(" ", "-")
    torch_version = conditions["torch"].partition("+")[0]
    return (
        f"{device}-{conditions['dtype']}-torch{torch_version}-batch{conditions['batch']}"
        f"-threads{conditions['threads']}"
    )


def _steps(part: str, choice: Choice, device: str) -> list[tuple[str, Step]]:
    """What there is to do for `part`, with a title."""
    dtype, methods = getattr(torch, choice.dtype), choice.merging(METHODS)
    ratio = RATIO if choice.ratio is None else choice.ratio
    if part in ("speed", "scaling", "training"):
        return [(group.key, _timed(group, device, dtype)) for group in _groups(part, choice)]
    if part == "layers":
        cells = _layers(choice, methods)
        return [
            ("every block", lambda record, end: layers.break_down(cells, record, end, device, dtype, ratio))
        ]
    if part == "export":
        model, size = (QUICK_MODEL, 160) if choice.quick else (SMALL, 224)
        few = choice.merging(METHODS[:1]) if choice.quick else methods
        step: Step = functools.partial(export.compare, model=model, size=size, methods=few, ratio=ratio)
        return [("torch.export and onnxruntime", step)]
    if part == "reference" and choice.reference is not None:
        step = functools.partial(
            reference,
            choice.reference,
            batch=choice.batch,
            ratio=ratio,
            methods=choice.in_checkout(),
            device=device,
            dtype=choice.dtype,
            pairs=choice.pairs or 20,
        )
        return [("their code", step)]
    if part == "llava":
        named = choice.merging(("pitome", "tome"))
        step = functools.partial(
            time_llava,
            device=device,
            dtype=dtype,
            methods=named,
            ratio=ratio,
            pairs=choice.pairs or LEAST_PAIRS,
        )
        return [("tower, prefill, decoding", step)]
    if part == "startup":
        return [("run.py", startup)]
    return [("16 points", sweep), ("8 points over files", sweep_over_files)]


def _layers(choice: Choice, methods: tuple[str, ...]) -> list[layers.Wanted]:
    if choice.quick:
        return [(QUICK_MODEL, 160, choice.batch, method) for method in choice.merging(("pitome",))]
    return layers.wanted(choice.batch, choice.models or (SMALL, BASE), methods)


def _groups(part: str, choice: Choice) -> list[Group]:
    if choice.quick:
        chosen = groups.quick(choice.batch, choice.ratio)
        if part == "training":
            chosen = [replace(chosen[0], mode="train")]
    elif part == "scaling":
        chosen = groups.scaling(choice.ratio)
    elif part == "training":
        chosen = groups.training(choice.batch, choice.ratio)
    else:
        table_of = groups.images if choice.device == "cpu" else groups.gpu
        chosen = table_of(choice.batch, choice.ratio)
        listed = {group.model for group in chosen}
        for model in [name for name in choice.models or () if name not in listed]:
            group = Group(model, own_size(model), choice.batch, choice.ratio or RATIO)
            chosen += [group, replace(group, clock="wall")]
    if not choice.plain:
        chosen = [group for group in chosen if group.mode != "onnx"]
    if choice.device != "cpu":
        chosen = [replace(group, clock="wall") for group in chosen]
    if choice.pairs is not None:
        chosen = [replace(group, pairs=choice.pairs) for group in chosen]
    named = [replace(group, methods=choice.merging(group.methods)) for group in chosen]
    kept = {group.key: group for group in named if choice.models is None or group.model in choice.models}
    return list(kept.values())


def _timed(group: Group, device: str, dtype: torch.dtype) -> Step:
    return lambda record, deadline: time_group(group, record, deadline, device, dtype)
