"""ToMe: bipartite soft matching (arXiv 2210.09461, ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pitome.merge import native
from pitome.merge.padding import split
from pitome.merge.plan import Plan, Tokens, cosine, detached, keep_all, positions, rank
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.rounds import counts, in_rounds
from pitome.merge.schedule import count_all


def match(metric: Tensor, fixed_a: int, fixed_b: int, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best partner in set B (odd positions) of every token in set A (even positions).

    `metric` [B, N, D] -> similarity [B, |A|] and index into B [B, |A|]. The first `fixed_a` tokens
    of A have similarity -inf (they come last in any ranking), the first `fixed_b` of B are no
    partners; `padding` [B, N] is the one in A and the other in B.
    """
    scores = _scores(metric)
    if padding is not None:
        scores = scores.masked_fill(padding[:, ::2, None] | padding[:, None, 1::2], -torch.inf)
    if fixed_b == scores.shape[2]:  # all of B is protected, or there is none
        return scores.new_full(scores.shape[:2], -torch.inf), scores.new_zeros(scores.shape[:2]).long()
    best, index = scores[:, :, fixed_b:].max(dim=-1)
    fixed = positions(1, 0, scores.shape[1], 1, scores.device) < fixed_a
    return best.masked_fill(fixed, -torch.inf), (index + fixed_b).masked_fill(fixed, 0)


def _scores(metric: Tensor) -> Tensor:
    """The cosines of set A with set B, [B, |A|, |B|]."""
    unit = cosine(detached(metric))
    return torch.bmm(unit[:, ::2], unit[:, 1::2].transpose(1, 2))


def bipartite_plan(tokens: Tokens, remove: int, weight: Tensor | None) -> Plan:
    """Merge the `remove` tokens of A most similar to a token of B into that token.

    The leading protected tokens belong to A and B by their positions but are neither sources nor
    destinations. Output rows: protected tokens; the rest of A, by position, or by descending
    similarity where nothing is protected; the rest of B. `remove` is at most half of the
    unprotected tokens.
    """
    p, batch, n = tokens.protected, *tokens.x.shape[:2]
    if tokens.native and (indices := native.tome_plan(tokens.metric, p, remove)) is not None:
        return Plan(*indices, weight=weight, whole=True)
    device, fixed_a, fixed_b = tokens.x.device, (p + 1) // 2, p // 2
    best, index = _scores(tokens.metric)[:, fixed_a:, fixed_b:].max(dim=-1)
    order = rank(best)
    # 2 order + 2 fixed_a in one step
    a = torch.add(positions(1, 2 * fixed_a, 2 * fixed_a + 1, 1, device), order, alpha=2)
    stay = a[:, remove:]
    if p > 0:
        stay = stay.sort(dim=-1).values
    head, b = positions(batch, 0, p, 1, device), positions(batch, 1 + 2 * fixed_b, n, 2, device)
    return Plan(
        kept=torch.cat([head, stay, b], dim=1),
        source=a[:, :remove],
        target=index.gather(1, order[:, :remove]) + (p + stay.shape[1]),
        weight=weight,
        whole=True,
    )


