"""DiffRate: rank by class attention, prune, then merge (arXiv 2305.17997, ICCV 2023)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pitome.errors import UsageError
from pitome.fields import whole
from pitome.merge.fast_path import is_reference_path
from pitome.merge.padding import real_tokens, split
from pitome.merge.plan import Plan, Tokens, cosine, detached, keep_all, ones, positions, rank, select
from pitome.merge.presets import fill
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import all_unprotected
from pitome.sources.schedule_file import check_pair, read_schedule

_log = logging.getLogger("pitome")

FEW = 5
"""Where at most one token in so many leaves, a product with all rows is faster than with those that stay."""


@dataclass(frozen=True)
class DiffrateOptions(MethodOptions):
    """Options of `diffrate`.

    prune_kept: tokens left by pruning in each layer, the class token counted.
    merge_kept: tokens left by merging after that. One of the two lists alone merges or prunes only;
        neither: the schedule comes from ratio, r or flops, and all removals are merges.
    schedule_file: YAML or JSON file with these two lists; the name until 0.1 of what `schedule` is now.
    metric: features, as in the authors' code.
    """

    metric: Literal["keys", "hidden"] = "hidden"
    prune_kept: Sequence[int] | None = whole(None, least=1, hint="; count the tokens that stay")
    merge_kept: Sequence[int] | None = whole(None, least=1, hint="; count the tokens that stay")
    schedule_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = [counts for counts in (self.prune_kept, self.merge_kept) if counts is not None]
        if lists and self.schedule_file is not None:
            raise UsageError("give prune_kept and merge_kept, or schedule_file, not both")
        check_pair(self.prune_kept, self.merge_kept)


def rank_plan(tokens: Tokens, remove: int, prune: int, clamp: bool) -> Plan:
    """Remove the `remove` tokens of least class attention: the last `prune` of them are dropped,
    the others join their most similar token among those that stay, never a protected one.

    Output rows: protected tokens, then the rest by descending class attention. Features take the
    plain mean; a source hands its size on times its cosine similarity (DiffRate/patch/timm.py:104-108),
    with `clamp` never less than nothing. Raises UsageError if fewer tokens are to stay than are
    protected.
    """
    p = tokens.protected
    batch, n = tokens.x.shape[:2]
    if remove > n - p:
        raise UsageError(
            f"layer {tokens.layer} is to keep {n - remove} tokens, but {p} are protected; keep at least {p}"
        )
    assert tokens.cls_attention is not None
    order = rank(detached(tokens.cls_attention[:, p:])) + p
    stay, gone = order[:, : n - p - remove], order[:, n - p - remove :]
    kept = torch.cat([positions(batch, 0, p, 1, order.device), stay], dim=1)
    if stay.shape[1] == 0:  # nothing is left to merge into
        return Plan(kept=kept, source=gone, target=torch.full_like(gone, -1))
    # Pruned tokens are compared too, so that the cost depends on n and remove alone.
    best, target = _cosines(tokens.metric, gone, stay).max(dim=-1)
    target = target + p
    if prune > 0:
        place = positions(batch, 0, remove, 1, order.device)
        target = target.masked_fill(place >= remove - prune, -1)
    share = best.clamp_min(0) if clamp else best
    return Plan(
        kept=kept,
        source=gone,
        target=target,
        mass=ones(batch, n, share.dtype, share.device).scatter(1, gone, share),
        whole=prune == 0,
    )


def _cosines(metric: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The cosines of rows `a` [B, I] of `metric` [B, N, D] with its rows `b` [B, J], [B, I, J]."""
    if is_reference_path() or FEW * a.shape[1] > metric.shape[1]:
        unit = cosine(metric)
        return select(unit, a) @ select(unit, b).transpose(1, 2)
    # A product of few rows with all takes less time than a copy of nearly all of them, let alone two.
    length = torch.linalg.vector_norm(metric, dim=-1).clamp_min(1e-12)  # as `cosine` has it
    unit = select(metric, a) / length.gather(1, a)[..., None]
    product: Tensor = (unit @ metric.transpose(1, 2)).div_(length[:, None])
    return product.gather(2, b[:, None].expand(-1, a.shape[1], -1))


