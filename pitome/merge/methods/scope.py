"""SCOPE: tokens that cover the image, weighed by attention (Deng et al., arXiv 2510.24214)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.fields import number
from pitome.merge.plan import Plan, Tokens, cosine, keep_rows
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class ScopeOptions(PlaceOptions):
    """Options of `scope`.

    alpha: the power of the attention that the gain in coverage is weighed by; 0: coverage alone.
    """

    alpha: float = number(1.0, least=0)


def _reads(options: ScopeOptions) -> tuple[Part, ...]:
    return ("received",)


def macs(n: int, protected: int, dim: int, remove: int, options: ScopeOptions) -> int:
    """All cosines of `n` tokens of width `dim`."""
    return n * n * dim if remove > 0 else 0


@register(
    "scope",
    place="projector",
    options=ScopeOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False),
    source="arXiv 2510.24214",
    reads=_reads,
    macs=macs,
)
def scope(tokens: Tokens, remove: int, options: ScopeOptions) -> Plan:
    """Keep, one after the other, the token i with the largest sum_j max(0, S_ij - c_j) a_i^alpha.

    S are the cosines of the features, a is the attention that a token gets in the tower, c_j the largest S_ij
    of those picked, 0 at first (ties: the first by position).
    """
    assert tokens.received is not None
    unit = cosine(tokens.metric)
    batch, n = unit.shape[:2]
    similarity, weight = unit @ unit.mT, tokens.received**options.alpha
    rows = torch.arange(batch, device=unit.device)
    covered = similarity.new_zeros(batch, n)
    picked: list[Tensor] = []
    for _ in range(n - remove):
        gain = (similarity - covered[:, None]).clamp_min(0).sum(dim=-1) * weight
        if picked:
            gain = gain.scatter(1, torch.stack(picked, dim=1), -torch.inf)
        pick = gain.argmax(dim=-1)
        covered = torch.maximum(covered, similarity[rows, pick])
        picked.append(pick)
    return keep_rows(torch.stack(picked, dim=1), n)
