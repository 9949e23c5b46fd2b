"""What a run costs, put together for its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

import pitome
from pitome.adapters.patch import AnyPatched, Patched
from pitome.errors import UsageError
from pitome.measure.flops import count_flops
from pitome.measure.throughput import Timing, throughput
from pitome.merge.costs import Architecture, ClosedForm, authors_macs, closed_form
from pitome.records.schema import Cost, Throughput
from pitome.tasks.memory import Parts


def architecture_of(model: nn.Module) -> Architecture:
    """The description that the closed form uses, of a model that is not patched."""
    with pitome.patch(model, "none", ratio=1.0) as handle:
        return handle.architecture()


def tokens_per_layer(architecture: Architecture, patched: AnyPatched | None) -> list[int]:
    """Tokens entering each block of an encoder, then the final count; from the schedule."""
    return list(_form(architecture, patched).tokens)


def _form(architecture: Architecture, patched: AnyPatched | None) -> ClosedForm:
    """Of the encoder, in which nothing merges where tokens go after it."""
    if not isinstance(patched, Patched):
        return closed_form(architecture)
    return closed_form(architecture, patched.schedule, patched.method, patched.options)


def measure_cost(
    model: nn.Module,
    architecture: Architecture,
    patched: AnyPatched | None,
    unmerged: int,
    image: torch.Tensor,
) -> Cost:
    """Cost of one image [1, C, H, W]: counted on the model as it is, and by the closed forms.

    unmerged: MACs counted before the model was patched.
    """
    counted = count_flops(model, image)
    form = _form(architecture, patched)
    name = patched.method.name if patched is not None else "none"
    plain = closed_form(architecture)
    return Cost(
        macs=counted.macs,
        flops=counted.flops,
        unmerged_macs=unmerged,
        unmerged_flops=2 * unmerged,
        share=counted.macs / unmerged,
        macs_closed_form=form.macs,
        plan_macs=form.plan_macs,
        authors_macs=authors_macs(architecture, form.tokens, name),
        unmerged_authors_macs=authors_macs(architecture, plain.tokens, name),
    )


def measure_throughput(
    patched: AnyPatched | None, model: nn.Module, images: torch.Tensor, precision: str
) -> Throughput | None:
    """Merged against unmerged, timed alternately on `images` [B, C, H, W], or half of them and so on where
    memory is short; None if nothing merges."""
    if patched is None:
        return None
    return Parts().first(
        len(images), lambda size: recorded(throughput(model, images[:size], precision=precision))
    )


def recorded(timing: Timing) -> Throughput:
    """What a record keeps of a timing."""
    known = {field.name for field in dataclasses.fields(Throughput)}
    return Throughput(**{key: value for key, value in dataclasses.asdict(timing).items() if key in known})


def outcome_columns(parts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, list[Any]]:
    """What the batches of a test left of every sample (id, label, prediction, ...), in the order of the
    ids, with the column `correct`."""
    columns = {key: torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}
    order = columns["id"].argsort()
    out = {key: values[order].tolist() for key, values in columns.items()}
    return out | {"correct": [a == b for a, b in zip(out["label"], out["prediction"], strict=True)]}


def check_classes(model_classes: int, data_classes: int, *, random: bool, model: str, data: str) -> None:
    """Raise UsageError where there is no classifier, or its classes cannot be those of the data."""
    if not model_classes:
        raise UsageError(f"model={model} has no classifier; use task.head=knn, the vote of similar images")
    if model_classes != data_classes and not random:
        raise UsageError(
            f"model={model} knows {model_classes} classes, data={data} has {data_classes}; "
            "choose its own data, weights=PATH of a classifier for this one, weights=random or task.head=knn"
        )
