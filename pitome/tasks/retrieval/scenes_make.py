"""Scenes of one to four Fashion-MNIST items on a canvas, each with five captions.

A made data set with the protocol of Flickr30k (1,000 test images, five captions each): the captions name
kinds, places and counts, so that an image is found only by a model that sees all of its items.
Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CANVAS = 56
ITEM = 28
CAPTIONS = 5
SHIFT = 3  # pixels an item may leave the middle of its quarter
EMPTY = -1

# Singular and plural of the ten kinds of Fashion-MNIST, in the order of its labels.
KINDS = (
    ("t-shirt", "t-shirts"),
    ("pair of trousers", "pairs of trousers"),
    ("pullover", "pullovers"),
    ("dress", "dresses"),
    ("coat", "coats"),
    ("sandal", "sandals"),
    ("shirt", "shirts"),
    ("sneaker", "sneakers"),
    ("bag", "bags"),
    ("ankle boot", "ankle boots"),
)
PLACES = ("top left", "top right", "bottom left", "bottom right")
_UPPER = ("upper left", "upper right", "lower left", "lower right")
_NUMBERS = ("one", "two", "three", "four")
# Most scenes are rich: a single item at one of four places allows 40 different scenes only.
_COUNTS = (0.05, 0.25, 0.35, 0.35)
_MOVED = 0.3  # share of neighbours in which an item moves rather than changes


@dataclass(frozen=True)
class Scenes:
    """S scenes."""

    kinds: np.ndarray  # [S, 4] the label at each place, -1 where it is empty
    images: np.ndarray  # [S, 56, 56] uint8

    def captions(self, index: int) -> list[str]:
        """The five captions of a scene."""
        return describe(self.kinds[index])


def make(
    images: np.ndarray, labels: np.ndarray, count: int, random: np.random.RandomState, *, distinct: bool
) -> Scenes:
    """`count` scenes of items from `images` [N, 28, 28] uint8 with `labels` [N].

    distinct: no two scenes hold the same kinds at the same places (the test split, where a caption
    must point to one image). numpy freezes RandomState, so a seed gives the same scenes everywhere.
    """
    kinds = layouts(count, random, distinct=distinct)
    return Scenes(kinds, place(images, kinds, indices_by_label(labels), random))


def indices_by_label(labels: np.ndarray) -> list[np.ndarray]:
    """For each label, where it stands in `labels` [N]."""
    return [np.flatnonzero(labels == label) for label in range(len(KINDS))]


def layouts(count: int, random: np.random.RandomState, *, distinct: bool) -> np.ndarray:
    """[count, 4] labels, -1 at empty places; one to four items each."""
    rows: list[tuple[int, ...]] = []
    seen: set[tuple[int, ...]] = set()
    while len(rows) < count:
        amount = 1 + random.choice(len(_COUNTS), p=_COUNTS)
        row = np.full(len(PLACES), EMPTY)
        row[random.permutation(len(PLACES))[:amount]] = random.randint(len(KINDS), size=amount)
        key = tuple(row.tolist())
        if distinct and key in seen:
            continue
        seen.add(key)
        rows.append(key)
    return np.asarray(rows)


def place(
    images: np.ndarray, kinds: np.ndarray, by_label: Sequence[np.ndarray], random: np.random.RandomState
) -> np.ndarray:
    """Canvases [S, 56, 56] uint8 of scenes with `kinds` [S, 4], of items drawn from `by_label`: for each
    label, the indices of its `images`."""
    chosen = np.zeros_like(kinds)
    for label, indices in enumerate(by_label):
        where = kinds == label
        chosen[where] = random.choice(indices, int(where.sum()))
    return draw(images, kinds, chosen, random.randint(-SHIFT, SHIFT + 1, (len(kinds), len(PLACES), 2)))


def neighbours(kinds: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Scenes [S, 4] that differ from `kinds` [S, 4] in one item: of another kind, or at another place."""
    out = kinds.copy()
    for row in out:
        full, empty = np.flatnonzero(row != EMPTY), np.flatnonzero(row == EMPTY)
        item = random.choice(full)
        if len(empty) and random.rand() < _MOVED:
            row[random.choice(empty)] = row[item]
            row[item] = EMPTY
        else:
            row[item] = (row[item] + random.randint(1, len(KINDS))) % len(KINDS)
    return out


def draw(images: np.ndarray, kinds: np.ndarray, chosen: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Canvases [S, 56, 56] uint8: item `chosen` [S, 4] of `images` in each quarter that is not empty.

    shifts [S, 4, 2]: rows and columns by which an item leaves its quarter; what would cross the border
    of the canvas stays inside, and overlapping items keep the brighter pixel.
    """
    canvas = np.zeros((len(kinds), CANVAS, CANVAS), np.uint8)
    offsets = np.arange(ITEM)
    for quarter in range(len(PLACES)):
        scenes = np.flatnonzero(kinds[:, quarter] != EMPTY)
        corner = np.array([quarter // 2, quarter % 2]) * ITEM
        start = np.clip(corner + shifts[scenes, quarter], 0, CANVAS - ITEM)
        rows = (start[:, :1] + offsets)[:, :, None]
        columns = (start[:, 1:] + offsets)[:, None, :]
        index = (scenes[:, None, None], rows, columns)
        canvas[index] = np.maximum(canvas[index], images[chosen[scenes, quarter]])
    return canvas


def describe(kinds: np.ndarray) -> list[str]:
    """Five captions of a scene with `kinds` [4] (-1: empty); each determines the scene."""
    items = [(place, int(kind)) for place, kind in enumerate(kinds) if kind != EMPTY]
    number = f"{_NUMBERS[len(items) - 1]} {'item' if len(items) == 1 else 'items'}"
    counted = _join([_count(kind, sum(k == kind for _, k in items)) for kind in _kinds_of(items)])
    by_kind = [
        f"{_the(kind, len(places))} at the {_join([PLACES[place] for place in places])}"
        for kind in _kinds_of(items)
        if (places := [place for place, k in items if k == kind])
    ]
    rows = []
    for row, word in ((0, "top"), (2, "bottom")):
        parts = [
            f"{_a(kind)} on the {'left' if place % 2 == 0 else 'right'}"
            for place, kind in items
            if place in (row, row + 1)
        ]
        rows.append(f"in the {word} row {_join(parts) if parts else 'nothing'}")
    return [
        _join([f"{_a(kind)} at the {PLACES[place]}" for place, kind in items]),
        f"{counted}: {_join(by_kind)}",
        ", ".join(rows),
        ", ".join(f"{_UPPER[place]} {_a(kind)}" for place, kind in reversed(items)),
        f"{number}: " + ", ".join(f"{KINDS[kind][0]} {_UPPER[place]}" for place, kind in items),
    ]


def _kinds_of(items: list[tuple[int, int]]) -> list[int]:
    return sorted({kind for _, kind in items})


def _a(kind: int) -> str:
    word = KINDS[kind][0]
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _the(kind: int, count: int) -> str:
    return f"the {KINDS[kind][count > 1]}"


def _count(kind: int, count: int) -> str:
    return _a(kind) if count == 1 else f"{_NUMBERS[count - 1]} {KINDS[kind][1]}"


def _join(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
