"""`stride`: an even grid, the same for every image."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
import torch

from pitome.merge import registry
from pitome.merge.registry import MethodOptions
from tests.merge.support import make_tokens

STRIDE = registry.get("stride")


def members(total: int, remove: int) -> list[list[int]]:
    """The unprotected positions in every kept row, without protected tokens."""
    plan = STRIDE.plan(make_tokens(total, protected=0, batch=1), remove, MethodOptions())
    rows = plan.assignment()[0].tolist()
    return [[i for i, row in enumerate(rows) if row == j] for j in range(total - remove)]


@pytest.mark.parametrize(
    ("total", "remove", "expected"),
    [
        (6, 3, [[0, 1], [2, 3], [4, 5]]),
        (7, 3, [[0], [1, 2], [3, 4], [5, 6]]),
        (8, 2, [[0], [1, 2], [3], [4], [5, 6], [7]]),
        (9, 6, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (2, 1, [[0, 1]]),
    ],
)
def test_groups_written_out(total: int, remove: int, expected: list[list[int]]) -> None:
    assert members(total, remove) == expected


def test_the_rule_by_brute_force() -> None:
    for total in range(2, 60):
        for remove in range(1, total):
            left = total - remove
            grid = [(2 * j + 1) * total // (2 * left) for j in range(left)]
            expected: list[list[int]] = [[] for _ in grid]
            for i in range(total):
                expected[min(range(left), key=lambda j, i=i: (abs(grid[j] - i), -j))].append(i)
            assert members(total, remove) == expected


def test_even_gaps_and_small_groups() -> None:
    for total in (16, 49, 196):
        for remove in range(1, total // 2 + 1):
            plan = STRIDE.plan(make_tokens(total, protected=0, batch=1), remove, MethodOptions())
            gaps = {b - a for a, b in itertools.pairwise(plan.kept[0].tolist())}
            assert gaps <= {1, 2}  # the two whole numbers around total / left
            assert max(Counter(plan.target[0].tolist()).values()) == 1


def test_protected_tokens_stay_first_and_take_nothing_in() -> None:
    plan = STRIDE.plan(make_tokens(9, protected=3), 3, MethodOptions())
    assert plan.kept.tolist() == [[0, 1, 2, 4, 6, 8]] * 2
    assert plan.source.tolist() == [[3, 5, 7]] * 2
    assert plan.target.tolist() == [[3, 4, 5]] * 2


def test_it_is_blind_to_features_and_averages_by_size() -> None:
    one, other = make_tokens(11, seed=1), make_tokens(11, seed=2)
    plans = [STRIDE.plan(tokens, 4, MethodOptions()) for tokens in (one, other)]
    assert torch.equal(plans[0].assignment(), plans[1].assignment())
    rows, size = plans[0].assignment()[0], one.size[0]
    for row, got in enumerate(plans[0].apply(one.x)[0]):
        group = rows == row
        want = (one.x[0, group] * size[group, None]).sum(dim=0) / size[group].sum()
        torch.testing.assert_close(got, want)


def test_with_padding_every_sample_has_the_grid_of_its_own_length() -> None:
    """Nine tokens, one of them protected; 8, 5 and 2 others, of which 4, 2 and 0 are to go."""
    real, remove = torch.tensor([9, 6, 3]), torch.tensor([4, 2, 0])
    padding = torch.arange(9) >= real[:, None]
    tokens = dataclasses.replace(make_tokens(9, batch=3), padding=padding, rows=5)
    plan = STRIDE.plan(tokens, remove, MethodOptions())
    for i, (n, k) in enumerate(zip(real.tolist(), remove.tolist(), strict=True)):
        alone = STRIDE.plan(make_tokens(n, batch=1), k, MethodOptions())
        assert torch.equal(plan.assignment()[i, :n], alone.assignment()[0])
        assert plan.kept[i, n - k :].ge(n).all()  # padding fills the rest
