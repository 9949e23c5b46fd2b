import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from pitome.records.schema import RecordError
from pitome.records.statistics import compare, holm, mcnemar, paired_difference, proportion, sign_test


def test_bootstrap_agrees_with_the_normal_approximation():
    generator = np.random.default_rng(1)
    n = 20_000
    base = (generator.random(n) < 0.88).astype(float)
    other = np.where(generator.random(n) < 0.05, 1 - base, base)
    got = paired_difference(range(n), other, range(n), base)
    d = other - base
    half = 1.959964 * d.std() / math.sqrt(n)
    assert got.value == pytest.approx(d.mean(), abs=1e-12)
    assert got.n == n
    # the bounds come from 10,000 resamples: their own standard error is about 2 % of `half`
    assert got.low == pytest.approx(d.mean() - half, abs=0.06 * half)
    assert got.high == pytest.approx(d.mean() + half, abs=0.06 * half)


def test_bootstrap_agrees_with_every_resample_of_a_small_case():
    a, b = [1, 0, 1, 1, 0.5], [0, 0, 1, 0, 1]
    d = [x - y for x, y in zip(a, b, strict=True)]
    means = sorted(sum(draw) / 5 for draw in itertools.product(d, repeat=5))  # all 3,125
    got = paired_difference(range(5), a, range(5), b, resamples=200_000)
    low, high = (means[int(q * (len(means) - 1))] for q in (0.025, 0.975))
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-9)


def test_bootstrap_agrees_with_a_loop_over_indices():
    generator = random.Random(3)
    a = [generator.random() for _ in range(40)]
    b = [generator.random() for _ in range(40)]
    means = []
    for _ in range(20_000):
        draw = [generator.randrange(40) for _ in range(40)]
        means.append(sum(a[i] - b[i] for i in draw) / 40)
    low, high = np.quantile(means, [0.025, 0.975])
    got = paired_difference(range(40), a, range(40), b, resamples=20_000)
    assert got.low == pytest.approx(low, abs=0.006)  # three Monte Carlo standard errors
    assert got.high == pytest.approx(high, abs=0.006)


def test_bootstrap_agrees_with_scipys():
    a, b = outcomes_pair()
    want = stats.bootstrap(
        (a - b,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    got = paired_difference(range(50), a, range(50), b, resamples=50_000)
    # three Monte Carlo standard errors of both
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=0.004)


def test_pairing_is_by_id_and_uses_common_samples_only():
    got = paired_difference([3, 1, 2], [1, 0, 1], [2, 3, 9], [1, 0, 1])
    assert got.n == 2 and got.value == 0.5  # id 3: 1 - 0, id 2: 1 - 1
    names = paired_difference(["b", "a"], [1, 0], ["a", "b"], [0, 1])
    assert (names.value, names.low, names.high) == (0, 0, 0)
    assert paired_difference([1], [1], [2], [1]) is None


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(5)
    base = (generator.random(2000) < 0.8).astype(float)
    other = base.copy()
    other[np.flatnonzero(base)[:10]] = 0
    paired = paired_difference(range(2000), other, range(2000), base)
    unpaired = 1.96 * math.sqrt(base.var() / 2000 + other.var() / 2000)
    assert paired.high < 0  # significant
    assert paired.high - paired.low < unpaired / 3


def test_bootstrap_is_repeatable_and_seeded():
    a, b = outcomes_pair()
    assert paired_difference(range(50), a, range(50), b) == paired_difference(range(50), a, range(50), b)
    assert paired_difference(range(50), a, range(50), b) != paired_difference(
        range(50), a, range(50), b, seed=1
    )


def test_the_order_of_samples_does_not_matter():
    a, b = outcomes_pair()
    shuffled = np.random.default_rng(0).permutation(50)
    assert paired_difference(range(50), a, range(50), b) == paired_difference(
        shuffled, a[shuffled], range(50), b
    )


def outcomes_pair():
    generator = np.random.default_rng(8)
    return generator.random(50), generator.random(50)


def test_an_id_that_stands_twice_is_an_error():
    with pytest.raises(RecordError, match="an id twice"):
        paired_difference([1, 1], [0, 1], [1, 2], [0, 1])


def test_chunks_do_not_change_what_is_drawn(monkeypatch):
    a, b = outcomes_pair()
    whole = paired_difference(range(50), a, range(50), b)
    monkeypatch.setattr("pitome.records.statistics._CELLS", 50 * 77)
    assert paired_difference(range(50), a, range(50), b) == whole


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [  # roots of |p - share| = z sqrt(p (1 - p) / n), solved by bisection
        (0.88, 1000, 0.8583909, 0.8987007),
        (0.5, 10, 0.2365931, 0.7634069),
        (0.0, 20, 0.0, 0.1611252),
        (1.0, 20, 0.8388748, 1.0),
    ],
)
def test_wilson(share, n, low, high):
    got = proportion(share, n)
    assert (got.low, got.high) == pytest.approx((low, high), abs=2e-6)
    assert got.low <= share <= got.high


