"""PPT: prune where tokens differ in importance, else pool (arXiv 2310.01812)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pitome.fields import number
from pitome.merge.methods.tome import bipartite_plan, macs
from pitome.merge.plan import Plan, Tokens, keep_all, rank
from pitome.merge.registry import Guarantees, MethodOptions, register


@dataclass(frozen=True)
class PptOptions(MethodOptions):
    """Options of `ppt`.

    threshold: of the variance of the scores in one image, from which on its layer prunes.
    """

    threshold: float = number(7e-5, least=0)


@register(
    "ppt",
    options=PptOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False, needs_class_token=True),
    source="arXiv 2310.01812; xjwu1024/PPT 706bcdd, ppt_deit.py:146-205",
    needs_cls_attention=True,
    reads=lambda options: ("values",),
    macs=macs,
)
def ppt(tokens: Tokens, remove: int, options: PptOptions) -> Plan:
    """A token's score is its class attention (head mean) times the norm of its value (over the whole
    width). Image by image: where the variance of the scores over the unprotected tokens is at least the
    threshold, the `remove` lowest are dropped, else ToMe merges as many.

    Output rows: of a pruned image the protected tokens and the rest by position, of a pooled one as
    ToMe's. The authors remove r = 50 in blocks 3, 6 and 9 (`r=50 layers=[3,6,9]`); a layer here removes
    half of its tokens at most, as ToMe does.
    """
    if remove == 0:
        return keep_all(tokens)
    p = tokens.protected
    batch, n = tokens.x.shape[:2]
    assert tokens.cls_attention is not None and tokens.values is not None
    norm = tokens.values.square().sum(dim=(1, 3)).sqrt()
    score = (tokens.cls_attention * norm)[:, p:].detach()
    prunes = score.var(dim=1, keepdim=True, unbiased=False) >= options.threshold
    pooled = bipartite_plan(tokens, remove, tokens.size)
    order = rank(score) + p
    head = torch.arange(p, device=order.device).expand(batch, -1)
    kept = torch.cat([head, order[:, : n - p - remove].sort(dim=-1).values], dim=1)
    gone = order[:, n - p - remove :]
    return Plan(
        kept=torch.where(prunes, kept, pooled.kept),
        source=torch.where(prunes, gone, pooled.source),
        target=torch.where(prunes, -1, pooled.target),
        weight=tokens.size,
    )
