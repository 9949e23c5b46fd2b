"""Neighbouring groups can be told apart, and a group keeps its colour."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pitome.report.pictures.colours import NONE, PALETTE, colour


def sizes(groups: np.ndarray) -> np.ndarray:
    held = {group: int((groups == group).sum()) for group in np.unique(groups)}
    return np.vectorize(held.get)(groups)


def touching(groups: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    rows, columns = groups.shape
    places = itertools.product(range(rows), range(columns))
    return [
        ((r, c), (r + dr, c + dc))
        for r, c in places
        for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1))
        if r + dr < rows and 0 <= c + dc < columns
    ]


@pytest.mark.parametrize("count", [5, 40, 90])
@pytest.mark.parametrize("seed", range(5))
def test_touching_groups_have_different_colours(count: int, seed: int) -> None:
    """Regions that grow from random points, as merged patches do."""
    random = np.random.default_rng(seed)
    places = np.argwhere(np.ones((14, 14)))
    points = random.choice(places, count, replace=False)
    near = ((places[:, None] - points[None]) ** 2).sum(-1).argmin(1)
    groups = near.reshape(14, 14)
    colours = colour(groups, sizes(groups))
    for one, other in touching(groups):
        if groups[one] != groups[other] and colours[one] != NONE:
            assert colours[one] != colours[other]
    for group in range(count):
        assert len(np.unique(colours[groups == group])) == 1


def test_patches_on_their_own_and_dropped_ones_have_no_colour() -> None:
    groups = np.array([[1, 1, 2], [-1, 3, -1]])
    size = np.array([[2, 2, 1], [0, 1, 0]])
    assert colour(groups, size).tolist() == [[0, 0, NONE], [NONE, NONE, NONE]]


def test_a_patch_in_the_class_token_counts_as_merged() -> None:
    assert colour(np.array([[0, 1]]), np.array([[2, 1]])).tolist() == [[0, NONE]]


def test_a_group_keeps_its_colour_while_it_grows() -> None:
    before = np.array([[3, 3, NONE, 5]])
    # The first group takes in the third patch; the other one loses nothing.
    after = colour(np.array([[7, 7, 7, 2]]), np.array([[3, 3, 3, 2]]), before)
    assert after.tolist() == [[3, 3, 3, 5]]


def test_two_that_meet_take_the_colour_of_the_larger_part() -> None:
    before = np.array([[4, 4, 4, 6, 6]])
    assert colour(np.zeros((1, 5), int), np.full((1, 5), 5), before).tolist() == [[4] * 5]


def test_a_colour_gives_way_to_a_neighbour() -> None:
    """Both came in the same colour from afar and touch now: the larger one keeps it."""
    before = np.array([[4, 4, 4, 4, 4]])
    after = colour(np.array([[1, 1, 1, 2, 2]]), np.array([[3, 3, 3, 2, 2]]), before)
    assert after[0, 0] == 4 and after[0, 3] != 4


def test_colours_of_the_palette_are_far_apart() -> None:
    pairs = itertools.combinations(PALETTE.astype(int), 2)
    assert min(np.abs(one - other).sum() for one, other in pairs) >= 60
