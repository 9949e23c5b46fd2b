"""Which sentence lengths, or mixtures of them, have a printed speed-up."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linprog


def rounding_interval(printed: str) -> tuple[float, float]:
    """All numbers that print as `printed`: half a unit of its last digit to either side."""
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return float(printed) - half, float(printed) + half


def lengths_giving(printed: str, speedups: Mapping[int, float]) -> list[int]:
    """The lengths whose speed-up prints as `printed`. speedups: tokens -> unmerged / merged."""
    low, high = rounding_interval(printed)
    return [tokens for tokens, value in speedups.items() if low <= value <= high]


def mixture(printed: Sequence[str], speedups: Sequence[Mapping[int, float]]) -> dict[int, float] | None:
    """A mixture of sentence lengths whose speed-ups print as all of `printed`: length -> share of the
    unmerged cost spent on it. Of all such mixtures one whose longest length is as short as can be; None if
    there is none.

    One printed value and one curve (as for `lengths_giving`, lengths ascending) per ratio. A mixture's share
    of the unmerged cost is the mean of the shares at its lengths, weighted by unmerged cost, whether costs
    are summed or shares averaged: so a mean over a data set is a mixture, and a linear program finds it.
    """
    lengths = list(speedups[0])
    shares = 1 / np.array([list(curve.values()) for curve in speedups])
    low, high = np.array([[1 / end for end in rounding_interval(value)[::-1]] for value in printed]).T
    width = high - low  # the unit of each ratio, so that all bounds are kept equally closely

    def weights(count: int) -> np.ndarray | None:
        """Of the `count` shortest lengths; None where they give no mixture."""
        rows = shares[:, :count] / width[:, None]
        solution = linprog(
            lengths[:count],  # the shortest on average, so that it is the same one everywhere
            A_ub=np.concatenate([rows, -rows]),
            b_ub=np.concatenate([high / width, -low / width]),
            A_eq=np.ones((1, count)),
            b_eq=[1],
        )
        return solution.x if solution.status == 0 else None

    counts = range(1, len(lengths) + 1)
    shortest = bisect.bisect_left(counts, True, key=lambda count: weights(count) is not None)
    if shortest == len(counts):
        return None
    spent = weights(counts[shortest])
    assert spent is not None
    return {tokens: float(weight) for tokens, weight in zip(lengths, spent, strict=False) if weight > 1e-9}
