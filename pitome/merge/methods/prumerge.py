"""PruMerge and PruMerge+: outliers of attention, with their neighbours in them (Shang et al., ICCV 2025,
arXiv 2403.15388)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.fields import whole
from pitome.merge.plan import DensePlan, Plan, Tokens, cosine, rank
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class PruMergeOptions(PlaceOptions):
    """Options of `prumerge`.

    neighbours: tokens that each kept one takes in: those with the nearest keys.
    spread: PruMerge+: half of the tokens that are left are evenly spaced, the others the most attended ones.
    """

    neighbours: int = whole(32, least=0)
    spread: bool = False


def _reads(options: PruMergeOptions) -> tuple[Part, ...]:
    return ("received", "keys")


def macs(n: int, protected: int, dim: int, remove: int, options: PruMergeOptions) -> int:
    """Cosines of the kept tokens' keys, of width `dim`, with all, but for the token of the rest; mixing the
    features comes on top."""
    return (n - remove - 1) * n * dim if remove > 0 else 0


@register(
    "prumerge",
    place="projector",
    options=PruMergeOptions,
    guarantees=Guarantees(conserves_mass=False, proportional=False, groups=False, averages=False),
    source="arXiv 2403.15388",
    reads=_reads,
    macs=macs,
)
def prumerge(tokens: Tokens, remove: int, options: PruMergeOptions) -> DensePlan:
    """Keep all but one of the tokens that are left by the attention they get in the tower; each becomes
    itself plus the attention-weighted sum of the tokens of nearest keys, and one more token, the last, is the
    attention-weighted sum of all that are not kept (Section 3.3).

    How many are kept is `keep`; `outliers` says how many the authors' rule would keep.
    """
    received, keys = tokens.received, tokens.keys
    assert received is not None and keys is not None
    batch, n = received.shape
    count = max(n - remove - 1, 1)
    score = received
    if options.spread:
        grid = torch.arange(n, device=score.device) % max(2 * n // max(count, 1), 1) == 0
        grid &= grid.cumsum(0) <= count // 2
        score = score.masked_fill(grid, torch.inf)
    kept = rank(score)[:, :count].sort(dim=-1).values
    rows = torch.arange(batch, device=kept.device)[:, None]
    unit = cosine(keys)
    alike = (unit[rows, kept] @ unit.mT).scatter(2, kept[..., None], -torch.inf)  # [B, K, N] without itself
    near = alike.topk(min(options.neighbours, n - 1), dim=-1).indices
    weights = torch.zeros_like(alike).scatter(2, near, received[:, None].expand_as(alike).gather(2, near))
    weights = weights.scatter(2, kept[..., None], 1.0)
    if n - remove == 1:
        return Plan.dense(weights)
    rest = received.scatter(1, kept, 0.0)
    free = received.scatter(1, kept, -1.0).argmax(dim=-1, keepdim=True)  # whose place the last token takes
    return DensePlan(torch.cat([weights, rest[:, None]], dim=1), kept=torch.cat([kept, free], dim=1))


def outliers(received: Tensor) -> Tensor:
    """How many tokens of each image the authors' rule keeps, [B]: those whose attention [B, N] is above the
    third quartile by more than 1.5 times the distance of the quartiles."""
    low, high = (received.quantile(share, dim=-1, keepdim=True) for share in (0.25, 0.75))
    return (received > high + 1.5 * (high - low)).sum(dim=-1)
