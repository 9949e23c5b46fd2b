"""ToFu: token fusion, between pruning and merging (arXiv 2312.01026)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pitome.fields import number
from pitome.merge.methods.tome import bipartite_plan, macs, padded_bipartite_plan, unclamped_plan
from pitome.merge.plan import Plan, Tokens, keep_all
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import count_all


@dataclass(frozen=True)
class TofuOptions(MethodOptions):
    """Options of `tofu`.

    prune_share: share of the blocks, from the first on, that drop the source (0 to 1).
    fuse: what later blocks do. `norm`: the mean, scaled to the largest norm in its group; `mean`:
        the plain mean.
    prop_attn: off, because the method keeps a token's norm, not its multiplicity: a dropped token
        leaves nothing that attention could count.
    """

    prop_attn: bool = False
    prune_share: float = number(0.5, least=0, most=1, hint="; give a share of the blocks")
    fuse: Literal["norm", "mean"] = "norm"


@register(
    "tofu",
    options=TofuOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False),
    source="arXiv 2312.01026",
    macs=macs,
    padding="batch",
)
def tofu(tokens: Tokens, remove: int | Tensor, options: TofuOptions) -> Plan:
    """Our reading of arXiv 2312.01026, from its abstract: early layers, which are far from linear,
    are better served by pruning, later ones by merging that keeps norms.

    ToMe's matching. In the first half of the blocks the source is dropped and the destination
    stays as it is. Afterwards a group becomes m/||m|| * max ||x_i||, with m its plain mean and x_i
    its tokens.
    """
    if isinstance(remove, Tensor):
        plan = padded_bipartite_plan(tokens, remove, None)
    elif remove == 0:
        return keep_all(tokens)
    else:
        plan = bipartite_plan(tokens, remove, None)
    if tokens.layer < tokens.depth * options.prune_share:
        return plan.replaced(target=torch.full_like(plan.target, -1))
    if options.fuse == "mean":
        return plan
    mean = torch.linalg.vector_norm(plan.apply(_wide(tokens.x)), dim=-1)
    return plan.replaced(scale=_scale(plan, tokens.x, mean))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scale(plan: Plan, x: Tensor, length: Tensor | None = None) -> Tensor:
    """The largest norm in each group over `length` [B, M]; 1 where nothing merged -> [B, M].

    `x` [B, N, C]; without `length`: over the norm of the token the row started from. A length of
    zero counts as 1.
    """
    norm = torch.linalg.vector_norm(_wide(x), dim=-1)
    own = norm.gather(1, plan.kept)
    row, dropped = plan.target.clamp_min(0), plan.target < 0
    largest = own.scatter_reduce(1, row, norm.gather(1, plan.source).masked_fill(dropped, 0), "amax")
    merged = torch.zeros_like(plan.kept).scatter_add(1, row, (~dropped).long()) > 0
    length = own if length is None else length
    scale: Tensor = largest / length.masked_fill(length == 0, 1)
    return scale.masked_fill(~merged, 1)


@dataclass(frozen=True)
class TofuRepoOptions(MethodOptions):
    """Options of `tofu_repo`; None: the family's own.

    prune_layers: number of layers, from the first on, that drop the source.
    fuse: what later layers do. `tofu`: the plain mean, times the largest norm in the group, over
        the norm of the destination before merging; `mean`: the plain mean.
    """

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]
    prune_layers: int | None = None
    fuse: Literal["tofu", "mean"] | None = None


_COMMON = {"prop_attn": False, "metric": "keys", "position": "before_mlp", "protected": 1, "fuse": "tofu"}
_HIDDEN_AFTER = {"metric": "hidden", "position": "after_block"}
FAMILIES = {
    "deit": _COMMON,
    "mae": {**_COMMON, "fuse": "mean"},
    "clip": {**_COMMON, **_HIDDEN_AFTER},
    "blip": {**_COMMON, "metric": "hidden"},
    "eva": _COMMON,
    "llava": {**_COMMON, **_HIDDEN_AFTER},
    "bert": _COMMON,
    "distilbert": _COMMON,
}
_ALWAYS_PRUNES = ("clip", "bert", "distilbert")


def _resolve(options: TofuRepoOptions, family: str, depth: int) -> TofuRepoOptions:
    options = fill("tofu_repo", options, family, FAMILIES)
    if options.prune_layers is not None:
        return options
    layers = {"blip": 4}.get(family, depth if family in _ALWAYS_PRUNES else depth // 2 + 1)
    return replace(options, prune_layers=layers)


@register(
    "tofu_repo",
    options=TofuRepoOptions,
    guarantees=Guarantees(
        conserves_mass=False,
        prunes=True,
        proportional=False,
        keeps_protected_first=False,
        identity_at_1=False,
    ),
    source="hchautran/PiToMe 550b5de, algo/tofu/merge.py and algo/tofu/patch/",
    count=count_all,
    macs=macs,
    padding="merged",
    resolve=_resolve,
    families=TEXT_LAYERS,
)
def tofu_repo(tokens: Tokens, remove: int, options: TofuRepoOptions) -> Plan:
    """What the PiToMe repository runs as ToFu. Its particulars:

    - blocks 0 to L//2 only prune (patch/deit.py:85); BLIP blocks 0 to 3 whatever the depth
      (patch/blip.py:167), CLIP and text every block (patch/clip.py:28, patch/bert.py:281);
    - fusing takes the plain mean over the norm the destination had before (merge.py:63-69), so the
      result does not have the largest norm of its group; on MAE the plain mean (patch/mae.py:121);
    - no sizes are kept: every token counts 1 in every layer;
    - a source that is dropped still stands in the trace as merged;
    - a ratio counts all tokens and is not clamped, tokens are permuted where a ratio below 1 leaves
      nothing to remove, and text merges in the first three layers, as in `tome_repo`.
    """
    plan = unclamped_plan(tokens, remove, None)
    ones = torch.ones_like(tokens.size)
    without_sources = ones.scatter(1, plan.source, 0)
    plan = plan.replaced(mass=without_sources)
    assert options.prune_layers is not None  # filled in by resolve
    if tokens.layer < options.prune_layers:
        return plan.replaced(weight=without_sources)
    return plan if options.fuse == "mean" else plan.replaced(scale=_scale(plan, tokens.x))
