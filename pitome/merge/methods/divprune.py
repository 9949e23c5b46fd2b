"""DivPrune: the image tokens that are least alike (Alvar et al., CVPR 2025, arXiv 2503.02175)."""

from __future__ import annotations

import torch
from torch import Tensor

from pitome.merge.plan import Plan, Tokens, cosine, keep_rows
from pitome.merge.registry import Guarantees, PlaceOptions, register


def macs(n: int, protected: int, dim: int, remove: int, options: PlaceOptions) -> int:
    """All cosines of `n` tokens of width `dim`."""
    return n * n * dim if remove > 0 else 0


@register(
    "divprune",
    place="projector",
    options=PlaceOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False, equivariant=True),
    source="arXiv 2503.02175",
    macs=macs,
)
def divprune(tokens: Tokens, remove: int, options: PlaceOptions) -> Plan:
    """Keep tokens far from each other, in their order; the others are dropped.

    Distance is 1 - cosine of the features as the language model reads them. The first is the token whose
    nearest other is farthest; then, again and again, the one whose nearest picked token is farthest
    (Section 3.2; ties: the first by position).
    """
    metric = cosine(tokens.metric)
    batch, n = metric.shape[:2]
    distance = 1 - metric @ metric.mT
    others = distance.masked_fill(torch.eye(n, dtype=torch.bool, device=metric.device), torch.inf)
    nearest = others.amin(dim=-1)  # [B, N] of any other, then of those picked
    picked: list[Tensor] = []
    for step in range(n - remove):
        pick = nearest.argmax(dim=-1)
        row = distance[torch.arange(batch, device=pick.device), pick]
        nearest = row if step == 0 else torch.minimum(nearest, row)
        picked.append(pick)
        nearest = nearest.scatter(1, torch.stack(picked, dim=1), -torch.inf)
    return keep_rows(torch.stack(picked, dim=1), n)
