"""Variants of one model, timed in turn."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import pitome
from pitome.adapters.core import LayerPatch
from scripts.bench.groups import Group
from scripts.bench.memory import forward_memory
from scripts.bench.record import Record
from scripts.bench.subjects import Subject, build

UNMERGED, CUT = "none", "cut"
PART = "speed"


def time_group(group: Group, record: Record, deadline: float, device: str, dtype: torch.dtype) -> bool:
    """Time the variants of `group` until it has its pairs or `deadline` (time.monotonic) has passed.

    A round runs every variant once, each next round in the opposite order; what a round took is saved
    at once. Returns whether the group is complete.
    """
    cell = record.find(PART, group.key) or {"rounds": []}
    cell["group"] = dict(vars(group))  # more pairs may be asked for than before
    if len(cell["rounds"]) >= group.pairs:
        return True
    if time.monotonic() > deadline:
        return False
    with threads(1 if group.clock == "cpu" else all_threads()), torch.no_grad():
        subject = build(group.model, group.batch, group.size, device, dtype)
        calls = variants(group, subject, cell)
        for call in calls.values():
            for _ in range(1 if group.mode == "eager" else 2):
                call()
        clock = time.process_time if group.clock == "cpu" else time.perf_counter
        while len(cell["rounds"]) < group.pairs and time.monotonic() < deadline:
            names = list(calls) if len(cell["rounds"]) % 2 == 0 else list(calls)[::-1]
            taken = {name: seconds(calls[name], clock, device) for name in names}
            cell["rounds"].append({name: taken[name] for name in calls})
            record.keep(PART, group.key, cell, complete=len(cell["rounds"]) >= group.pairs)
    if group.mode in ("compile", "graphs"):
        torch.compiler.reset()
    return len(cell["rounds"]) >= group.pairs


def variants(group: Group, subject: Subject, cell: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Name -> one forward, or step of training, of the unmerged model, of every method's and of `cut`; notes
    in `cell` what each costs: `macs` of a forward, and, where nothing is compiled, `tokens` and `memory`
    (bytes that a call takes beside the weights)."""
    calls: dict[str, Callable[[], object]] = {}
    cell["macs"], cell["tokens"] = {}, {}
    memory = cell.setdefault("memory", {})
    for name in (UNMERGED, *group.methods):
        model = share(subject.model)
        if name != UNMERGED:
            handle = pitome.patch(model, name, ratio=group.ratio, layers=group.layers)
            cost = pitome.flops(model, subject.size)
            cell["macs"] |= {name: cost.macs, UNMERGED: cost.unmerged_macs}
        calls[name] = call = runner(model, subject.inputs, group.mode)
        if group.mode in ("eager", "train") and name not in memory:
            call()
            memory[name] = forward_memory(call, subject.inputs.device)
        if name != UNMERGED and group.mode in ("eager", "train"):
            cell["tokens"][name] = handle.tokens
    calls[CUT] = runner(cut(share(subject.model), group, subject), subject.inputs, group.mode)
    return calls


def cut(model: nn.Module, group: Group, subject: Subject) -> nn.Module:
    """`model` with the token counts of the first method of `group` and no merging: where that merges, the
    first tokens stay and the others are sliced off, without plan, mean or bias. The time of no method that
    removes tokens at these places can be below that, so it is the floor of a real machine."""
    handle = pitome.patch(model, group.methods[0], ratio=group.ratio, layers=group.layers)
    with torch.no_grad():
        model(subject.inputs[:1])
    for module in model.modules():
        patch = vars(module).get("_pitome")
        if isinstance(patch, LayerPatch):
            left = handle.tokens[patch.layer + 1]
            patch.__dict__ |= {
                "enter": _no_bias,
                "capture": _nothing,
                "merge": functools.partial(_first, left),
            }
    return model


def _no_bias(x: Tensor) -> None:
    """Instead of `LayerPatch.enter`."""


def _nothing(name: str, value: Tensor) -> None:
    """Instead of `LayerPatch.capture`."""


def _first(left: int, x: Tensor, scale: float) -> Tensor:
    """Instead of `LayerPatch.merge`: [B, N, C] -> [B, left, C]."""
    return x[:, :left]


def runner(model: nn.Module, inputs: torch.Tensor, mode: str) -> Callable[[], object]:
    """One forward of `model`, as `mode` runs it; `train`: and one backward, without an optimizer's step."""
    if mode == "onnx":
        from scripts.bench.export import onnx_runner

        return onnx_runner(model, inputs)
    if mode == "train":
        return functools.partial(_step, model.train(), inputs)
    how = {"compile": None, "graphs": "reduce-overhead"}
    call = torch.compile(model, dynamic=False, mode=how[mode]) if mode in how else model
    return lambda: call(inputs)


def _step(model: nn.Module, inputs: torch.Tensor) -> None:
    with torch.enable_grad():
        output = model(inputs)
        (output if isinstance(output, torch.Tensor) else output.logits).square().mean().backward()
    model.zero_grad(set_to_none=True)


def share(model: nn.Module) -> nn.Module:
    """A copy of `model` with the same weights in memory."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def seconds(call: Callable[[], object], clock: Callable[[], float], device: str) -> float:
    """Seconds of one call by `clock`; on CUDA until the work is done."""
    start = clock()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return clock() - start


def all_threads() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """torch on `number` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
