"""E-ViT: keep what the class token looks at, fuse the rest (arXiv 2202.07800, ICLR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pitome.merge.plan import Plan, Tokens, keep_all, rank
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import all_unprotected


@dataclass(frozen=True)
class EvitOptions(MethodOptions):
    """Options of `evit`.

    fuse: the tokens that are not kept become one more; false: they are dropped (Top-K).
    prop_attn: off, as in the paper.
    """

    prop_attn: bool = False
    fuse: bool = True


@register(
    "evit",
    options=EvitOptions,
    guarantees=Guarantees(proportional=False, equivariant=True, needs_class_token=True, averages=False),
    source="arXiv 2202.07800, Section 3.2; as ATC's code compares with it (evit.py:192-262)",
    needs_cls_attention=True,
    most=all_unprotected,
)
def evit(tokens: Tokens, remove: int, options: EvitOptions) -> Plan:
    """Rank by class attention (head mean). With `fuse` the `remove` + 1 tokens of least attention become
    one, the sum of them weighted by attention: a sum, not a mean, as published.

    Output rows: protected tokens, the kept ones by descending attention, the fused one. The authors keep
    0.7 of the tokens in blocks 3, 6 and 9 (`ratio=0.7 layers=[3,6,9]`) and train; here the number that
    leaves is counted as for every method, the fused token is one of those that stay, and later layers rank
    it like any other.
    """
    if remove == 0:
        return keep_all(tokens)
    p = tokens.protected
    batch, n = tokens.x.shape[:2]
    assert tokens.cls_attention is not None
    attention = tokens.cls_attention
    order = rank(attention[:, p:].detach()) + p
    head = torch.arange(p, device=order.device).expand(batch, -1)
    stay = n - p - remove
    if not options.fuse or stay == 0:
        kept, gone = order[:, :stay], order[:, stay:]
        return Plan(torch.cat([head, kept], dim=1), gone, torch.full_like(gone, -1))
    kept, gone = order[:, :stay], order[:, stay:]
    fused = order[:, stay - 1 :]
    share = attention.gather(1, fused)
    scale = attention.new_ones(batch, n - remove - 1)
    return Plan(
        kept=torch.cat([head, kept], dim=1),
        source=gone,
        target=torch.full_like(gone, n - remove - 1),
        weight=torch.ones_like(attention).scatter(1, fused, share),
        scale=torch.cat([scale, share.sum(dim=1, keepdim=True)], dim=1),
    )
