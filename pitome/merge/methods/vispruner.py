"""VisPruner: half by attention, half by unlikeness (Zhang et al., ICCV 2025, arXiv 2412.01818)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pitome.fields import number
from pitome.merge.plan import Plan, Tokens, cosine, keep_rows, rank
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class VisPrunerOptions(PlaceOptions):
    """Options of `vispruner`.

    important: share of the tokens that are left which are chosen by attention (rounded down).
    """

    important: float = number(0.5, least=0, most=1)


def _reads(options: VisPrunerOptions) -> tuple[Part, ...]:
    return ("received",)


def macs(n: int, protected: int, dim: int, remove: int, options: VisPrunerOptions) -> int:
    """In each round, cosines of half of what is not important with the other half, of width `dim`."""
    left = n - remove
    first, total = int(left * options.important), 0
    rest = n - first
    while remove > 0 and rest > max(left - first, 1):
        even, odd = rest - rest // 2, rest // 2
        total += even * odd * dim
        rest -= min(8, rest - (left - first), even)
    return total


@register(
    "vispruner",
    place="projector",
    options=VisPrunerOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False),
    source="arXiv 2412.01818",
    reads=_reads,
    macs=macs,
)
def vispruner(tokens: Tokens, remove: int, options: VisPrunerOptions) -> Plan:
    """Keep the tokens that get the most attention in the tower; of the others, in rounds, drop up to eight of
    those at even places that are most like one at an odd place, until as many are left as are wanted
    (Section 3.3; places count from 0 among what is left, in falling order of attention).
    """
    assert tokens.received is not None
    batch, n = tokens.received.shape
    left = n - remove
    first = int(left * options.important)
    order = rank(tokens.received)
    rest, unit = order[:, first:], cosine(tokens.metric)
    rows = torch.arange(batch, device=order.device)[:, None]
    while rest.shape[1] > left - first:
        even, odd = rest[:, ::2], rest[:, 1::2]
        count = min(8, rest.shape[1] - (left - first), even.shape[1])
        if odd.shape[1] == 0:  # one token is left, which is one too many
            rest = rest[:, :0]
            break
        alike = (unit[rows, even] @ unit[rows, odd].mT).amax(dim=-1)
        gone = torch.zeros_like(rest, dtype=torch.bool)
        gone[:, ::2] = torch.zeros_like(even, dtype=torch.bool).scatter(1, rank(alike)[:, :count], True)
        rest = rest[~gone].view(batch, -1)
    return keep_rows(torch.cat([order[:, :first], rest], dim=1), n)
