"""A fixed grid: what remains of a method's gain when it does not look at the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pitome.merge.fast_path import made_once
from pitome.merge.padding import real_tokens, split
from pitome.merge.plan import Plan, Tokens, keep_all, keep_rows, rank
from pitome.merge.registry import MethodOptions, register
from pitome.merge.schedule import all_but_one


@register(
    "stride",
    place=("tower", "projector"),
    source="a baseline of this project",
    padding="batch",
    most=all_but_one,
    compares=False,
)
def stride(tokens: Tokens, remove: int | Tensor, options: MethodOptions) -> Plan:
    """Keep evenly spaced tokens and average each other one, by size, into the nearest kept one.

    Of the T unprotected tokens, counted from 0 in the order of the sequence, M = T - remove are
    kept: the middles of M equal parts, position floor((2j + 1) T / (2M)) for j = 0..M-1. Any other
    token joins the kept one at the least distance in the sequence, of two equally near the later
    one. As long as T <= 2M (ratios of 0.5 and above), a kept token takes in one other at most.

    The choice depends on T and `remove` alone: neither on the image nor on any seed; where there is
    padding, T is a sample's own length. Positions are those among the tokens that are left, so in a
    later layer a neighbour in the sequence need not have been one in the image; the last patch of a
    row and the first of the next are neighbours. After an image tower (`Tokens.depth` 0)
    the others are dropped.
    """
    if isinstance(remove, Tensor):
        return _padded(tokens, remove)
    if remove == 0:
        return keep_all(tokens)
    batch, n = tokens.x.shape[:2]
    kept, source, target = _grid(batch, n, tokens.protected, remove, tokens.x.device)
    if tokens.depth == 0:
        return keep_rows(kept, n)
    return Plan(kept=kept, source=source, target=target, weight=tokens.size, whole=True)


@made_once
def _grid(batch: int, n: int, p: int, remove: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`kept`, `source` and `target` of a plan for n tokens, p of them protected."""
    positions, left = torch.arange(n - p, device=device), n - p - remove
    grid, row = _nearest(positions, n - p, left)
    order = rank((grid[row] == positions).long())  # those on the grid first
    kept = torch.cat([torch.arange(p, device=device), order[:left] + p])
    source = order[left:]
    return kept.expand(batch, -1), (source + p).expand(batch, -1), (row[source] + p).expand(batch, -1)


def _nearest(positions: Tensor, total: Any, left: Any) -> tuple[Tensor, Tensor]:
    """The grid of `left` among `total` tokens, its first `left` entries, and the entry that each of
    `positions` (0, 1, ..) is nearest to: both [.., T].

    `total` and `left`: numbers, or [B, 1] for a grid per sample. A token on the grid is nearest to
    its own entry.
    """
    grid = (2 * positions + 1) * total // (2 * left)
    between = (grid[..., 1:] + grid[..., :-1])[..., None, :] <= 2 * positions[:, None]
    on_grid = positions[1:] < left
    return grid, (between & on_grid[..., None, :]).sum(dim=-1)


def _padded(tokens: Tokens, remove: Tensor) -> Plan:
    """A grid per sample for a batch with padding; `remove` [B]."""
    assert tokens.padding is not None
    p, n = tokens.protected, tokens.x.shape[1]
    padding = tokens.padding[:, p:]
    positions = torch.arange(n - p, device=padding.device)
    total = real_tokens(padding)[:, None]
    grid, row = _nearest(positions, total, (total - remove[:, None]).clamp_min(1))
    partner = grid.gather(1, row)
    section = torch.where(partner == positions, 0, 2).masked_fill(padding, 1)
    head = torch.arange(p, device=padding.device).expand(padding.shape[0], -1)
    order = (section * n + positions).argsort(dim=-1)
    return split(
        tokens,
        remove,
        torch.cat([head, order + p], dim=1),
        torch.cat([head, partner + p], dim=1),
        weight=tokens.size,
    )
