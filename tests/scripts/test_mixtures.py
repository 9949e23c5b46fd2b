"""Which sentence lengths give printed speed-ups."""

from __future__ import annotations

import pytest

from pitome.tasks.text.costs import LIMIT, authors_cost, encoder
from scripts.tables.mixtures import lengths_giving, mixture, rounding_interval

CURVES = [{10: 1.0, 20: 2.0, 30: 4.0}, {10: 1.0, 20: 4.0, 30: 5.0}]
"""Shares of the unmerged cost: 1, 1/2, 1/4 and 1, 1/4, 1/5."""


@pytest.mark.parametrize(
    ("printed", "low", "high"), [("1.9", 1.85, 1.95), ("2.27", 2.265, 2.275), ("2", 1.5, 2.5)]
)
def test_printed_digits_bound_the_value(printed: str, low: float, high: float) -> None:
    assert rounding_interval(printed) == pytest.approx((low, high))


def test_lengths_that_give_a_printed_value() -> None:
    curve = {10: 1.84, 20: 1.85, 30: 1.9, 40: 1.96}
    assert lengths_giving("1.9", curve) == [20, 30]
    assert lengths_giving("1.96", curve) == [40]
    assert lengths_giving("3.00", curve) == []


@pytest.mark.parametrize(
    ("printed", "longest"),
    [
        (("2.00", "4.00"), 20),  # a length
        (("1.333", "1.600"), 20),  # half of 10, half of 20: 3/4 and 5/8
        (("1.600", "2.069"), 30),  # the middle of all three, which no two lengths give
        (("2.00", "2.00"), None),  # shares 1/2, 1/2: above the line from 10 to 30
        (("4.10", "5.00"), None),  # beyond all
        (("0.50", "0.50"), None),
    ],
    ids=["length", "two", "three", "beside", "beyond", "dearer"],
)
def test_a_mixture_gives_the_printed_values(printed: tuple[str, ...], longest: int | None) -> None:
    mix = mixture(printed, CURVES)
    assert (mix and max(mix)) == longest
    for value, curve in zip(printed, CURVES, strict=True) if mix else ():
        low, high = rounding_interval(value)
        assert low - 1e-6 <= 1 / sum(share / curve[n] for n, share in mix.items()) <= high + 1e-6


def test_the_longest_length_is_as_short_as_can_be() -> None:
    curve = {10: 1.0, 20: 2.0, 30: 2.0, 40: 4.0}
    assert mixture(["1.500"], [curve]) == pytest.approx({10: 1 / 3, 20: 2 / 3}, abs=2e-3)


def test_a_mixture_that_misses_narrowly_is_none() -> None:
    """Intervals a twentieth wider on each side would do (15, 35 and 511 tokens)."""
    costs = [authors_cost(encoder("distilbert"), "pitome_repo", q) for q in (0.8, 0.75, 0.7)]
    unmerged = authors_cost(encoder("distilbert"), "pitome_repo", 1.0)
    curves = [{n: unmerged(n) / cost(n) for n in range(3, LIMIT + 1)} for cost in costs]
    assert mixture(("1.61", "1.88", "2.26"), curves) is None
    assert mixture(("1.615", "1.885", "2.25"), curves) is not None
