"""Intervals: how far a number may be off because only so many samples were seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitome.records.schema import RecordError

_CELLS = 4_000_000  # resampled counts held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval, from `n` samples."""

    value: float
    low: float
    high: float
    n: int


def paired_difference(
    ids: Sequence[Any] | np.ndarray,
    outcomes: Sequence[float] | np.ndarray,
    base_ids: Sequence[Any] | np.ndarray,
    base_outcomes: Sequence[float] | np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Mean of `outcomes` [n] minus mean of `base_outcomes` [m] over the samples both have.

    Paired bootstrap, percentile interval (Efron and Tibshirani 1993, chapter 13): whole samples
    are drawn, so what makes a sample hard for both models cancels. Samples are matched by id.
    The same input always gives the same interval. None if the two have no sample in common.
    Raises RecordError if an id stands twice.
    """
    differences = _paired(np.asarray(ids), outcomes, np.asarray(base_ids), base_outcomes)
    n = len(differences)
    if n == 0:
        return None
    # n draws from n samples are a multinomial over the distinct differences, of which per-sample
    # scores have few: the same distribution as drawing indices, without an n x resamples table.
    values, counts = np.unique(differences, return_counts=True)
    generator = np.random.default_rng(seed)
    step = max(_CELLS // len(values), 1)
    means = np.concatenate(
        [
            generator.multinomial(n, counts / n, size=min(step, resamples - start)) @ values / n
            for start in range(0, resamples, step)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high), n)


def proportion(share: float, n: int) -> Interval:
    """Wilson's score interval of a proportion, e.g. an accuracy over `n` samples.

    Wilson 1927; unlike the textbook interval it stays inside [0, 1] and keeps its level near 0
    and 1. Raises ValueError if share is not in [0, 1] or n < 1.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"not a proportion: {share} of {n} samples")
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # the bounds hold the estimate exactly at 0 and 1, where rounding may miss it
    return Interval(share, min(centre - half, share), max(centre + half, share), n)


def _paired(ids: np.ndarray, a: Any, base_ids: np.ndarray, b: Any) -> np.ndarray:
    """Differences a - b [n] over the common ids, in the order of the ids."""
    for side in (ids, base_ids):
        if len(np.unique(side)) != len(side):
            raise RecordError("per-sample outcomes have an id twice: run again with rerun=true")
    _, left, right = np.intersect1d(ids, base_ids, assume_unique=True, return_indices=True)
    return np.asarray(a, dtype=float)[left] - np.asarray(b, dtype=float)[right]
