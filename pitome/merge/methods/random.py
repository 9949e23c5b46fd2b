"""Random merging: what remains of a method's gain when the choice of tokens means nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pitome.merge.fast_path import made_once
from pitome.merge.padding import real_tokens, split
from pitome.merge.plan import Plan, Tokens, keep_all, keep_rows, rank
from pitome.merge.registry import MethodOptions, register
from pitome.merge.schedule import all_but_one

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class RandomOptions(MethodOptions):
    """Options of `random`.

    seed: of the draw; the same seed gives the same tokens in every run.
    """

    seed: int = 0


@register(
    "random",
    place=("tower", "projector"),
    options=RandomOptions,
    source="a baseline of this project",
    padding="batch",
    most=all_but_one,
    compares=False,
)
def random(tokens: Tokens, remove: int | Tensor, options: RandomOptions) -> Plan:
    """Draw `remove` unprotected tokens uniformly and add each to a random one of the others.

    The draw is a function of (seed, layer, N) and holds no state, so a repeated layer (gradient
    checkpointing), a compiled model and another device draw the same. It is one draw for the
    whole batch, and N is a sample's own length where there is padding: a result does not depend on
    the batch. Groups are averaged by size. After an image tower (`Tokens.depth` 0) those
    drawn are dropped.
    """
    if isinstance(remove, Tensor):
        return _padded(tokens, remove, options)
    if remove == 0:
        return keep_all(tokens)
    batch, n = tokens.x.shape[:2]
    kept, source, target = _draw(
        options.seed, tokens.layer, batch, n, tokens.protected, remove, tokens.x.device
    )
    if tokens.depth == 0:
        return keep_rows(kept, n)
    return Plan(kept=kept, source=source, target=target, weight=tokens.size, whole=True)


@made_once
def _draw(
    seed: int, layer: int, batch: int, n: int, p: int, remove: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """`kept`, `source` and `target` of a plan for n tokens, p of them protected."""
    order = rank(_mix(torch.arange(n - p, device=device) + _key(seed, layer, 0)))
    source, rest = order[:remove], order[remove:].sort().values
    target = _mix(source + _key(seed, layer, 1)) % (n - p - remove)
    kept = torch.cat([torch.arange(p, device=device), rest + p])
    return kept.expand(batch, -1), (source + p).expand(batch, -1), (target + p).expand(batch, -1)


def _padded(tokens: Tokens, remove: Tensor, options: RandomOptions) -> Plan:
    """The draw for a batch with padding; `remove` [B]."""
    assert tokens.padding is not None
    p, n = tokens.protected, tokens.x.shape[1]
    padding = tokens.padding[:, p:]
    positions = torch.arange(n - p, device=padding.device).expand_as(padding)
    order = rank(_mix(positions + _key(options.seed, tokens.layer, 0)).masked_fill(padding, -1))
    merged = order.argsort(dim=-1) < remove[:, None]
    rest = (real_tokens(padding) - remove).clamp_min(1)[:, None]
    section = torch.where(merged, 2, 0).masked_fill(padding, 1)
    ranking = (section * n + positions).argsort(dim=-1)
    chosen = _mix(positions + _key(options.seed, tokens.layer, 1)) % rest
    head = torch.arange(p, device=padding.device).expand(padding.shape[0], -1)
    return split(
        tokens,
        remove,
        torch.cat([head, ranking + p], dim=1),
        torch.cat([head, ranking.gather(1, chosen) + p], dim=1),
        weight=tokens.size,
    )


def shuffle_keys(positions: Tensor, seed: int, layer: int) -> Tensor:
    """Numbers by which `positions` are drawn in a random order that depends on seed and layer alone."""
    keys: Tensor = _mix(positions + _key(seed, layer, 2))
    return keys


def _key(seed: int, layer: int, use: int) -> int:
    """A 32-bit key for one draw."""
    key: int = _mix((_mix(seed & _MASK) + 2 * layer + use) & _MASK)
    return key


def _mix(value: Any) -> Any:
    """MurmurHash3's 32-bit finaliser, a bijection of 32-bit integers, on an int or int64 tensor.

    Products may exceed 64 bits; the lower 32 are right all the same.
    """
    value = value & _MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)
