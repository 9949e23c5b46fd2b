"""Batches of sentences of different lengths: every sample merges as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pitome.merge.plan import AnyPlan, DensePlan, Plan, Tokens, keep_all
from pitome.merge.registry import Method
from pitome.merge.schedule import Schedule, count_unprotected, limit_unprotected


def real_tokens(padding: Tensor) -> Tensor:
    """How many tokens of each sample are none of `padding` [B, N]: [B] long."""
    return padding.logical_not().sum(dim=1)


def removals(schedule: Schedule, layer: int, real: Tensor, protected: int, method: Method) -> Tensor:
    """`Schedule.remove` for samples of `real` [B] tokens: [B] long.

    In tensors, in double precision as `count_unprotected` computes, so that nothing waits for the
    device and torch.compile sees one graph; for a method that counts otherwise, number by number.
    """
    if method.count is not count_unprotected or method.limit is not limit_unprotected:
        counts = [schedule.remove(layer, n, protected, method.count, method.limit) for n in real.tolist()]
        return torch.tensor(counts, device=real.device)
    if schedule.kept is not None:
        return (real - schedule.kept[layer]).clamp_min(0)
    mergeable = (real - protected).clamp_min(0)
    most = mergeable // 2
    if schedule.removals is not None:
        return most.clamp_max(schedule.removals[layer])
    assert schedule.ratios is not None
    exact = (mergeable.cpu() if real.device.type == "mps" else mergeable).double()  # MPS has no float64
    return torch.minimum((exact - exact * schedule.ratios[layer]).floor().to(most), most)


def split(tokens: Tokens, remove: Tensor, order: Tensor, partner: Tensor, **fields: Any) -> Plan:
    """The plan of a batch with padding.

    `remove` [B]; `order` [B, N]: every token once, in each sample those that stay, in the order of
    their rows, then padding, then those that leave. `partner` [B, N]: the token that each token
    joins, -1 where it is dropped; read for those that leave. `fields`: weight and mass of the plan.
    A sample with nothing to remove stays in its order, as it would alone.
    """
    assert tokens.padding is not None
    position = torch.arange(order.shape[1], device=order.device)
    order = torch.where(remove[:, None] == 0, position, order)
    kept, source = order[:, : tokens.rows], order[:, tokens.rows :]
    row = torch.zeros_like(order).scatter(1, kept, position[: kept.shape[1]].expand_as(kept))
    joined = partner.gather(1, source)
    dropped = tokens.padding.gather(1, source) | (joined < 0)
    target = row.gather(1, joined.clamp_min(0)).masked_fill(dropped, -1)
    return Plan(kept=kept, source=source, target=target, **fields)


def plan_alone(plan: Callable[[Tokens, int], AnyPlan], tokens: Tokens, remove: Tensor) -> AnyPlan:
    """The plan of a batch with padding, by a function that knows nothing of padding: it is asked
    for one sample at a time, without the padding. `remove` [B]."""
    assert tokens.padding is not None and tokens.rows is not None
    n, rows = tokens.x.shape[1], tokens.rows
    counts = zip(real_tokens(tokens.padding).tolist(), remove.tolist(), strict=True)
    plans: list[AnyPlan] = []
    for i, (real, k) in enumerate(counts):
        sample = _sample(tokens, i, real)
        plans.append(plan(sample, k) if k > 0 else keep_all(sample))
    dense = [part for part in plans if isinstance(part, DensePlan)]
    if dense:
        matrices = [part.matrix(tokens.size.dtype) for part in plans]
        # Padding is a row of zeros.
        padded = [functional.pad(m, (0, n - m.shape[2], 0, rows - m.shape[1])) for m in matrices]
        return Plan.dense(torch.cat(padded), dense[0].dtype)
    parts = [_pad(part, n, rows) for part in plans if isinstance(part, Plan)]

    def together(name: str, width: int) -> Tensor | None:
        found = [getattr(part, name) for part in parts]
        if all(value is None for value in found):
            return None
        ones = tokens.size.new_ones(1, width)
        return torch.cat([ones if value is None else value for value in found])

    return Plan(
        kept=torch.cat([part.kept for part in parts]),
        source=torch.cat([part.source for part in parts]),
        target=torch.cat([part.target for part in parts]),
        weight=together("weight", n),
        mass=together("mass", n),
        scale=together("scale", rows),
    )


def _sample(tokens: Tokens, i: int, real: int) -> Tokens:
    """Sample `i` of the batch without its padding."""

    def cut(part: Tensor | None, axis: int) -> Tensor | None:
        return None if part is None else part[i : i + 1].narrow(axis, 0, real)

    attention = cut(tokens.attention, 2)
    return replace(
        tokens,
        x=tokens.x[i : i + 1, :real],
        metric=tokens.metric[i : i + 1, :real],
        size=tokens.size[i : i + 1, :real],
        cls_attention=cut(tokens.cls_attention, 1),
        attention=None if attention is None else attention[..., :real],
        values=cut(tokens.values, 2),
        mlp=cut(tokens.mlp, 1),
        padding=None,
        rows=None,
    )


def _pad(plan: Plan, n: int, rows: int) -> Plan:
    """`plan`, of one sample, for `n` tokens instead of its own and `rows` rows."""
    filler = torch.arange(plan.n_in, n, device=plan.kept.device)[None]
    kept, dropped = filler[:, : rows - plan.n_out], filler[:, rows - plan.n_out :]
    return Plan(
        kept=torch.cat([plan.kept, kept], dim=1),
        source=torch.cat([dropped, plan.source], dim=1),
        target=torch.cat([torch.full_like(dropped, -1), plan.target], dim=1),
        weight=_ones_behind(plan.weight, n),
        mass=_ones_behind(plan.mass, n),
        scale=_ones_behind(plan.scale, rows),
    )


def _ones_behind(factor: Tensor | None, width: int) -> Tensor | None:
    """`factor` [1, n] -> [1, width]."""
    return None if factor is None else functional.pad(factor, (0, width - factor.shape[1]), value=1.0)
