"""PiToMe: protect informative tokens before merging (arXiv 2405.16148, NeurIPS 2024).

`pitome` is the method of the paper's text, `pitome_repo` what the authors' code does. They share
`energy_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pitome.errors import UsageError
from pitome.fields import later
from pitome.merge import native
from pitome.merge.energy import Similarity, energy
from pitome.merge.methods.random import shuffle_keys
from pitome.merge.methods.tome import macs as bipartite_macs
from pitome.merge.methods.tome import unclamped_plan
from pitome.merge.padding import real_tokens, split
from pitome.merge.plan import Plan, Tokens, cosine, detached, keep_all, positions, rank
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, Part, register
from pitome.merge.rounds import counts, in_rounds
from pitome.merge.schedule import count_all, count_unprotected


@dataclass(frozen=True)
class PitomeOptions(MethodOptions):
    """Options of `pitome`; the defaults are the paper's.

    energy: f_m of Eq. 4. `paper`: the cosine c above the margin m, else alpha*(exp(c-m) - 1);
        `elu`: c - m above the margin, else the same; `gaussian`: a normal density of 1 - c with
        standard deviation 1 - m.
    alpha: weight of cosines below the margin (paper: 1; `gaussian` has none).
    margin, margin_slope: layer l of L has m = margin - margin_slope * l / L (paper: 0.9 - 0.9 l/L).
    rank_by: what orders the tokens. `energy`; or, as ablations (Figure 6), the attention a token gets, least
        first: `cls_attention` from the class token, `mean_attention` from all of them, which takes the whole
        map.
    split: who merges into whom, in that order. `alternate`: ranks 0, 2, 4, ... into ranks 1, 3, 5, ...
        (Algorithm 1); `high_low`: the upper half into the lower half; `random`: one half into the other
        (Table 7).
    split_seed: of the random split, one draw per layer and number of tokens for all images.
    protect: layers in which only the 2k tokens of highest energy take part and all others are
        protected: `all`, `none`, `first_half` (the first ceil(L/2)), `second_half` (the others).
        Without protection all tokens are split, and the k sources with the highest
        similarity to a destination merge.
    weighted: average by size; false: plain mean of the tokens that meet in a layer.
    """

    energy: Literal["paper", "elu", "gaussian"] = "paper"
    alpha: float = 1.0
    margin: float = 0.9
    margin_slope: float = 0.9
    rank_by: Literal["energy", "cls_attention", "mean_attention"] = later("energy")
    split: Literal["alternate", "high_low", "random"] = "alternate"
    split_seed: int = later(0)
    protect: Literal["all", "none", "first_half", "second_half"] = "all"
    weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        margin, slope = self.margin, self.margin_slope
        if self.energy != "gaussian" or margin is None or slope is None:
            return
        if max(margin, margin - slope) >= 1:
            raise UsageError(
                f"margin={margin} and margin_slope={slope} reach 1, where energy=gaussian has no width; "
                "give a smaller margin"
            )


def energy_plan(tokens: Tokens, remove: int, options: PitomeOptions) -> Plan:
    """Algorithm 1: order by energy, split, merge every source into its most similar destination.

    Output rows: protected leading tokens, then tokens outside the split by descending energy,
    sources that did not merge by descending similarity, destinations by descending energy.
    `remove` is at least 1 in layers with protection, at most half of the mergeable tokens.
    """
    p, layer, depth = tokens.protected, tokens.layer, tokens.depth
    # After an image tower (depth 0) all of its layers are past.
    margin = options.margin - options.margin_slope * (layer / depth if depth else 1)
    protects = _protects(options.protect, layer, depth)
    if tokens.native and options.rank_by == "energy" and options.split == "alternate":
        indices = native.pitome_plan(
            tokens.metric, p, remove, protects, options.energy, margin, options.alpha
        )
        if indices is not None:
            return Plan(*indices, weight=tokens.size if options.weighted else None, whole=True)
    similarity = Similarity(cosine(detached(tokens.metric[:, p:])))
    if options.rank_by == "energy":
        order = rank(similarity.energy(options.energy, margin, options.alpha))
    else:
        order = rank(-_attention(tokens, options))

    count = 2 * remove if protects else order.shape[1]
    if options.split == "random":
        order = torch.cat([_shuffled(order[:, :count], options.split_seed, layer), order[:, count:]], dim=1)
    position = order + p
    taking_part, outside = order[:, :count], position[:, count:]
    if options.split == "high_low":
        half = (count + 1) // 2
        a, b = position[:, :half], position[:, half:count]
        scores = similarity.between(taking_part[:, :half], taking_part[:, half:])
    else:
        a, b = position[:, :count:2], position[:, 1:count:2]
        scores = similarity.alternate(taking_part)
    best, match = scores.max(dim=-1)
    stay = [positions(order.shape[0], 0, p, 1, order.device), outside, b]
    if not protects:
        by_similarity = rank(best)
        a, match = a.gather(1, by_similarity), match.gather(1, by_similarity[:, :remove])
        stay.insert(2, a[:, remove:])
        a = a[:, :remove]
    kept = torch.cat(stay, dim=1)
    return Plan(
        kept=kept,
        source=a,
        target=match + (kept.shape[1] - b.shape[1]),
        weight=tokens.size if options.weighted else None,
        whole=True,
    )


def _shuffled(order: Tensor, seed: int, layer: int) -> Tensor:
    """`order` [B, K] in a random order that is the same for all samples."""
    draw = torch.arange(order.shape[1], device=order.device)
    return order[:, rank(shuffle_keys(draw, seed, layer))]


def padded_energy_plan(tokens: Tokens, remove: Tensor, options: PitomeOptions) -> Plan:
    """`energy_plan` for a batch with padding; `remove` [B].

    The number that takes part differs from sample to sample, so roles are masks over all tokens in
    order of energy instead of slices.
    """
    assert tokens.padding is not None
    p, layer, depth = tokens.protected, tokens.layer, tokens.depth
    batch, n = tokens.x.shape[:2]
    padding = tokens.padding[:, p:]
    unit = cosine(detached(tokens.metric[:, p:]))
    similarity = unit @ unit.transpose(1, 2)
    margin = options.margin - options.margin_slope * (layer / depth)
    if options.rank_by == "energy":
        score = energy(similarity, options.energy, margin, options.alpha, padding)
    else:
        score = -_attention(tokens, options)
    order = rank(score.masked_fill(padding, -torch.inf))
    place = torch.arange(n - p, device=order.device).expand(batch, -1)
    protects = _protects(options.protect, layer, depth)
    real = real_tokens(padding)[:, None]
    limit = 2 * remove[:, None] if protects else real
    if options.split == "random":  # of those that take part; the others stay where they are
        keys = shuffle_keys(place, options.split_seed, layer)
        order = order.gather(1, rank(keys.masked_fill(place >= limit, -1)))
    image = torch.arange(batch, device=order.device)[:, None, None]
    similarity = similarity[image, order[:, :, None], order[:, None, :]]

    if options.split != "high_low":
        a, b = place % 2 == 0, place % 2 == 1
    else:
        half = (limit + 1) // 2
        a, b = place < half, place >= half
    a, b = a & (place < limit), b & (place < limit)
    best, match = similarity.masked_fill(~b[:, None, :], -torch.inf).max(dim=-1)
    by_similarity = rank(best.masked_fill(~a, -torch.inf)).argsort(dim=-1)
    merged = a if protects else a & (by_similarity < remove[:, None])

    # Outside the split, sources that did not merge, destinations, padding, sources that merged.
    section = torch.where(a, torch.where(merged, 4, 1), torch.where(b, 2, 0))
    section = section.masked_fill(place >= real, 3)
    within = torch.where(a & ~merged, by_similarity, place)
    ranking = (section * (n - p) + within).argsort(dim=-1)
    head = torch.arange(p, device=order.device).expand(batch, -1)
    partner = torch.full_like(tokens.padding, -1, dtype=torch.long)
    return split(
        tokens,
        remove,
        torch.cat([head, order.gather(1, ranking) + p], dim=1),
        partner.scatter(1, order + p, order.gather(1, match) + p),
        weight=tokens.size if options.weighted else None,
    )


def _attention(tokens: Tokens, options: PitomeOptions) -> Tensor:
    """The attention that every unprotected token gets, [B, T]; from real tokens alone where there is
    padding."""
    if options.rank_by == "cls_attention":
        assert tokens.cls_attention is not None
        return tokens.cls_attention[:, tokens.protected :].detach()
    assert tokens.attention is not None
    heads = tokens.attention.detach().mean(dim=1)
    if tokens.padding is not None:
        heads = heads.masked_fill(tokens.padding[:, :, None], 0)
    return heads.sum(dim=1)[:, tokens.protected :]


_READS: dict[str, Sequence[Part]] = {
    "energy": (),
    "cls_attention": ("cls_attention",),
    "mean_attention": ("attention",),
}


def reads(options: PitomeOptions) -> Sequence[Part]:
    """What of the attention a ranking takes; a preset that is not resolved ranks by energy."""
    return _READS[options.rank_by or "energy"]


def _protects(protect: str, layer: int, depth: int) -> bool:
    """Whether a layer protects; after an image tower (depth 0) as in its second half."""
    if protect in ("first_half", "second_half"):
        return (layer < (depth + 1) // 2) == (protect == "first_half")
    return protect == "all"


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """All mergeable tokens against each other; the matching reads the same matrix."""
    return (n - protected) ** 2 * dim


def macs_in_rounds(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """As `macs`; after an image tower, where more than half may go, of every round."""
    return sum(macs(count, protected, dim, step, options) for count, step in counts(n, remove))


@register(
    "pitome",
    place=("tower", "projector"),
    options=PitomeOptions,
    guarantees=Guarantees(equivariant=True),
    source="arXiv 2405.16148, Section 3.2, Eq. 3-4 and Algorithm 1",
    macs=macs_in_rounds,
    padding="batch",
    reads=reads,
)
def pitome(tokens: Tokens, remove: int | Tensor, options: PitomeOptions) -> Plan:
    """The paper's text: energy of Eq. 4, alternate split, protection in every layer, size-weighted
    mean, proportional attention, between attention and MLP. After an image tower in rounds."""
    if isinstance(remove, Tensor):
        return padded_energy_plan(tokens, remove, options)
    if remove == 0:
        return keep_all(tokens)
    if tokens.depth == 0:
        return in_rounds(tokens, remove, lambda tokens, count: energy_plan(tokens, count, options))
    return energy_plan(tokens, remove, options)


@dataclass(frozen=True)
class PitomeRepoOptions(PitomeOptions):
    """Options of `pitome_repo`, as those of `pitome`; None: the family's own."""

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]
    energy: Literal["paper", "elu", "gaussian"] | None = None  # type: ignore[assignment]
    alpha: float | None = None  # type: ignore[assignment]
    margin: float | None = None  # type: ignore[assignment]
    margin_slope: float | None = None  # type: ignore[assignment]
    rank_by: Literal["energy", "cls_attention", "mean_attention"] | None = later(None, "energy")  # type: ignore[assignment]
    split: Literal["alternate", "high_low", "random"] | None = None  # type: ignore[assignment]
    split_seed: int | None = later(None, 0)  # type: ignore[assignment]
    protect: Literal["all", "none", "first_half", "second_half"] | None = None  # type: ignore[assignment]
    weighted: bool | None = None  # type: ignore[assignment]


