"""Merging at once what a layer method cannot remove in one go: after an image tower there is one step, and it
may take away more than half of the tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch

from pitome.merge.plan import Plan, Tokens, keep_all

Decide = Callable[[Tokens, int], Plan]


def counts(n: int, remove: int) -> Iterator[tuple[int, int]]:
    """Tokens and how many of them go, round by round: at most half in each."""
    while remove > 0:
        step = min(remove, n // 2)
        yield n, step
        n, remove = n - step, remove - step


def in_rounds(tokens: Tokens, remove: int, decide: Decide) -> Plan:
    """The plan that rounds of `decide(tokens, count)` amount to; rows in the order of the sequence.

    What is compared in the second round are the means that the first one made, and sizes are its totals, as
    from layer to layer. Plans of `decide` drop no token (`Plan.whole`).
    """
    whole = keep_all(tokens)
    for _, step in counts(tokens.x.shape[1], remove):
        plan = decide(tokens, step)
        whole = _joined(whole, plan)
        metric, size = plan.carry_out(tokens.metric, tokens.size)
        tokens = dataclasses.replace(tokens, x=metric, size=size, metric=metric)
    order = whole.kept.argsort(dim=1)
    return Plan(
        kept=whole.kept.gather(1, order),
        source=whole.source,
        target=order.argsort(dim=1).gather(1, whole.target),
        weight=whole.weight,
        whole=True,
    )


def _joined(first: Plan, then: Plan) -> Plan:
    """One plan for two, of which the second is of the rows of the first. A mean of means is a weighted mean:
    a token weighs its share of its row, times the weight of that row."""
    kept, row, moved = first.kept, first.assignment(), then.assignment()
    weight = torch.ones_like(row, dtype=torch.float64) if first.weight is None else first.weight.double()
    share = weight / first.totals(weight).gather(1, row)
    if then.weight is not None:
        share = share * then.weight.double().gather(1, row)
    return Plan(
        kept=kept.gather(1, then.kept),
        source=torch.cat([first.source, kept.gather(1, then.source)], dim=1),
        target=torch.cat([moved.gather(1, first.target), then.target], dim=1),
        weight=share,
        whole=True,
    )
