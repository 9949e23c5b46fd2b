"""What stands where on a page of texts: methods below one another, each text with its words in groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pitome.report.pictures.colours import NONE, colour
from pitome.report.pictures.groups import DROPPED, Followed
from pitome.report.pictures.page import GREY, Cell, Page, Row, Text
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
) -> Page:
    """A page of texts as they leave the last layer.

    unmerged: for each text the model without merging; shown: for each text the methods; names: of the
    classes; caption: lines below.
    """
    rows = []
    for sample, plain, methods in zip(samples, unmerged, shown, strict=True):
        label = () if sample.label is None else (Text(f"label: {names[sample.label]}", GREY),)
        head = (Text(sample.name, bold=True), *label, Text(f"{plain.steps[0].tokens} tokens", GREY))
        rows.append(Row((*head, *guess(plain, 0, sample.label, names)), [_cell(sample, plain)]))
        for one in methods:
            left = one.followed.steps[-1].tokens
            head = (Text(one.followed.method, bold=True), *(Text(word, GREY) for word in one.setting))
            head = (*head, Text(f"{left} tokens left", GREY), *guess(one.followed, 0, sample.label, names))
            rows.append(Row(head, [_cell(sample, one.followed)]))
    last = [one.followed.steps[-1] for methods in shown for one in methods]
    return Page(_TITLE, [()], rows, _legend(any((step.groups == DROPPED).any() for step in last)), caption)


def _cell(sample: TextSample, followed: Followed) -> Cell:
    """The text behind the last layer; colours are handed on from layer to layer."""
    before = None
    for step in followed.steps:
        before = colour(step.groups[0], step.size[0], before)
    assert before is not None
    return Cell(boxes(sample.pieces, followed.steps[-1].groups[0, 0], before[0], _WIDTH))


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