def _family(margin: float, margin_slope: float, **other: Any) -> dict[str, Any]:
    common = {
        "prop_attn": False,
        "metric": "keys",
        "position": "before_mlp",
        "protected": 1,
        "energy": "elu",
        "alpha": 1.0,
        "rank_by": "energy",
        "split_seed": 0,
        "split": "alternate",
        "protect": "all",
        "weighted": True,
    }
    return {**common, "margin": margin, "margin_slope": margin_slope, **other}


_TEXT = _family(0.9, 0.25, energy="gaussian", split="high_low", weighted=False)
FAMILIES = {
    "deit": _family(0.75, 0.75, protect="second_half"),
    "mae": _family(0.75, 0.75, protect="first_half"),
    "clip": _family(0.95, 0.95, metric="hidden"),
    "blip": _family(0.9, 0.9, metric="hidden"),
    "eva": _family(0.75, 0.4, prop_attn=True),
    "llava": _family(0.9, 0.9, metric="hidden", position="after_block", weighted=False),
    "bert": _TEXT,
    "distilbert": _TEXT,
}


BIPARTITE_LAYERS = 13  # on LLaVA, whatever the depth


def count_llava(n: int, protected: int, ratio: float, layer: int) -> int:
    """Removals on LLaVA: of all tokens where ToMe matches, of the unprotected ones after that."""
    return (count_all if layer < BIPARTITE_LAYERS else count_unprotected)(n, protected, ratio, layer)


