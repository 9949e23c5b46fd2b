"""CrossGET: complete-graph matching with importance (arXiv 2305.17455, ICML 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pitome.merge.plan import Plan, Tokens, cosine, keep_all, rank
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, register


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """The cosines of all unprotected tokens."""
    return (n - protected) ** 2 * dim


def _ranked(similarity: Tensor, order: Tensor) -> Tensor:
    """The largest similarity of every token to those after it in `order` [B, T]: [B, T], in that order;
    -inf for the last."""
    image = torch.arange(len(order), device=order.device)[:, None, None]
    ordered = similarity[image, order[:, :, None], order[:, None, :]]
    t = order.shape[1]
    sees = torch.ones(t, t, dtype=torch.bool, device=order.device).triu(1)
    return ordered.masked_fill(~sees, -torch.inf).amax(dim=-1)


@register(
    "crossget",
    guarantees=Guarantees(),
    source="arXiv 2305.17455; sdc17/CrossGET dc32975, CLIP/clip/reducer.py:27-97, LLaVA's untrained form",
    reads=lambda options: ("attention",),
    macs=macs,
)
def crossget(tokens: Tokens, remove: int, options: MethodOptions) -> Plan:
    """CrossGET without a cross token, which would have to be trained: the form its authors use for LLaVA.

    Every token's largest cosine to any other ranks the tokens; each then sees those that rank lower. A
    token's importance is the mean attention it receives plus that of the last token to it (head means of
    the whole map of this layer). The `remove` tokens for which importance less the largest cosine seen is
    smallest merge, each into the most similar of the others. The last token is neither a source nor a
    destination where there are three or more.

    A token weighs exp(importance) times its size. For a pair that is the authors' 2 softmax of the two
    importances times size; where several meet in one destination they do not say what it is, and this is
    our reading. Output rows: by position.
    """
    if remove == 0:
        return keep_all(tokens)
    p, (batch, n) = tokens.protected, tokens.x.shape[:2]
    t = n - p
    assert tokens.attention is not None
    heads = tokens.attention.mean(dim=1)
    importance = (heads.mean(dim=1) + heads[:, -1])[:, p:]
    unit = cosine(tokens.metric[:, p:].detach())
    position = torch.arange(t, device=unit.device)
    closed = position == (t - 1 if t > 2 else t)  # the last token
    diagonal = position[:, None] == position
    similarity = (unit @ unit.transpose(1, 2)).masked_fill(diagonal | closed | closed[:, None], -torch.inf)

    order = rank(similarity.amax(dim=-1))
    seen = torch.zeros_like(importance).scatter(1, order, _ranked(similarity, order))
    least = rank(seen - importance.detach())
    source, rest = least[:, :remove], least[:, remove:].sort(dim=-1).values
    image = torch.arange(batch, device=unit.device)[:, None, None]
    target = similarity[image, source[:, :, None], rest[:, None, :]].argmax(dim=-1)
    head = torch.arange(p, device=unit.device).expand(batch, -1)
    weight = tokens.size * torch.cat([torch.zeros_like(heads[:, 0, :p]), importance], dim=1).exp()
    return Plan(kept=torch.cat([head, rest + p], dim=1), source=source + p, target=target + p, weight=weight)


@dataclass(frozen=True)
class CrossgetRepoOptions(MethodOptions):
    """Options of `crossget_repo`; None: the family's own."""

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]


_COMMON = {"prop_attn": False, "metric": "keys", "position": "before_mlp", "protected": 1}
FAMILIES = {
    "deit": _COMMON,
    "mae": _COMMON,
    "clip": {**_COMMON, "metric": "hidden"},
    "blip": {**_COMMON, "metric": "hidden"},
    "llava": {**_COMMON, "metric": "hidden", "position": "after_block"},
    "bert": _COMMON,
    "distilbert": _COMMON,
}


@register(
    "crossget_repo",
    options=CrossgetRepoOptions,
    guarantees=Guarantees(conserves_mass=False, proportional=False),
    source="hchautran/PiToMe 550b5de, algo/crossget/merge.py and algo/crossget/patch/",
    macs=macs,
    padding="merged",
    resolve=lambda options, family, depth: fill("crossget_repo", options, family, FAMILIES),
    families=TEXT_LAYERS,
)
def crossget_repo(tokens: Tokens, remove: int, options: CrossgetRepoOptions) -> Plan:
    """What the PiToMe repository runs as CrossGET. Its particulars:

    - no importance: tokens are ranked by their largest cosine, and the `remove` with the largest cosine to
      a lower-ranked one merge;
    - indices into the ranked matrix are taken for positions in the sequence (merge.py:39-49);
    - a gather on the wrong dimension sends all of them into one token, the first of the rest (merge.py:50);
    - no sizes are kept (merge.py:112): every token counts 1 in every layer;
    - the rest is ordered by descending cosine, not by position;
    - CLIP, BLIP and LLaVA compare hidden states; LLaVA merges after the block; text in the first three
      layers, padding like any other token.

    It has no row for BLIP-2, on which the authors' patch fails.
    """
    if remove == 0:
        return keep_all(tokens)
    p, batch = tokens.protected, tokens.x.shape[0]
    unit = cosine(tokens.metric[:, p:].detach())
    position = torch.arange(unit.shape[1], device=unit.device)
    similarity = (unit @ unit.transpose(1, 2)).masked_fill(position[:, None] == position, -torch.inf)
    # Mutual nearest neighbours tie, and which of them comes first shows in the result: sorted as theirs.
    order = similarity.amax(dim=-1).argsort(dim=-1, descending=True)
    chosen = rank(_ranked(similarity, order)) + p
    source, rest = chosen[:, :remove], chosen[:, remove:]
    head = torch.arange(p, device=unit.device).expand(batch, -1)
    return Plan(
        kept=torch.cat([head, rest], dim=1),
        source=source,
        target=torch.full_like(source, p),
        weight=tokens.size,
        mass=torch.ones_like(tokens.size).scatter(1, source, 0),
    )