def padded_rank_plan(tokens: Tokens, remove: Tensor, prune: Tensor) -> Plan:
    """`rank_plan`, clamped, for a batch with padding; `remove` and `prune` [B]."""
    p, n, rows = tokens.protected, tokens.x.shape[1], tokens.rows
    assert tokens.cls_attention is not None and tokens.padding is not None and rows is not None
    if rows < p:
        raise UsageError(
            f"layer {tokens.layer} is to keep {rows} tokens, but {p} are protected; keep at least {p}"
        )
    padding = tokens.padding[:, p:]
    place = torch.arange(n - p, device=padding.device).expand_as(padding)
    order = rank(tokens.cls_attention[:, p:].detach().masked_fill(padding, -1))
    real = real_tokens(padding)[:, None]
    stay = real - remove[:, None]
    # Tokens that stay, padding, tokens that leave: the last ones of these are pruned.
    section = torch.where(place < stay, 0, torch.where(place < real, 2, 1))
    order = order.gather(1, (section * n + place).argsort(dim=-1)) + p
    here, gone = order[:, : rows - p], order[:, rows - p :]
    unit = cosine(tokens.metric)
    scores = select(unit, gone) @ select(unit, here).transpose(1, 2)
    scores = scores.masked_fill((place[:, : rows - p] >= stay)[:, None, :], -torch.inf)
    head = torch.arange(p, device=order.device).expand(order.shape[0], -1)
    partner = torch.full_like(tokens.padding, -1, dtype=torch.long)
    mass = torch.ones_like(unit[..., 0])
    if rows > p:  # else nothing is left to merge into
        best, target = scores.max(dim=-1)
        dropped = (place[:, rows - p :] >= n - p - prune[:, None]) | (stay <= 0)
        partner = partner.scatter(1, gone, here.gather(1, target).masked_fill(dropped, -1))
        mass = mass.scatter(1, gone, best.clamp_min(0))
    return split(tokens, remove, torch.cat([head, order], dim=1), partner, mass=mass)


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """Every removed token against every unprotected one that stays."""
    return remove * max(n - remove - protected, 0) * dim


def kept(options: DiffrateOptions) -> Sequence[int] | None:
    """Tokens each layer keeps, if the options say so."""
    return options.prune_kept if options.merge_kept is None else options.merge_kept


def _listed(tokens: Tokens, options: DiffrateOptions) -> int | None:
    """Tokens that this layer prunes by the lists; None without lists."""
    if options.prune_kept is None:
        return None if options.merge_kept is None else 0
    return max(tokens.x.shape[1] - options.prune_kept[tokens.layer], 0)


def _listed_each(tokens: Tokens, options: DiffrateOptions) -> Tensor:
    """`_listed` for every sample of a batch with padding, 0 without lists: [B] long."""
    assert tokens.padding is not None
    real = real_tokens(tokens.padding)
    if options.prune_kept is None:
        return torch.zeros_like(real)
    return (real - options.prune_kept[tokens.layer]).clamp_min(0)


def _read(options: Any) -> Any:
    if options.schedule_file is None:
        return options
    _log.warning("merge.options.schedule_file is schedule now; the old name is gone in the next version")
    return replace(options, schedule_file=None, **read_schedule(options.schedule_file))


@register(
    "diffrate",
    options=DiffrateOptions,
    guarantees=Guarantees(conserves_mass=False, equivariant=True, needs_class_token=True),
    source="arXiv 2305.17997; OpenGVLab/DiffRate 91ae3e3, DiffRate/merge.py and DiffRate/patch/deit.py",
    needs_cls_attention=True,
    macs=macs,
    most=all_unprotected,
    padding="batch",
    resolve=lambda options, family, depth: _read(options),
    kept=kept,
)
def diffrate(tokens: Tokens, remove: int | Tensor, options: DiffrateOptions) -> Plan:
    """DiffRate with given rates (its learned ones are a schedule: `prune_kept`, `merge_kept`).

    From a uniform ratio it removes by merging only. One change to the authors' code: a negative
    similarity counts as 0 in the size that is passed on, so no size falls below the destination's
    own and the logarithm in the attention stays finite.
    """
    if isinstance(remove, Tensor):
        return padded_rank_plan(tokens, remove, torch.minimum(_listed_each(tokens, options), remove))
    if remove == 0:
        return keep_all(tokens)
    return rank_plan(tokens, remove, min(_listed(tokens, options) or 0, remove), clamp=True)


