"""Intervals, significance tests, and the correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitome.records.schema import RecordError

LEVEL = 0.05
"""A difference is significant if its adjusted p-value is below this."""

_CELLS = 4_000_000  # resampled counts held at once: 32 MB
_ENUMERATED = 16  # differences whose signs are flipped in every possible way: 65,536 patterns


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval, from `n` samples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same samples."""

    difference: Interval  # mean of the first side minus mean of the second
    wins: int  # samples on which the first side is higher
    losses: int  # and lower
    p: float  # two-sided p-value of `sign_test`, for this comparison alone (see `holm`)
    binary: bool  # all outcomes differ by 1 or not at all, so p is McNemar's


def compare(
    ids: Sequence[Any] | np.ndarray,
    outcomes: Sequence[float] | np.ndarray,
    other_ids: Sequence[Any] | np.ndarray,
    other_outcomes: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
) -> Comparison | None:
    """Outcomes [n] against others [m], on the samples that both have: `paired_difference`, `sign_test`.

    None if the two have no sample in common. Raises RecordError if an id occurs twice.
    """
    differences = _paired(np.asarray(ids), outcomes, np.asarray(other_ids), other_outcomes)
    if len(differences) == 0:
        return None
    return Comparison(
        difference=_bootstrap(differences, 10_000, seed),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        p=sign_test(differences),
        binary=bool(np.isin(differences, (-1, 0, 1)).all()),
    )


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
    are drawn, so the difficulty of a sample, which both models share, cancels. Samples are matched by id.
    The same input always gives the same interval. None if the two have no sample in common.
    Raises RecordError if an id occurs twice.
    """
    differences = _paired(np.asarray(ids), outcomes, np.asarray(base_ids), base_outcomes)
    return _bootstrap(differences, resamples, seed) if len(differences) else None


def _bootstrap(differences: np.ndarray, resamples: int, seed: int) -> Interval:
    """The mean of differences [n], n > 0, and its percentile interval."""
    n = len(differences)
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


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947). `wins`: samples that only the first side gets
    right; `losses`: only the second. Null hypothesis: both are equally likely.

    The exact conditional binomial test: twice the smaller tail, at most 1 (no mid-p). Computed
    with integers, so exact for any counts; 0.0 only below the smallest float.
    """
    n, term, tail = wins + losses, 1, 0
    for k in range(min(wins, losses) + 1):  # term: n choose k
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))


def sign_test(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of paired differences [n] under the null hypothesis that each sign is random.

    Fisher's sign-flip test of the sum (1935). If all non-zero differences have the same size, as
    with right and wrong answers, it is McNemar's exact test. Otherwise (scores in between,
    means over seeds) all sign patterns are counted for up to 16 differences. Beyond that
    the normal approximation is used (variance: the sum of squares) with a continuity correction:
    sums of multiples of a unit g lie 2g apart, so g is subtracted.
    """
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    size, total = np.abs(d), abs(float(d.sum()))
    if np.allclose(size, size[0], rtol=1e-9, atol=0):
        return mcnemar(int((d > 0).sum()), int((d < 0).sum()))
    if len(d) <= _ENUMERATED:
        patterns = (np.arange(1 << len(d))[:, None] >> np.arange(len(d))) & 1
        sums = np.abs((1 - 2 * patterns) @ size)
        return float((sums >= total * (1 - 1e-9)).mean())  # rounding must not exclude the observed sum
    return math.erfc(max(total - _unit(size), 0.0) / math.sqrt(2 * float(d @ d)))


def _unit(sizes: np.ndarray) -> float:
    """The largest number of which all `sizes` [n] are multiples, to a millionth of the largest of them;
    nearly 0 for sizes without one."""
    tolerance, unit = 1e-6 * float(sizes.max()), 0.0
    for size in np.unique(sizes):
        rest = float(size)
        while rest > tolerance:  # Euclid's algorithm, with the remainder nearest to zero
            unit, rest = rest, abs(unit - round(unit / rest) * rest)
    return unit


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons, in the given order (Holm 1979).

    The chance that any p-value of a true null hypothesis falls below 0.05 is at most 5 %, however
    the comparisons depend on one another.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


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
            raise RecordError("per-sample outcomes have an id twice: run again with overwrite=all")
    _, left, right = np.intersect1d(ids, base_ids, assume_unique=True, return_indices=True)
    differences: np.ndarray = np.asarray(a, dtype=float)[left] - np.asarray(b, dtype=float)[right]
    return differences
