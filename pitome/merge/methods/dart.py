"""DART: image tokens unlike a few pivots (Wen et al., EMNLP 2025, arXiv 2502.11494)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pitome.fields import whole
from pitome.merge.plan import Plan, Tokens, cosine, keep_rows, rank
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class DartOptions(PlaceOptions):
    """Options of `dart`.

    layer: of the language model, before which the tokens go; keys are those of the layer before it.
    image_pivots, text_pivots: how many image and text tokens are pivots: those whose keys have the largest L1
    norms.
    metric: what likeness to a pivot is the cosine of: `hidden` (what enters the layer) or `keys`.
    """

    layer: int = whole(5, least=1)
    image_pivots: int = whole(4, least=1)
    text_pivots: int = whole(4, least=0)
    metric: Literal["hidden", "keys"] = "hidden"


def _reads(options: DartOptions) -> tuple[Part, ...]:
    return ("keys", "text_keys", "text")


def macs(n: int, protected: int, dim: int, remove: int, options: DartOptions) -> int:
    """Cosines of all pivots, where the text has as many words, with `n` image tokens of width `dim`."""
    pivots = min(options.image_pivots, n - remove) + options.text_pivots
    return pivots * n * dim if remove > 0 else 0


@register(
    "dart",
    place="language",
    options=DartOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False),
    source="arXiv 2502.11494",
    reads=_reads,
    macs=macs,
)
def dart(tokens: Tokens, remove: int, options: DartOptions) -> Plan:
    """Keep the pivots among the image tokens and, for each pivot in turn, the same number of the image tokens
    left that are least like it; the others are dropped.

    Pivots come in falling order of their norm, those of the image first (the paper leaves the order open);
    the tokens to choose are spread evenly, the first pivots taking one more where that does not come out.
    """
    x, keys, words, word_keys = tokens.metric, tokens.keys, tokens.text, tokens.text_keys
    assert keys is not None and words is not None and word_keys is not None
    batch, n = x.shape[:2]
    count = n - remove
    first = rank(keys.abs().sum(dim=-1))[:, : min(options.image_pivots, count)]
    second = rank(word_keys.abs().sum(dim=-1))[:, : options.text_pivots]
    alike, others = (keys, word_keys) if options.metric == "keys" else (x, words)
    unit = cosine(alike)
    rows = torch.arange(batch, device=x.device)[:, None]
    pivots = torch.cat([unit[rows, first], cosine(others)[rows, second]], dim=1)
    similarity = pivots @ unit.mT  # [B, P, N]
    taken = torch.zeros(batch, n, dtype=torch.bool, device=x.device).scatter(1, first, True)
    kept, left = [first], count - first.shape[1]
    for number in range(pivots.shape[1]):
        share = -(-left // (pivots.shape[1] - number))  # of what is left, among the pivots that are left
        chosen = rank(-similarity[:, number].masked_fill(taken, torch.inf))[:, :share]
        taken = taken.scatter(1, chosen, True)
        kept.append(chosen)
        left -= share
    return keep_rows(torch.cat(kept, dim=1), n)
