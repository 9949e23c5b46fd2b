"""Representation Shift: drop what the MLP changes least (arXiv 2508.00367)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pitome.merge.plan import Plan, Tokens, keep_all, rank
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import all_unprotected


@dataclass(frozen=True)
class RepshiftOptions(MethodOptions):
    """Options of `repshift`.

    position: after the block, where the MLP has run.
    prop_attn: off: what is dropped stands for nothing.
    metric: nothing is compared, so there is one value.
    """

    prop_attn: bool = False
    metric: Literal["hidden"] = "hidden"
    position: Literal["after_block"] = "after_block"


@register(
    "repshift",
    options=RepshiftOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False, equivariant=True),
    source="arXiv 2508.00367",
    reads=lambda options: ("mlp",),
    most=all_unprotected,
)
def repshift(tokens: Tokens, remove: int, options: RepshiftOptions) -> Plan:
    """Drop the `remove` tokens of smallest ||MLP(x)||_2, the step that the layer's MLP adds to them. It
    needs no attention map. Output rows: by position."""
    if remove == 0:
        return keep_all(tokens)
    p = tokens.protected
    batch, n = tokens.x.shape[:2]
    assert tokens.mlp is not None
    order = rank(torch.linalg.vector_norm(tokens.mlp[:, p:].detach(), dim=-1)) + p
    head = torch.arange(p, device=order.device).expand(batch, -1)
    gone = order[:, n - p - remove :]
    return Plan(
        kept=torch.cat([head, order[:, : n - p - remove].sort(dim=-1).values], dim=1),
        source=gone,
        target=torch.full_like(gone, -1),
    )
