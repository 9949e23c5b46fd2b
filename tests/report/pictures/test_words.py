"""Words in boxes: every one is there, in the colour of its token, within the width."""

from __future__ import annotations

import numpy as np
import pytest

from pitome.report.pictures.colours import NONE, PALETTE
from pitome.report.pictures.groups import DROPPED, Followed, Step
from pitome.report.pictures.sheet import Shown
from pitome.report.pictures.text_sheet import lay_out_texts
from pitome.report.pictures.words import boxes
from pitome.tasks.subject import TextSample

PIECES = ["[CLS]", "a", "wise", "##girl", "film", "[SEP]"]


def tinted(image: np.ndarray, colour: int) -> int:
    """Pixels in the tint of a colour."""
    tint = np.round(255 * 0.58 + 0.42 * PALETTE[colour].astype(float))
    return int((image == tint).all(-1).sum())


def test_tokens_have_their_colours() -> None:
    groups, colours = np.array([0, 1, 2, 2, 1, 3]), np.array([NONE, 4, 0, 0, 4, NONE])
    image = boxes(PIECES, groups, colours, 600)
    assert image.shape[1] == 600 and image.dtype == np.uint8
    assert tinted(image, 4) > 200 and tinted(image, 0) > 400 and tinted(image, 1) == 0


def test_dropped_words_are_struck_out() -> None:
    kept = boxes(["word"], np.array([1]), np.array([NONE]), 200)
    gone = boxes(["word"], np.array([DROPPED]), np.array([NONE]), 200)
    row = gone[gone.shape[0] * 13 // 34]
    assert (row[4:30] < 255).all() and not (kept[13, 4:30] < 255).all()


@pytest.mark.parametrize("width", [60, 200, 2000])
def test_lines_are_broken_where_the_width_ends(width: int) -> None:
    pieces = [*PIECES * 5, "x" * 300]
    image = boxes(pieces, np.arange(len(pieces)), np.full(len(pieces), NONE), width)
    assert image.shape[1] == width
    assert image.shape[0] > boxes(PIECES, np.arange(6), np.full(6, NONE), 2000).shape[0] or width == 2000


def test_a_page_of_texts() -> None:
    single, merged = np.arange(6)[None, None], np.array([[[0, 1, 2, 2, 2, 3]]])
    size = np.array([[[1, 1, 3, 3, 3, 1]]])
    steps = [Step(6, single, np.ones_like(single)), Step(4, merged, size)]
    right = np.array([[0.2, 0.8]])
    plain, tome = Followed("none", steps[:1] * 2, right), Followed("tome", steps, right)
    sample = TextSample(None, PIECES, "test 3", 1)
    page = lay_out_texts([sample], [plain], [[Shown(tome, ("ratio 0.7",))]], ["bad", "good"], ["caption"])
    first, second = page.rows
    assert [line.words for line in first.head] == ["test 3", "label: good", "6 tokens", "✓ good 80 %"]
    assert [line.words for line in second.head] == ["tome", "ratio 0.7", "4 tokens left", "✓ good 80 %"]
    assert tinted(second.cells[0].image, 0) > 0 and tinted(first.cells[0].image, 0) == 0
    assert len(page.legend) == 2