def test_wilson_against_statsmodels():
    for n in (1, 7, 20, 640, 50_000):
        for correct in {0, n // 3, n // 2, n - 1, n}:
            got = proportion(correct / n, n)
            assert (got.low, got.high) == pytest.approx(
                proportion_confint(correct, n, 0.05, method="wilson"), abs=1e-12
            )


@pytest.mark.parametrize(("share", "n"), [(1.1, 10), (-0.1, 10), (0.5, 0), (float("nan"), 10)])
def test_wilson_refuses_what_is_no_proportion(share, n):
    with pytest.raises(ValueError, match="not a proportion"):
        proportion(share, n)


def test_wilson_bounds_solve_their_defining_equation():
    got = proportion(0.913, 640)
    for bound in (got.low, got.high):
        assert abs(bound - 0.913) == pytest.approx(
            1.959963984540054 * math.sqrt(bound * (1 - bound) / 640), rel=1e-9
        )


@pytest.mark.parametrize(
    ("wins", "losses"),
    [(5, 1), (10, 2), (6, 16), (59, 6), (121, 59), (352, 301), (24_800, 25_200), (0, 12), (7, 7)],
)
def test_mcnemar_against_scipy(wins, losses):
    p = stats.binomtest(wins, wins + losses, 0.5).pvalue
    assert mcnemar(wins, losses) == pytest.approx(p, rel=1e-9) == mcnemar(losses, wins)


def test_mcnemar_against_every_fall_of_the_coin():
    for n in range(11):
        for wins in range(n + 1):
            falls = [abs(2 * sum(coins) - n) for coins in itertools.product((0, 1), repeat=n)]
            extreme = sum(fall >= abs(2 * wins - n) for fall in falls)
            assert mcnemar(wins, n - wins) == Fraction(extreme, 2**n)


def test_mcnemar_of_extreme_counts():
    assert mcnemar(0, 0) == mcnemar(1, 0) == mcnemar(700, 700) == 1.0
    assert mcnemar(0, 1000) == pytest.approx(2.0**-999, rel=1e-12)
    assert mcnemar(0, 5000) == 0.0  # below the least float


def test_the_sign_test_of_right_and_wrong_is_mcnemars():
    generator = np.random.default_rng(2)
    a, b = (generator.random((2, 400)) < 0.7).astype(float)
    wins, losses = int((a > b).sum()), int((a < b).sum())
    assert sign_test(a - b) == mcnemar(wins, losses)
    assert sign_test((a - b) / 3) == mcnemar(wins, losses)  # three seeds that agree everywhere
    assert sign_test([0.0, 0.0]) == sign_test([]) == 1.0


def test_the_sign_test_of_scores_against_every_pattern_of_signs():
    d = np.array([0.5, -0.25, 1 / 3, 1.0, 0.2, -0.1, 0.9])
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=len(d))]
    want = np.mean([s >= abs(d.sum()) - 1e-12 for s in sums])
    assert sign_test(d) == pytest.approx(want, abs=1e-12)
    assert sign_test(np.append(d, [0, 0, 0])) == sign_test(d)


