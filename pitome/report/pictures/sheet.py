"""What stands where on a page: methods below one another, layers or images beside one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pitome.errors import UsageError
from pitome.report.pictures import cells
from pitome.report.pictures.colours import NONE, colour
from pitome.report.pictures.groups import DROPPED, Followed
from pitome.report.pictures.page import GREEN, GREY, INK, RED, Line, Sheet, Tile, TileRow
from pitome.tasks.subject import Samples

_TITLE = "Patches that ended up in one token"
_FEW = 6  # columns that have room for large cells
_SIDE, _PATCH = {True: 210, False: 140}, {True: 8, False: 5}  # pixels: of a cell, about; of a patch, at least


@dataclass(frozen=True)
class Shown:
    """One method on the page: what it did and the words that say how it was set."""

    followed: Followed
    setting: tuple[str, ...]


def lay_out(
    samples: Samples,
    unmerged: Followed,
    shown: Sequence[Shown],
    names: Sequence[str],
    caption: Sequence[str],
    after: Sequence[int] | None = None,
) -> Sheet:
    """A page for one image (layers side by side) or for several (images side by side).

    unmerged: the model without merging; shown: the methods, on these samples; names: of the classes;
    caption: lines below; after: how many layers have passed in the pictures shown (default: five
    depths for one image, the last for several). Raises UsageError for a depth the model does not have.
    """
    depth = len(unmerged.steps) - 1
    for number in after or ():
        if not 0 <= number <= depth:
            raise UsageError(f"after={number}: the model has {depth} layers; give numbers from 0 to {depth}")
    if len(samples.names) == 1:
        depths = after or sorted({1, *(-(-depth * i // 4) for i in range(1, 5))})
        return _by_layer(samples, unmerged, shown, names, caption, depths)
    return _by_image(samples, unmerged, shown, names, caption, after or [depth])


def _by_layer(
    samples: Samples,
    unmerged: Followed,
    shown: Sequence[Shown],
    names: Sequence[str],
    caption: Sequence[str],
    depths: Sequence[int],
) -> Sheet:
    pixels, label = samples.pixels[0], samples.labels[0]
    first = unmerged.steps[0]
    grid, depth = first.groups.shape[1:], len(unmerged.steps) - 1
    scale = _scale(1 + len(depths), max(grid))
    original = Tile(cells.plain(pixels, grid, scale), (Line(f"{first.tokens} tokens", GREY),))
    rows = []
    for method in shown:
        prediction = guess(method.followed, 0, label, names)
        head = (Line(method.followed.method, bold=True), *(Line(word, GREY) for word in method.setting))
        # In the head, words have room to be read; below a cell they would be cut.
        head = (*head, Line(""), *(prediction and (Line("prediction", GREY), *prediction)))
        painted = _painted(pixels, method.followed, 0, scale, depths)
        foot = [(Line(f"{method.followed.steps[n].tokens} tokens", GREY),) for n in depths]
        row = [Tile(image, words) for image, words in zip(painted, foot, strict=True)]
        rows.append(TileRow(head, [original, *row]))
        if method.followed.ranks:
            rows.append(
                TileRow(
                    _energy_head(method), [None, *(_energy(method.followed, n, 0, scale) for n in depths)]
                )
            )
    known = () if samples.titles[0] is None else (Line(f"label: {samples.titles[0]}", GREY),)
    prediction = guess(unmerged, 0, label, names)
    columns = [
        (Line("input", bold=True), *known, *(prediction and (Line("unmerged model:", GREY), *prediction)))
    ]
    columns += [(Line(f"after {n} of {depth} layers", bold=True),) for n in depths]
    return Sheet(_TITLE, columns, rows, _legend(shown, scale), caption)


def _by_image(
    samples: Samples,
    unmerged: Followed,
    shown: Sequence[Shown],
    names: Sequence[str],
    caption: Sequence[str],
    depths: Sequence[int],
) -> Sheet:
    first = unmerged.steps[0]
    grid, depth = first.groups.shape[1:], len(unmerged.steps) - 1
    scale = _scale(len(samples.names), max(grid))
    count, pixels = range(len(samples.names)), samples.pixels
    head: tuple[Line, ...] = (
        Line("input", bold=True),
        Line("unmerged model", GREY),
        Line(f"{first.tokens} tokens", GREY),
    )
    foot = [guess(unmerged, i, samples.labels[i], names) for i in count]
    rows = [TileRow(head, [Tile(cells.plain(pixels[i], grid, scale), foot[i]) for i in count])]
    painted = [[_painted(pixels[i], method.followed, i, scale, depths) for i in count] for method in shown]
    for place, (method, pictures) in itertools.product(range(len(depths)), zip(shown, painted, strict=True)):
        number = depths[place]
        head = (
            Line(method.followed.method, bold=True),
            *(Line(word, GREY) for word in method.setting),
            Line(f"after {number} of {depth} layers", GREY),
            Line(f"{method.followed.steps[number].tokens} tokens", GREY),
        )
        guesses = [
            guess(method.followed, i, samples.labels[i], names) if number == depths[-1] else () for i in count
        ]
        rows.append(TileRow(head, [Tile(pictures[i][place], guesses[i]) for i in count]))
        if method.followed.ranks:
            rows.append(
                TileRow(_energy_head(method), [_energy(method.followed, number, i, scale) for i in count])
            )
    columns = [
        (Line(name, bold=True),) if title is None else (Line(title, bold=True), Line(name, GREY))
        for name, title in zip(samples.names, samples.titles, strict=True)
    ]
    return Sheet(_TITLE, columns, rows, _legend(shown, scale), caption)


def _painted(
    pixels: np.ndarray, followed: Followed, image: int, scale: int, depths: Sequence[int]
) -> list[np.ndarray]:
    """The groups of one image at each of `depths`; colours are passed on from layer to layer."""
    out, before = {}, None
    for number, step in enumerate(followed.steps):
        before = colour(step.groups[image], step.size[image], before)
        if number in depths:
            out[number] = cells.grouped(pixels, step.groups[image], before, scale)
    return [out[number] for number in depths]


def _energy(followed: Followed, number: int, image: int, scale: int) -> Tile:
    """The energies that layer `number` ranked by; an empty frame where it ranked nothing."""
    step = followed.steps[number]
    if step.energy is None:
        blank = np.full((*(np.array(step.groups.shape[1:]) * scale), 3), 244, dtype=np.uint8)
        return Tile(blank, (Line("nothing merged here", GREY),))
    values = step.energy[image]
    low, high = np.nanmin(values), np.nanmax(values)
    return Tile(cells.heat(values, scale), (Line(f"{low:.2f} to {high:.2f}", GREY),))


def _energy_head(method: Shown) -> tuple[Line, ...]:
    return (Line("energy", bold=True), Line(f"by which {method.followed.method}", GREY), Line("ranked", GREY))


def guess(followed: Followed, image: int, label: int | None, names: Sequence[str]) -> tuple[Line, ...]:
    """The predicted class and its probability, with a mark where the label is known."""
    if followed.probabilities is None:
        return ()
    chosen = int(followed.probabilities[image].argmax())
    share = 100 * followed.probabilities[image][chosen]
    right = label is not None and label == chosen
    mark = "" if label is None else "✓ " if right else "✗ "
    ink = INK if label is None else GREEN if right else RED
    return (Line(f"{mark}{names[chosen]} {share:.0f} %", ink),)


def _scale(columns: int, patches: int) -> int:
    """Pixels of a patch, so that cells are about equally large whatever the model's grid."""
    few = columns <= _FEW
    return max(round(_SIDE[few] / patches), _PATCH[few])


def _legend(shown: Sequence[Shown], scale: int) -> list[tuple[np.ndarray, str]]:
    """Only what can be seen on the page."""
    size, light = 10, np.full((2, 3, 3), 205, dtype=np.uint8)
    steps = [step for method in shown for step in method.followed.steps]
    two = np.array([[5, 5, 6], [5, 6, 6]])
    entries = [
        (
            cells.grouped(light, two, np.array([[0, 0, 1], [0, 1, 1]]), size),
            "merged: one outline and colour is one token (parts that do not touch share the colour)",
        )
    ]
    if any((step.size == 1).any() for step in steps):
        alone = np.arange(6).reshape(2, 3)
        entries.append((cells.grouped(light, alone, np.full((2, 3), NONE), size), "on its own: the image"))
    if any((step.groups == DROPPED).any() for step in steps):
        gone = np.full((2, 3), DROPPED)
        entries.append((cells.grouped(light, gone, np.full((2, 3), NONE), size), "dropped"))
    if any(method.followed.ranks for method in shown):
        bar = cells.ramp(np.linspace(0, 1, 90))[None].repeat(2 * size, axis=0)
        entries.append((bar, "energy, low (kept: unlike the others) to high (merged: much like them)"))
    return entries