def llava_macs(n: int, protected: int, dim: int, remove: int, options: Any, layer: int) -> int:
    """As `macs`, by layer: where ToMe matches, set A against set B."""
    own = bipartite_macs if layer < BIPARTITE_LAYERS else macs
    return own(n, protected, dim, remove, options)


def llava_plan(tokens: Tokens, remove: int, options: PitomeRepoOptions) -> Plan:
    """`pitome_repo` on LLaVA, whose layers 0 to 12 match as ToMe does."""
    if remove == 0:
        return keep_all(tokens)
    if tokens.layer < BIPARTITE_LAYERS:
        return unclamped_plan(tokens, remove, tokens.size if options.weighted else None)
    return energy_plan(tokens, remove, options)


@register(
    "pitome_repo",
    options=PitomeRepoOptions,
    guarantees=Guarantees(equivariant=True, proportional=False),
    source="hchautran/PiToMe 550b5de, algo/pitome/merge.py and algo/pitome/patch/",
    macs=macs,
    padding="merged",
    reads=reads,
    resolve=lambda options, family, depth: fill("pitome_repo", options, family, FAMILIES),
    families={
        **TEXT_LAYERS,
        "llava": {
            "plan": llava_plan,
            "count": count_llava,
            "layer_macs": llava_macs,
            "guarantees": Guarantees(proportional=False, keeps_protected_first=False),
        },
    },
)
def pitome_repo(tokens: Tokens, remove: int, options: PitomeRepoOptions) -> Plan:
    """What the authors' repository runs as PiToMe. It differs from the paper in this:

    - energy `elu` instead of Eq. 4's, for text `gaussian` with the split `high_low`
      (algo/pitome/merge.py);
    - no proportional attention, except on EVA (patch/timm.py:38, patch/blip2.py:38);
    - the first ceil(L/2) layers merge without protection on DeiT, the others on MAE
      (patch/deit.py:34, patch/mae.py:32);
    - the margin depends on the family, alpha is always 1;
    - a distillation token is merged like a patch token;
    - CLIP, BLIP and LLaVA compare hidden states instead of keys;
    - on LLaVA's image tower layers 0 to 12 match as ToMe does, whatever the depth, all of them merge
      after the block, and into the plain mean (patch/clip_hf.py:30, :37);
    - text sizes restart at 1 in every layer (patch/bert.py:54), which is a plain mean; padding
      enters the energy and merges like any other token, and what it merged with is padding only
      where all of it was (patch/bert.py).

    Two things are left out because no output shows them: where nothing is to be removed the
    authors' variant without protection reorders the tokens (this returns them as they are; their
    protected variant raises IndexError, merge.py:89), and their MAE pool divides by the number of
    image channels in front of a LayerNorm. Text merges in the first three layers unless
    `layers` says otherwise; on BLIP, where one of the authors' two forwards leaves the last layer out
    (patch/blip.py:78), that is for `layers` to say.
    """
    return keep_all(tokens) if remove == 0 else energy_plan(tokens, remove, options)