def every_sign(d):
    """The p-value of scipy's permutation test over all patterns of signs."""
    return stats.permutation_test(
        (np.asarray(d),),
        lambda x, axis: np.abs(x.sum(axis=axis)).round(9),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    ).pvalue


@pytest.mark.parametrize("unit", [1 / 3, 0.1, 0.5])
@pytest.mark.parametrize(
    ("n", "draws"), [(9, 6), (16, 1), (17, 1), pytest.param(18, 6, marks=pytest.mark.nightly)]
)
def test_the_sign_test_against_scipys_permutation_test(n, draws, unit):
    """Exact up to 16 differences; beyond, the correction for continuity leaves a few percent."""
    generator = np.random.default_rng(n)
    for _ in range(draws):
        d = unit * generator.choice([-3, -2, -1, 1, 2, 3], n)
        want = every_sign(d)
        assert sign_test(d) == pytest.approx(want, abs=1e-12 if n <= 16 else 0.012)


def test_the_sign_test_of_scores_of_any_size_beyond_16():
    """Scores without a common unit: sums lie close together, and there is nothing to correct."""
    d = np.random.default_rng(3).normal(0.2, 1, 18)
    assert sign_test(d) == pytest.approx(every_sign(d), abs=0.012)


def test_the_normal_approximation_against_random_flips():
    generator = np.random.default_rng(4)
    for d in (generator.normal(0.05, 1, 2000), generator.integers(-3, 4, 2000) / 3 + 0.0):
        flips = generator.choice((-1.0, 1.0), (4000, 2000)) @ np.abs(d)
        # three Monte Carlo standard errors at the worst
        assert sign_test(d) == pytest.approx(np.mean(np.abs(flips) >= abs(d.sum())), abs=0.024)


def test_the_sign_test_keeps_its_level():
    """Of 2,000 comparisons of equals about 5 % come out below 0.05, and no more."""
    generator = np.random.default_rng(6)
    for draw in (
        lambda: generator.choice([-1, 0, 1], 300, p=[0.06, 0.88, 0.06]),
        lambda: generator.choice([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1], 300),
    ):
        share = np.mean([sign_test(draw()) < 0.05 for _ in range(2000)])
        assert share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_holm_against_its_definition():
    """Worked by hand: sorted p times 4, 3, 2, 1, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    generator = np.random.default_rng(7)
    for _ in range(200):
        p = generator.random(6) ** 3
        rejected, left = set(), sorted(range(6), key=lambda i: p[i])
        while left and p[left[0]] < 0.05 / len(left):
            rejected.add(left.pop(0))
        assert {i for i, value in enumerate(holm(list(p))) if value < 0.05} == rejected


def test_holm_against_statsmodels():
    generator = np.random.default_rng(9)
    for n in (1, 2, 7, 40):
        p = generator.random(n) ** 4
        assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)


def test_compare_is_interval_and_test_of_the_same_pairs():
    got = compare([4, 3, 2, 1, 8], [1, 1, 0, 1, 1], [1, 2, 3, 4, 9], [0, 1, 0, 1, 0])
    assert (got.wins, got.losses, got.difference.n, got.difference.value) == (2, 1, 4, 0.25)
    assert got.p == mcnemar(2, 1) and got.binary
    assert got.difference == paired_difference([4, 3, 2, 1], [1, 1, 0, 1], [1, 2, 3, 4], [0, 1, 0, 1])
    assert compare([1], [1], [2], [1]) is None
    assert not compare([1, 2], [0.5, 1], [1, 2], [0, 0]).binary
