"""A fixed grid: what remains of a method's gain when it does not look at the image."""

from __future__ import annotations

import torch

from pitome.merge.plan import Plan, Tokens, keep_all, rank
from pitome.merge.registry import MethodOptions, register


@register("stride", source="a baseline of this project")
def stride(tokens: Tokens, remove: int, options: MethodOptions) -> Plan:
    """Keep evenly spaced tokens and average each other one, by size, into the nearest kept one.

    Of the T unprotected tokens, counted from 0 in the order of the sequence, M = T - remove are
    kept: the middles of M equal parts, position floor((2j + 1) T / (2M)) for j = 0..M-1. Any other
    token joins the kept one at the least distance in the sequence, of two equally near the later
    one. As long as T <= 2M (ratios of 0.5 and above), a kept token takes in one other at most.

    The choice depends on T and `remove` alone: neither on the image nor on any seed. Positions are
    those among the tokens that are left, so in a later layer a neighbour in the sequence need not
    have been one in the image; the last patch of a row and the first of the next are neighbours.
    """
    if remove == 0:
        return keep_all(tokens)
    p, device = tokens.protected, tokens.x.device
    batch, n = tokens.x.shape[:2]
    total, left = n - p, n - p - remove
    grid = (2 * torch.arange(left, device=device) + 1) * total // (2 * left)
    taken = torch.ones(total, dtype=torch.long, device=device).scatter(0, grid, 0)
    source = rank(taken)[:remove]
    # The kept token a source is nearest to: as many as there are midpoints up to it.
    target = (grid[1:] + grid[:-1] <= 2 * source[:, None]).sum(dim=-1)
    kept = torch.cat([torch.arange(p, device=device), grid + p])
    return Plan(
        kept=kept.expand(batch, -1),
        source=(source + p).expand(batch, -1),
        target=(target + p).expand(batch, -1),
        weight=tokens.size,
    )
