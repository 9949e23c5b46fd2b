"""ATC: agglomerative clustering of tokens (arXiv 2409.11923, ECCV 2024)."""

from __future__ import annotations

from typing import Any

import torch

from pitome.merge.plan import Plan, Tokens, cosine, keep_all
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import all_but_one


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """The cosines of all unprotected tokens."""
    return (n - protected) ** 2 * dim


@register(
    "atc",
    guarantees=Guarantees(equivariant=True),
    source="arXiv 2409.11923; JoakimHaurum/ATC 227c94b, models/atc.py:235-313",
    macs=macs,
    most=all_but_one,
)
def atc(tokens: Tokens, remove: int, options: MethodOptions) -> Plan:
    """Bottom-up clustering of the unprotected tokens: `remove` times, the two clusters of least mean
    distance 1 - cosine join (average linkage over the tokens that enter the layer), and every cluster
    becomes its mean by size.

    Output rows: protected tokens, clusters by their smallest member. Of equal distances the pair that
    comes first in the sequence joins. The authors cluster in blocks 3, 6 and 9 alone, with
    int(196 q^i) tokens left after the i-th, i = 1, 2, 3 (`layers=[3,6,9]`). On the model's device, one
    join after the other, the whole batch at once: the time grows with `remove`.
    """
    if remove == 0:
        return keep_all(tokens)
    p, batch = tokens.protected, tokens.x.shape[0]
    unit = cosine(tokens.metric[:, p:].detach())
    t = unit.shape[1]
    # Only pairs i < j, so that a joined cluster keeps the index of its smallest member.
    apart = torch.ones(t, t, dtype=torch.bool, device=unit.device).triu(1)
    distance = 1 - unit @ unit.transpose(1, 2)
    position = torch.arange(t, device=unit.device)
    label = position.expand(batch, -1)
    count = unit.new_ones(batch, t)
    alive = torch.ones_like(label, dtype=torch.bool)
    for _ in range(remove):
        open_pairs = apart & alive[:, :, None] & alive[:, None, :]
        best = distance.masked_fill(~open_pairs, torch.inf).flatten(1).argmin(dim=1, keepdim=True)
        i, j = best // t, best % t
        a, b = count.gather(1, i)[..., None], count.gather(1, j)[..., None]
        rows = i[..., None].expand(-1, -1, t), j[..., None].expand(-1, -1, t)
        mean = (a * distance.gather(1, rows[0]) + b * distance.gather(1, rows[1])) / (a + b)
        first = position == i
        distance = torch.where(first[..., None], mean, distance)
        distance = torch.where(first[:, None, :], mean.transpose(1, 2), distance)
        count = torch.where(first, (a + b)[..., 0], count)
        alive = alive & (position != j)
        label = torch.where(label == j, i, label)
    order = torch.where(alive, position, position + t).argsort(dim=1)  # clusters, then the others
    kept, gone = order[:, : t - remove], order[:, t - remove :]
    row = alive.long().cumsum(dim=1) - 1
    head = torch.arange(p, device=unit.device).expand(batch, -1)
    return Plan(
        kept=torch.cat([head, kept + p], dim=1),
        source=gone + p,
        target=row.gather(1, label.gather(1, gone)) + p,
        weight=tokens.size,
    )