@dataclass(frozen=True)
class DiffrateRepoOptions(DiffrateOptions):
    """Options of `diffrate_repo`, as those of `diffrate`; None: the family's own.

    prune_each: tokens every layer prunes under a ratio; the first layer prunes one more.
    """

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]
    prune_each: int | None = whole(None, least=0, hint="; give a number of tokens")


def count_repo(n: int, protected: int, ratio: float, layer: int) -> int:
    """Removals that the PiToMe repository derives from a ratio (DiffRate/patch/deit.py:64).

    The first layer takes the number of patches, n - 1, for the number of tokens, and so removes one
    more than the ratio says.
    """
    base = n - 1 if layer == 0 else n
    return min(n - base + math.floor(base - base * ratio), max(n - protected, 0))


def count_clip(n: int, protected: int, ratio: float, layer: int) -> int:
    """As `count_repo`, on CLIP, where the first layer starts from all tokens (DiffRate/patch/clip.py)."""
    return min(math.floor(n - n * ratio), max(n - protected, 0))


_COMMON = {"prop_attn": True, "metric": "hidden", "position": "before_mlp", "protected": 1, "prune_each": 0}
FAMILIES = {
    "deit": _COMMON,
    "mae": {**_COMMON, "prune_each": 1},
    "clip": {**_COMMON, "prop_attn": False},
    "blip": {**_COMMON, "prop_attn": False},
    "eva": _COMMON,
}


def _repo_plan(tokens: Tokens, remove: int, options: DiffrateRepoOptions, one_more: bool) -> Plan:
    if remove == 0:
        return keep_all(tokens)
    prune = _listed(tokens, options)
    if prune is None:
        assert options.prune_each is not None  # filled in by resolve
        prune = one_more + options.prune_each
    return rank_plan(tokens, remove, min(prune, remove), clamp=False)


def clip_plan(tokens: Tokens, remove: int, options: DiffrateRepoOptions) -> Plan:
    """`diffrate_repo` on CLIP, where the first layer prunes no token more than the others."""
    return _repo_plan(tokens, remove, options, one_more=False)


@register(
    "diffrate_repo",
    options=DiffrateRepoOptions,
    guarantees=Guarantees(
        conserves_mass=False, prunes=True, proportional=False, equivariant=True, needs_class_token=True
    ),
    source="hchautran/PiToMe 550b5de, algo/DiffRate/",
    needs_cls_attention=True,
    count=count_repo,
    macs=macs,
    most=all_unprotected,
    padding="merged",
    resolve=lambda options, family, depth: _read(fill("diffrate_repo", options, family, FAMILIES)),
    kept=kept,
    families={"clip": {"plan": clip_plan, "count": count_clip}},
)
def diffrate_repo(tokens: Tokens, remove: int, options: DiffrateRepoOptions) -> Plan:
    """What the PiToMe repository runs as DiffRate: uniform rates instead of learned ones. Its
    particulars:

    - the first layer prunes a token at any ratio below 1, because it starts from the number of
      patches (patch/deit.py:64), but not on CLIP; MAE prunes one more in every layer
      (patch/mae.py:111);
    - attention is proportional, except on CLIP and BLIP (patch/clip.py, patch/blip.py);
    - sizes may shrink by a negative similarity (patch/timm.py:104-108).

    A layer with nothing to remove returns its tokens as they are; the authors' code sorts them by
    class attention, which no later result shows. It has no row for LLaVA, where the numbers are built
    in.
    """
    return _repo_plan(tokens, remove, options, one_more=tokens.layer == 0)
