"""What texts of different lengths cost: means over a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pitome.adapters.patch import AnyPatched, Patched
from pitome.adapters.patch import patched as patched_handle
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.measure.throughput import Timing, throughput
from pitome.merge.costs import Architecture, ClosedForm, authors_macs, closed_form
from pitome.records.identity import UNMERGED
from pitome.records.schema import Cost, FixedLength, Throughput
from pitome.tasks.measuring import recorded
from pitome.tasks.memory import Parts

FIXED = 128
"""The length, special tokens counted, of the cost that does not depend on the data (the model's
longest where that is shorter)."""

_COUNTED = 8  # lengths that are counted operation by operation

Lengths = Mapping[int, int]
"""Length in tokens -> how many texts have it."""


def tokens_per_layer(
    architectures: Mapping[int, Architecture], lengths: Lengths, patched: AnyPatched | None
) -> list[float]:
    """Tokens entering each block, then the final count: means over the texts, to two decimals."""
    forms = {n: _form(architectures[n], patched) for n in lengths}
    total = sum(lengths.values())
    sums = [0] * len(next(iter(forms.values())).tokens)
    for n, times in lengths.items():
        sums = [so_far + times * tokens for so_far, tokens in zip(sums, forms[n].tokens, strict=True)]
    return [round(value / total, 2) for value in sums]


def measure_cost(
    model: nn.Module, architectures: Mapping[int, Architecture], lengths: Lengths, patched: AnyPatched | None
) -> Cost:
    """Mean cost of the texts, each alone at its own length; merged as `patched` says, and unmerged.

    `macs` is counted on the model at eight of the lengths, shortest and longest among them, and at
    the fixed one; in between, the ratio of count to closed form is interpolated, so that the mean
    follows the steps of the schedule. Closed forms and the authors' convention are of every length.
    """
    name = patched.method.name if patched is not None else UNMERGED
    twin = meta_copy(model)
    handle = patched_handle(twin)
    length = min(FIXED, int(model.config.max_position_embeddings))  # type: ignore[union-attr, arg-type]
    chosen = sorted({*_choose(sorted(lengths)), length})
    merged = {n: _count(twin, n) for n in chosen}
    if handle is not None:
        handle.remove()
    plain = {n: _count(twin, n) for n in chosen} if handle is not None else merged
    forms = {n: _form(architectures[n], patched) for n in lengths}
    described = {n: architectures.get(n) or _at(architectures, n) for n in {*lengths, length}}
    macs = _mean_counted(lengths, merged, {n: _form(form, patched).macs for n, form in described.items()})
    unmerged = _mean_counted(lengths, plain, {n: _form(form, None).macs for n, form in described.items()})
    fixed = _at(architectures, length)
    return Cost(
        macs=macs,
        flops=2 * macs,
        unmerged_macs=unmerged,
        unmerged_flops=2 * unmerged,
        share=macs / unmerged,
        macs_closed_form=round(_mean(lengths, lambda n: forms[n].macs)),
        plan_macs=round(_mean(lengths, lambda n: forms[n].plan_macs)),
        authors_macs=round(_mean(lengths, lambda n: authors_macs(architectures[n], forms[n].tokens, name))),
        unmerged_authors_macs=round(_mean(lengths, lambda n: _plain_authors(architectures[n], name))),
        fixed_length=FixedLength(
            tokens=length,
            macs=merged[length],
            unmerged_macs=plain[length],
            authors_macs=authors_macs(fixed, _form(fixed, patched).tokens, name),
            unmerged_authors_macs=_plain_authors(fixed, name),
        ),
    )


def measure_throughput(model: nn.Module, inputs: dict[str, Tensor], precision: str) -> Throughput:
    """Merged against unmerged, timed alternately on one batch with its padding; padding is not a token."""

    def timed(size: int) -> Timing:
        return throughput(model, {key: rows[:size] for key, rows in inputs.items()}, precision=precision)

    timing = Parts().first(len(inputs["attention_mask"]), timed)
    tokens = float(inputs["attention_mask"][: timing.batch].sum()) / timing.batch
    return dataclasses.replace(
        recorded(timing),
        tokens_per_s=tokens * timing.images_per_s,
        tokens_per_s_unmerged=tokens * timing.images_per_s_unmerged,
    )


def _form(architecture: Architecture, patched: AnyPatched | None) -> ClosedForm:
    if not isinstance(patched, Patched):
        return closed_form(architecture)
    return closed_form(architecture, patched.schedule, patched.method, patched.options)


def _at(architectures: Mapping[int, Architecture], tokens: int) -> Architecture:
    """Of one length, from that of another: only the number of tokens differs."""
    return dataclasses.replace(next(iter(architectures.values())), tokens=tokens, patches=tokens)


def _plain_authors(architecture: Architecture, method: str) -> int:
    return authors_macs(architecture, closed_form(architecture).tokens, method)


def _count(twin: nn.Module, tokens: int) -> int:
    return count_flops(twin, torch.zeros(1, tokens, dtype=torch.long, device="meta")).macs


def _choose(lengths: list[int]) -> list[int]:
    if len(lengths) <= _COUNTED:
        return lengths
    return [lengths[i] for i in np.linspace(0, len(lengths) - 1, _COUNTED).round().astype(int)]


def _mean_counted(lengths: Lengths, counted: Mapping[int, int], closed: Mapping[int, int]) -> int:
    known = sorted(counted)
    ratios = [counted[n] / closed[n] for n in known]
    return round(_mean(lengths, lambda n: closed[n] * float(np.interp(n, known, ratios))))


def _mean(lengths: Lengths, value: Callable[[int], float]) -> float:
    return sum(times * value(n) for n, times in lengths.items()) / sum(lengths.values())
