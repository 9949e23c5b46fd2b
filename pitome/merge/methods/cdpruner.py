"""CDPruner: tokens that are relevant and unlike each other (Zhang et al., NeurIPS 2025, arXiv 2506.10967)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pitome.merge.plan import Plan, Tokens, cosine, keep_rows
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class CdPrunerOptions(PlaceOptions):
    """Options of `cdpruner`.

    relevance: `none`: every token counts alike, as the method says for models without a text tower;
    `words`: by the prompt's words, as the language model embeds them.
    """

    relevance: Literal["none", "words"] = "none"


def _reads(options: CdPrunerOptions) -> tuple[Part, ...]:
    return ("text",) if options.relevance == "words" else ()


def macs(n: int, protected: int, dim: int, remove: int, options: CdPrunerOptions) -> int:
    """All cosines of `n` tokens of width `dim`, and in step k of the search n products with k - 1 rows."""
    left = n - remove
    return n * n * dim + n * left * (left - 1) // 2 if remove > 0 else 0


@register(
    "cdpruner",
    place="projector",
    options=CdPrunerOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False),
    source="arXiv 2506.10967",
    reads=_reads,
    macs=macs,
)
def cdpruner(tokens: Tokens, remove: int, options: CdPrunerOptions) -> Plan:
    """Keep the tokens that a greedy search finds to be the likeliest of a determinantal point process.

    Its kernel is diag(r) S diag(r): S the cosines of the features, r the relevance (Section 3.3). The search
    goes by Cholesky rows (Chen et al., NeurIPS 2018): next is the token with the largest residual. `words`: r
    is minus the mean cosine with the prompt's words, scaled to [0, 1] in every image.
    """
    unit = cosine(tokens.metric)
    batch, n = unit.shape[:2]
    kernel = unit @ unit.mT
    kernel.diagonal(dim1=1, dim2=2).fill_(1)  # which rounding would rank
    if tokens.text is not None:
        r = -(unit @ cosine(tokens.text).mT).mean(dim=-1)
        low, high = r.amin(dim=-1, keepdim=True), r.amax(dim=-1, keepdim=True)
        r = (r - low) / (high - low).clamp_min(torch.finfo(r.dtype).tiny)
        kernel = r[:, :, None] * kernel * r[:, None, :]
    rows = torch.arange(batch, device=unit.device)
    residual = kernel.diagonal(dim1=1, dim2=2)  # [B, N]
    factors = kernel.new_zeros(batch, n - remove, n)  # a row for each pick
    picked: list[Tensor] = []
    for step in range(n - remove):
        pick = residual.argmax(dim=-1)
        before = factors[:, :step]
        row = kernel[rows, pick] - (before[rows, :, pick][:, None] @ before)[:, 0]
        row = row / residual[rows, pick].clamp_min(1e-10).sqrt()[:, None]
        factors[:, step] = row
        picked.append(pick)
        residual = (residual - row**2).scatter(1, torch.stack(picked, dim=1), -torch.inf)
    return keep_rows(torch.stack(picked, dim=1), n)
