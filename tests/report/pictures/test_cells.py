"""What one cell shows: the image, edges between groups, dropped patches, energies."""

from __future__ import annotations

import numpy as np
import pytest

from pitome.report.pictures import cells
from pitome.report.pictures.colours import NONE
from pitome.report.pictures.groups import DROPPED

GROUPS = np.array([[1, 1, 2], [1, 3, 3], [DROPPED, 4, 5]])
COLOURS = np.array([[0, 0, NONE], [0, 1, 1], [NONE, NONE, NONE]])

LOW, HIGH = cells.ramp(np.array([0.0, 1.0]))


@pytest.mark.parametrize("size", [6, 48, 300])
@pytest.mark.parametrize("scale", [5, 8, 15])
@pytest.mark.parametrize("grey", [0, 255])
def test_edges_stand_between_groups_only(size: int, scale: int, grey: int) -> None:
    """At every resolution of the image, on black and on white."""
    pixels = np.full((size, size, 3), grey, dtype=np.uint8)
    cell = cells.grouped(pixels, GROUPS, COLOURS, scale).astype(int)
    assert cell.shape == (3 * scale, 3 * scale, 3)
    middle = [scale // 2 + i * scale for i in range(3)]

    def contrast(one: tuple[int, int], other: tuple[int, int]) -> int:
        """Between the edge of two patches and their middles, the smaller one."""
        (a, b), (c, d) = ((middle[i], middle[j]) for i, j in (one, other))
        line = cell[min(a, c) : max(a, c) + 1, min(b, d) : max(b, d) + 1].reshape(-1, 3)
        return int(min(np.abs(line - end).sum(1).max() for end in (line[0], line[-1])))

    assert contrast((0, 0), (0, 1)) == 0  # the same group
    assert contrast((1, 1), (1, 2)) == 0
    assert contrast((0, 1), (0, 2)) > 60  # a group and a patch on its own
    assert contrast((0, 1), (1, 1)) > 60  # two groups
    assert contrast((2, 1), (2, 2)) > 20  # two patches on their own, fainter


def test_groups_take_their_colour_and_patches_on_their_own_stay() -> None:
    cell = cells.grouped(np.full((3, 3, 3), 128, dtype=np.uint8), GROUPS, COLOURS, 9).astype(int)
    red, blue, plain = cell[4, 4], cell[13, 22], cell[22, 22]
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60
    assert np.ptp(plain) == 0


def test_dropped_patches_are_hatched() -> None:
    cell = cells.grouped(np.full((3, 3, 3), 255, dtype=np.uint8), GROUPS, COLOURS, 10)
    dropped = cell[21:30, :9]
    assert dropped.max() < 130 and len(np.unique(dropped)) >= 3
    assert cell[23:28, 23:28].min() > 200  # an ordinary patch beside it


def test_the_image_is_enlarged_without_interpolation() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (cells.plain(pixels, (2, 2), 6) == pixels.repeat(3, 0).repeat(3, 1)).all()
    assert cells.plain(np.zeros((300, 300, 3), np.uint8), (2, 2), 6).shape == (12, 12, 3)


def test_energies_run_from_the_lowest_to_the_highest() -> None:
    cell = cells.heat(np.array([[-0.5, 0.1], [0.3, np.nan]]), 4)
    assert (cell[0, 0] == LOW).all()
    assert (cell[7, 0] == HIGH).all()
    assert (cell[7, 7] == cell[7, 7, 0]).all()  # grey: ranked by nothing
    assert (cells.heat(np.full((2, 2), 0.3), 4) == LOW).all()
