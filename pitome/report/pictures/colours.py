"""A colour for every group of patches: neighbours differ, and a group keeps its colour while it grows."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

PALETTE = np.array(
    [
        (230, 60, 70),
        (60, 130, 235),
        (245, 185, 25),
        (40, 170, 90),
        (155, 85, 215),
        (250, 120, 30),
        (30, 185, 200),
        (240, 95, 175),
        (150, 205, 45),
        (120, 110, 245),
        (190, 115, 60),
        (0, 150, 140),
        (250, 145, 130),
        (160, 45, 115),
    ],
    dtype=np.uint8,
)
"""RGB, [14, 3]; distinguishable on black and on white, and side by side in this order."""

NONE = -1


def colour(groups: np.ndarray, size: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """Rows of PALETTE for the patches of one image, [rows, columns]; NONE for patches on their own.

    groups, size: of a `Step`, one image; before: what this function gave for the step in front.
    The largest groups choose first: the colour most of their patches had, unless a neighbour has
    it; else the colour that the fewest patches have.
    """
    chosen = np.full(groups.shape, NONE)
    around = _neighbours(groups)
    taken: dict[int, int] = {}
    area = np.zeros(len(PALETTE), dtype=int)
    merged, counts = np.unique(groups[(groups >= 0) & (size > 1)], return_counts=True)
    for group, count in sorted(
        zip(merged.tolist(), counts.tolist(), strict=True), key=lambda g: (-g[1], g[0])
    ):
        inside = groups == group
        refused = {taken[other] for other in around[group] if other in taken}
        wanted = _most(before[inside]) if before is not None else NONE
        if wanted == NONE or wanted in refused:
            free = [i for i in range(len(PALETTE)) if i not in refused] or list(range(len(PALETTE)))
            wanted = min(free, key=lambda i: (area[i], i))
        taken[group] = wanted
        area[wanted] += count
        chosen[inside] = wanted
    return chosen


def _most(colours: np.ndarray) -> int:
    """The colour most of these patches had, NONE if none had one."""
    counts = Counter(c for c in colours.tolist() if c != NONE)
    return min(counts, key=lambda c: (-counts[c], c)) if counts else NONE


def _neighbours(groups: np.ndarray) -> dict[int, set[int]]:
    """Group -> the groups whose patches touch its own, corners included."""
    around: dict[int, set[int]] = defaultdict(set)
    pairs = (
        (groups[:, :-1], groups[:, 1:]),
        (groups[:-1], groups[1:]),
        (groups[:-1, :-1], groups[1:, 1:]),
        (groups[:-1, 1:], groups[1:, :-1]),
    )
    for first, second in pairs:
        for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
            if a != b:
                around[a].add(b)
                around[b].add(a)
    return around
