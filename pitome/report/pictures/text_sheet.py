"""What stands where on a page of texts: methods below one another, each text with its words in groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pitome.report.pictures.colours import NONE, colour
from pitome.report.pictures.groups import DROPPED, Followed
from pitome.report.pictures.page import GREY, Line, Sheet, Tile, TileRow
from pitome.report.pictures.sheet import Shown, guess
from pitome.report.pictures.words import boxes
from pitome.tasks.subject import TextSample

_TITLE = "Words that ended up in one token"
_WIDTH = 760  # pixels


def lay_out_texts(
    samples: Sequence[TextSample],
    unmerged: Sequence[Followed],
    shown: Sequence[Sequence[Shown]],
    names: Sequence[str],
    caption: Sequence[str],
) -> Sheet:
    """A page of texts as they leave the last layer.

    unmerged: for each text the model without merging; shown: for each text the methods; names: of the
    classes; caption: lines below.
    """
    rows = []
    for sample, plain, methods in zip(samples, unmerged, shown, strict=True):
        label = () if sample.label is None else (Line(f"label: {names[sample.label]}", GREY),)
        head = (Line(sample.name, bold=True), *label, Line(f"{plain.steps[0].tokens} tokens", GREY))
        rows.append(TileRow((*head, *guess(plain, 0, sample.label, names)), [_cell(sample, plain)]))
        for method in methods:
            left = method.followed.steps[-1].tokens
            head = (Line(method.followed.method, bold=True), *(Line(word, GREY) for word in method.setting))
            head = (*head, Line(f"{left} tokens left", GREY), *guess(method.followed, 0, sample.label, names))
            rows.append(TileRow(head, [_cell(sample, method.followed)]))
    last = [method.followed.steps[-1] for methods in shown for method in methods]
    return Sheet(_TITLE, [()], rows, _legend(any((step.groups == DROPPED).any() for step in last)), caption)


def _cell(sample: TextSample, followed: Followed) -> Tile:
    """The text after the last layer; colours are passed on from layer to layer."""
    before = None
    for step in followed.steps:
        before = colour(step.groups[0], step.size[0], before)
    assert before is not None
    return Tile(boxes(sample.pieces, followed.steps[-1].groups[0, 0], before[0], _WIDTH))


def _legend(drops: bool) -> list[tuple[np.ndarray, str]]:
    entries = [
        (_swatch(["a", "b"], [5, 5], [0, 0]), "merged: one colour and number is one token"),
        (_swatch(["a"], [5], [NONE]), "on its own"),
    ]
    return entries + ([(_swatch(["a"], [DROPPED], [NONE]), "dropped")] if drops else [])


def _swatch(pieces: Sequence[str], groups: Sequence[int], colours: Sequence[int]) -> np.ndarray:
    image = boxes(pieces, np.array(groups), np.array(colours), 80)
    inked = np.flatnonzero((image < 255).any(axis=(0, 2)))
    return image[:27, : inked.max() + 1]
