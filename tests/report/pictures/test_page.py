"""Pages: everything has its place, nothing overlaps or is cut off, whatever the words."""

from __future__ import annotations

import numpy as np
import pytest

from pitome.report.pictures.page import Line, Sheet, Tile, TileRow, render

BLUE = np.full((40, 60, 3), (0, 0, 255), dtype=np.uint8)
SWATCH = np.full((20, 30, 3), (0, 255, 0), dtype=np.uint8)


def page(words: str = "word", columns: int = 3) -> Sheet:
    cell = Tile(BLUE, (Line(words),))
    rows = [
        TileRow((Line(words, bold=True), Line(words)), [cell] * columns),
        TileRow((), [None, *[cell] * (columns - 1)]),
    ]
    return Sheet(words, [(Line(words),)] * columns, rows, [(SWATCH, words)] * 3, (words,))


@pytest.mark.parametrize(
    "words", ["word", "a very long line that fits nowhere " * 8, "x" * 400, "", "✓ größer 世"]
)
@pytest.mark.parametrize("columns", [2, 10])
def test_pictures_keep_their_pixels_whatever_the_words(words: str, columns: int) -> None:
    drawn = np.asarray(render(page(words, columns))).astype(int)
    blue = (drawn == (0, 0, 255)).all(-1).sum()
    assert blue == 40 * 60 * (2 * columns - 1)
    border = np.concatenate(
        [drawn[edge].ravel() for edge in (np.s_[:8], np.s_[-8:], np.s_[:, :8], np.s_[:, -8:])]
    )
    assert (border == 255).all()


def test_a_long_caption_is_broken_into_lines() -> None:
    assert render(page("word " * 60)).height > render(page()).height