def padded_bipartite_plan(tokens: Tokens, remove: Tensor, weight: Tensor | None) -> Plan:
    """`bipartite_plan` for a batch with padding; `remove` [B]."""
    assert tokens.padding is not None
    p, n = tokens.protected, tokens.x.shape[1]
    best, index = match(tokens.metric, (p + 1) // 2, p // 2, tokens.padding)
    place = rank(best).argsort(dim=-1)
    position = torch.arange(n, device=index.device).expand_as(tokens.padding)
    odd = position % 2 == 1
    # What is known of a token of set A, at its position.
    place, index = (part.repeat_interleave(2, dim=1)[:, :n] for part in (place, index))

    # Protected tokens, the rest of A, the rest of B, padding, sources.
    section = torch.where(odd, 2, torch.where(place < remove[:, None], 4, 1))
    section = section.masked_fill(tokens.padding, 3).masked_fill(position < p, 0)
    within = position if p > 0 else torch.where(odd, position, place)
    return split(tokens, remove, (section * n + within).argsort(dim=-1), 2 * index + 1, weight=weight)


def unclamped_plan(tokens: Tokens, remove: int, weight: Tensor | None) -> Plan:
    """As the PiToMe repository matches for ToMe and ToFu (algo/tome/merge.py, algo/tofu/merge.py).

    With a protected token the first one is the last to merge, but it does merge, into position 1,
    when all of A is removed; others (a distillation token) are not protected. Output rows: rest of
    A, by position, or by descending similarity where nothing is protected; all of B.
    """
    batch, n = tokens.x.shape[:2]
    if n == 1:  # set B is empty
        return keep_all(tokens)
    fixed = min(tokens.protected, 1)
    best, index = match(tokens.metric, fixed, 0)
    order = rank(best)
    merged, stay = order[:, :remove], order[:, remove:]
    if fixed:
        stay = stay.sort(dim=-1).values
    b = positions(batch, 1, n, 2, order.device)
    return Plan(
        kept=torch.cat([2 * stay, b], dim=1),
        source=2 * merged,
        target=index.gather(1, merged) + stay.shape[1],
        weight=weight,
        whole=True,
    )


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """Set A against set B."""
    return (n + 1) // 2 * (n // 2) * dim


@dataclass(frozen=True)
class TomeOptions(MethodOptions):
    """Options of `tome`.

    weighted: average by size; false: plain mean of the tokens that meet in a layer.
    """

    weighted: bool = True


def macs_in_rounds(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """As `macs`; after an image tower, where more than half may go, of every round."""
    return sum(macs(count, protected, dim, step, options) for count, step in counts(n, remove))


@register(
    "tome",
    place=("tower", "projector"),
    options=TomeOptions,
    source="arXiv 2210.09461, Section 3; facebookresearch/ToMe af95e4b, tome/merge.py",
    macs=macs_in_rounds,
    padding="batch",
)
def tome(tokens: Tokens, remove: int | Tensor, options: TomeOptions) -> Plan:
    """ToMe as its authors published it: keys, size-weighted mean, proportional attention, class and
    distillation token never merged. After an image tower in rounds."""
    if isinstance(remove, Tensor):
        return padded_bipartite_plan(tokens, remove, tokens.size if options.weighted else None)
    if remove == 0:
        return keep_all(tokens)
    if tokens.depth == 0:
        weighted = options.weighted
        return in_rounds(
            tokens,
            remove,
            lambda tokens, count: bipartite_plan(tokens, count, tokens.size if weighted else None),
        )
    return bipartite_plan(tokens, remove, tokens.size if options.weighted else None)


@dataclass(frozen=True)
class TomeRepoOptions(TomeOptions):
    """Options of `tome_repo`, as those of `tome`; None: the family's own."""

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]
    weighted: bool | None = None  # type: ignore[assignment]


_COMMON = {"prop_attn": False, "metric": "keys", "position": "before_mlp", "protected": 1, "weighted": True}
FAMILIES = {
    "deit": _COMMON,
    "mae": {**_COMMON, "protected": 0},
    "clip": {**_COMMON, "metric": "hidden", "position": "after_block"},
    "blip": {**_COMMON, "metric": "hidden"},
    "llava": {**_COMMON, "metric": "hidden", "position": "after_block", "weighted": False},
    "bert": {**_COMMON, "weighted": False},
    "distilbert": {**_COMMON, "weighted": False},
}


@register(
    "tome_repo",
    options=TomeRepoOptions,
    guarantees=Guarantees(proportional=False, keeps_protected_first=False, identity_at_1=False),
    source="hchautran/PiToMe 550b5de, algo/tome/merge.py and algo/tome/patch/",
    count=count_all,
    macs=macs,
    padding="merged",
    resolve=lambda options, family, depth: fill("tome_repo", options, family, FAMILIES),
    families=TEXT_LAYERS,
)
def tome_repo(tokens: Tokens, remove: int, options: TomeRepoOptions) -> Plan:
    """What the PiToMe repository runs as ToMe. It differs from ToMe in this:

    - a ratio counts all tokens, the class token included, and is not clamped: an even number of
      tokens at ratio 0.5 merges the class token too;
    - no proportional attention (patch/timm.py:36);
    - on MAE the class token takes part in merging, and the rest of A is left in order of
      similarity, so that it ends in any row (patch/mae.py:112);
    - at a ratio below 1 that leaves nothing to remove, tokens are permuted, even positions first;
    - CLIP and LLaVA compare hidden states, after the block; BLIP hidden states; LLaVA takes the
      plain mean; text sizes restart at 1 in every layer, which is a plain mean;
    - padding is matched and merged like any other token (patch/bert.py);
    - text merges in the first three layers, unless `layers` says otherwise (patch/bert.py:188).

    It has no row for EVA, on which the authors' patch fails (patch/blip2.py:17).
    """
    return unclamped_plan(tokens, remove, tokens.size if options.weighted else None)
