"""All parts of the bench, in order, until the time is spent."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pitome.bench import export, groups, layers, plot, table
from pitome.bench.allocator import keep_memory
from pitome.bench.groups import Group
from pitome.bench.llava import time_llava
from pitome.bench.record import Record
from pitome.bench.reference import check_checkout, reference
from pitome.bench.results import results
from pitome.bench.startup import startup
from pitome.bench.subjects import own_size
from pitome.bench.sweep import sweep
from pitome.bench.timing import all_threads, time_group
from pitome.errors import UsageError
from pitome.measure.throughput import LEAST_PAIRS
from pitome.merge import registry
from pitome.merge.schedule import check_ratio
from pitome.records.files import write_atomically
from pitome.tasks.environment import describe_environment, resolve_device

PARTS = ("export", "startup", "reference", "layers", "scaling", "llava", "sweep", "speed")
"""Short ones first, so that a bench of few minutes has something of everything."""

Step = Callable[[Record, float], bool]


@dataclass(frozen=True)
class Choice:
    """What to measure; as the options of scripts/bench.py."""

    results: Path
    parts: Sequence[str] = PARTS
    models: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    ratio: float = groups.RATIO
    batch: int = 16
    device: str = "cpu"
    dtype: str = "float32"
    minutes: float | None = None
    pairs: int | None = None
    reference: Path | None = None
    quick: bool = False

    def check(self) -> None:
        """Raises UsageError for what cannot be measured."""
        check_ratio(self.ratio)
        if self.batch < 1:
            raise UsageError(f"batch={self.batch} is not a whole number >= 1; give the images of a batch")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"minutes={self.minutes} is not above 0; leave it out for no limit")
        if self.pairs is not None and self.pairs < LEAST_PAIRS:
            raise UsageError(f"pairs={self.pairs} is too few for an interval; give {LEAST_PAIRS} or more")
        for method in self.methods or ():
            registry.get(method)
        for model in self.models or ():
            own_size(model)
        if self.reference is not None:
            check_checkout(self.reference)


def bench(choice: Choice) -> bool:
    """Measure what the record of these conditions lacks; write its table after every step,
    its plot at the end.

    Returns whether nothing is missing. Raises UsageError for a choice that cannot be measured.
    """
    choice.check()
    device = str(resolve_device(choice.device))
    conditions = describe(device, choice.dtype, choice.batch) | {"memory": keep_memory()}
    name = file_name(conditions) + ("-quick" if choice.quick else "")
    record = Record(choice.results / f"{name}.json", conditions)
    deadline = math.inf if choice.minutes is None else time.monotonic() + 60 * choice.minutes
    complete = True
    for part in choice.parts:
        for title, step in _steps(part, choice, device):
            print(f"{part}: {title}", flush=True)
            complete = step(record, deadline) and complete
            _write_table(record)
    plot.plot(results(record.parts.get("speed", {})), record.path.with_suffix(".png"))
    print(table.targets_table(record.conditions, record.parts), record.path.with_suffix(".md"), sep="\n\n")
    return complete


def _write_table(record: Record) -> None:
    text = table.markdown(record.conditions, record.parts)
    write_atomically(record.path.with_suffix(".md"), text.encode())


def describe(device: str, dtype: str, batch: int) -> dict[str, Any]:
    """The conditions of a record; `load`: processes that wanted a processor in the minute before."""
    environment = describe_environment(torch.device(device), dtype, "sdpa")
    return {
        "device": environment.device,
        "processor": platform.machine() if device == "cpu" else environment.device,
        "dtype": dtype,
        "batch": batch,
        "threads": all_threads(),
        "load": round(os.getloadavg()[0], 1),
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
    dtype, quick = getattr(torch, choice.dtype), choice.quick
    if part in ("speed", "scaling"):
        return [(group.key, _timed(group, device, dtype)) for group in _groups(part, choice)]
    if part == "layers":
        wanted = [(groups.QUICK_MODEL, 160, 2, "pitome")] if quick else layers.wanted(choice.batch)
        chosen = [one for one in wanted if _is_chosen(one[0], [one[3]], choice)]
        return [("every block", lambda record, end: layers.break_down(chosen, record, end, device, dtype))]
    if part == "export":
        return [("torch.export and onnxruntime", lambda record, end: export.compare(record, end, quick))]
    if part == "reference" and choice.reference is not None:
        checkout, batch = choice.reference, choice.batch
        return [("their code", lambda record, end: reference(checkout, record, end, batch=batch))]
    if part == "llava" and not quick:
        return [("tower, prefill, decoding", lambda record, end: time_llava(record, end, device, dtype))]
    if quick or device != "cpu":  # what follows does not depend on the device
        return []
    if part == "startup":
        return [("run.py", startup)]
    return [("16 points", sweep)] if part == "sweep" else []


def _groups(part: str, choice: Choice) -> list[Group]:
    if choice.quick:
        found = groups.quick() if part == "speed" else []
    else:
        table_of = groups.images if choice.device == "cpu" else groups.gpu
        found = table_of(choice.batch, choice.ratio) if part == "speed" else groups.scaling()
        others = [m for m in choice.models or () if part == "speed" and m not in {one.model for one in found}]
        for model in others:
            one = Group(model, own_size(model), choice.batch, choice.ratio)
            found += [one, replace(one, clock="wall")]
    if choice.device != "cpu":
        found = [replace(one, clock="wall") for one in found]
    if choice.pairs is not None:
        found = [replace(one, pairs=choice.pairs) for one in found]
    named = {one.key: replace(one, methods=_methods(one.methods, choice)) for one in found}
    return [one for one in named.values() if _is_chosen(one.model, one.methods, choice)]


def _methods(methods: Sequence[str], choice: Choice) -> tuple[str, ...]:
    return tuple(methods) if choice.methods is None else tuple(m for m in choice.methods if m != "none")


def _is_chosen(model: str, methods: Sequence[str], choice: Choice) -> bool:
    wanted = choice.methods is None or not set(methods).isdisjoint({*choice.methods, "none"})
    return wanted and (choice.models is None or model in choice.models)


def _timed(group: Group, device: str, dtype: torch.dtype) -> Step:
    return lambda record, deadline: time_group(group, record, deadline, device, dtype)
