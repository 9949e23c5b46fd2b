"""Scenes of coloured shapes in nine places, each with questions about what is where and how often; made here.

Every scene follows from its split and number alone (numpy freezes `RandomState`), and is drawn from integers
only, so that it has the same pixels everywhere. A question is answered by no single place of the image: by an
item that has to be found first, by the item beside it, or by a count. Imports no torch.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from pitome.errors import DataError
from pitome.sources.checksums import checksum
from pitome.tasks.vqa.questions import Question, Questions, Sight, make_question

SIDE = 112  # pixels
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (50, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 50),
    "purple": (160, 60, 190),
    "white": (235, 235, 235),
}
PLACES = tuple(
    f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "centre", "right")
)
NUMBERS = ("zero", "one", "two", "three", "four", "five")
KINDS = ("count", "colour", "shape", "where", "beside")  # of questions, in the order they are asked in
SCENES = {"test": 2_000, "train": 16_000, "validation": 400}
ROUNDS = {"test": 1, "train": 3, "validation": 1}  # questions of each kind about a scene
_VERSION = 1  # raised when scenes are drawn or asked about otherwise
_SEEDS = {"test": 1, "train": 2, "validation": 3}
_COLOURS = tuple(COLOURS)
_EMPTY = -1
_GRID = 3
_MOST = 8  # items in a scene
_RADII = (7, 11)  # pixels, least and most
_NOTHING = 0.15  # of the questions what is beside an item: there is nothing
_STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


def scenes_qa_questions(split: str, *, source: str, root: str | None) -> Questions:
    """The questions of `test`, `train` or `validation`, `ROUNDS` times the five `KINDS` about each of its
    `SCENES`, each with one answer. Raises DataError for a source: they are made here."""
    if root is not None or source == "hub":
        given = f"data.root={root}" if root is not None else f"source={source}"
        raise DataError(f"scenes_qa is made on the spot; leave out {given}")
    questions = list(_asked(split))
    lines = [text for q in questions for text in (q.image, q.text, *q.answers)]
    return Questions(
        source="package",
        revision=checksum([f"version {_VERSION}", *lines]),
        questions=questions,
        read=lambda question: Image.fromarray(draw(split, int(question.image))),
        stamp=f"version {_VERSION}",
        sights=lambda image: sights(split, int(image)),
    )


@functools.cache
def _asked(split: str) -> tuple[Question, ...]:
    return tuple(
        make_question(f"{number}-{at}", str(number), text, [answer])
        for number in range(SCENES[split])
        for at, (text, answer) in enumerate(ask(split, number))
    )


def ask(split: str, number: int) -> list[tuple[str, str]]:
    """The questions about a scene and their answers."""
    random = _random(split, number)
    items, lead = _layout(random)
    asked = []
    for at in range(ROUNDS[split]):
        asked += [
            _count(items, lead if at == 0 else None, random),
            *_at_place(items, random),
            _where(items, random),
            _beside(items, random),
        ]
    return asked


def layout(split: str, number: int) -> np.ndarray:
    """[9] the item at each of `PLACES`, its colour * 4 + its shape; -1 where there is none."""
    return _layout(_random(split, number))[0]


def draw(split: str, number: int) -> np.ndarray:
    """A scene, [112, 112, 3] uint8: every item in its place, not touching another."""
    random = np.random.RandomState([_SEEDS[split], number, 2])
    canvas = np.empty((SIDE, SIDE, 3), np.int64)
    canvas[:] = random.randint(20, 90) + random.randint(-8, 9, (SIDE, SIDE, 1))
    for colour, shape, row, column, radius in _drawn(split, number):
        y, x = np.arange(SIDE)[:, None] - row, np.arange(SIDE)[None, :] - column
        canvas[_mask(shape, y, x, radius)] = np.array(COLOURS[colour]) + random.randint(-20, 21, 3)
    return canvas.clip(0, 255).astype(np.uint8)


def sights(split: str, number: int) -> list[Sight]:
    """What is seen where in a scene: of every item the colour and the shape."""
    return [
        Sight(row / SIDE, column / SIDE, (colour, shape))
        for colour, shape, row, column, _ in _drawn(split, number)
    ]


def _drawn(split: str, number: int) -> list[tuple[str, str, int, int, int]]:
    """Colour, shape, row and column of the middle, and radius of each item."""
    items = layout(split, number)
    random = np.random.RandomState([_SEEDS[split], number, 1])
    drawn = []
    for place in np.flatnonzero(items != _EMPTY):
        radius = random.randint(_RADII[0], _RADII[1] + 1)
        cell = np.array(divmod(int(place), _GRID)) * SIDE // _GRID
        row, column = (cell + radius + 1 + random.randint(0, SIDE // _GRID - 2 * radius - 1, 2)).tolist()
        drawn.append((*_name(items[place]), row, column, radius))
    return drawn


def _random(split: str, number: int) -> np.random.RandomState:
    return np.random.RandomState([_SEEDS[split], number])


def _mask(shape: str, y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    """Which pixels [H, W] an item covers; y [H, 1], x [1, W]: from its middle, in pixels."""
    across, along = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
    masks: dict[str, np.ndarray] = {
        "circle": y * y + x * x <= radius * radius,
        "square": 8 * across <= 7 * radius,
        "triangle": (abs(y) <= radius) & (2 * abs(x) <= y + radius),
        "cross": (across <= radius) & (3 * along <= radius),
    }
    return masks[shape]


def _layout(random: np.random.RandomState) -> tuple[np.ndarray, tuple[int | None, int | None, int]]:
    """A scene with a number of items of a kind, drawn first so that every number is as likely for every
    kind; second: colour and shape of that kind (None: any, of one of both) and the number."""
    form, number = random.randint(3), random.randint(len(NUMBERS))
    colour = None if form == 0 else random.randint(len(COLOURS))
    shape = None if form == 1 else random.randint(len(SHAPES))
    pairs = np.arange(len(COLOURS) * len(SHAPES))
    fits = _fit(pairs, colour, shape)
    total = random.randint(max(number + 1, 3), _MOST + 1)
    others = random.permutation(pairs[~fits])  # the first of them is there once, to be asked about
    chosen = [random.choice(pairs[fits], number), others[:1], random.choice(others[1:], total - number - 1)]
    items = np.full(len(PLACES), _EMPTY)
    items[random.permutation(len(PLACES))[:total]] = np.concatenate(chosen)
    return items, (colour, shape, number)


def _fit(items: np.ndarray, colour: int | None, shape: int | None) -> np.ndarray:
    """Which of `items` are of a colour and a shape; None: of any."""
    fits: np.ndarray = items != _EMPTY
    if colour is not None:
        fits &= items // len(SHAPES) == colour
    if shape is not None:
        fits &= items % len(SHAPES) == shape
    return fits


def _count(
    items: np.ndarray, lead: tuple[int | None, int | None, int] | None, random: np.random.RandomState
) -> tuple[str, str]:
    """How many items of a kind there are: of the one the scene was made for, or of any, each number that
    some kind has being as likely."""
    if lead is None:
        kinds: dict[int, list[tuple[int | None, int | None]]] = {}
        for colour in (None, *range(len(COLOURS))):
            for shape in (None, *range(len(SHAPES))):
                number = int(_fit(items, colour, shape).sum())
                if (colour, shape) != (None, None) and number < len(NUMBERS):
                    kinds.setdefault(number, []).append((colour, shape))
        numbers = sorted(kinds)
        number = numbers[random.randint(len(numbers))]
        lead = *kinds[number][random.randint(len(kinds[number]))], number
    colour, shape, number = lead
    what = "" if colour is None else f"{_COLOURS[colour]} "
    what += "items" if shape is None else f"{SHAPES[shape]}{'es' if SHAPES[shape] == 'cross' else 's'}"
    return f"how many {what} are there?", NUMBERS[number]


def _at_place(items: np.ndarray, random: np.random.RandomState) -> list[tuple[str, str]]:
    """What colour and what shape items at two places have."""
    pairs = []
    for kind in ("colour", "shape"):
        place = random.choice(np.flatnonzero(items != _EMPTY))
        colour, shape = _name(items[place])
        pairs.append(
            (f"what {kind} is the item at the {PLACES[place]}?", colour if kind == "colour" else shape)
        )
    return pairs


def _where(items: np.ndarray, random: np.random.RandomState) -> tuple[str, str]:
    place = random.choice(_alone(items))
    return f"where is the {' '.join(_name(items[place]))}?", PLACES[place]


def _beside(items: np.ndarray, random: np.random.RandomState) -> tuple[str, str]:
    """What is next to an item, or that nothing is."""
    full: list[tuple[str, int, int]] = []
    empty: list[tuple[str, int, int]] = []
    for place in _alone(items):
        for step, (down, right) in _STEPS.items():
            row, column = divmod(int(place), _GRID)
            row, column = row + down, column + right
            if 0 <= row < _GRID and 0 <= column < _GRID:
                other = items[row * _GRID + column]
                (empty if other == _EMPTY else full).append((step, items[place], other))
    chosen = empty if not full or (empty and random.rand() < _NOTHING) else full
    step, item, other = chosen[random.randint(len(chosen))]
    answer = "nothing" if other == _EMPTY else " ".join(_name(other))
    return f"what is {step} the {' '.join(_name(item))}?", answer


def _alone(items: np.ndarray) -> np.ndarray:
    """The places of items of which there are no others like them."""
    return np.flatnonzero([item != _EMPTY and (items == item).sum() == 1 for item in items])


def _name(item: int) -> tuple[str, str]:
    colour, shape = divmod(int(item), len(SHAPES))
    return _COLOURS[colour], SHAPES[shape]
