"""Rows of labelled cells on one page, as an image. Knows nothing of tokens."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (28, 30, 36)
GREY = (104, 108, 118)
GREEN = (22, 122, 60)
RED = (190, 32, 38)

_MARGIN, _GAP, _LINE = 28, 10, 19
_HEAD = 168  # width of the column in front of the cells
_LEAST = 760  # width of a page whose cells need less


@dataclass(frozen=True)
class Line:
    """One line; it is cut to the room it has."""

    words: str
    colour: tuple[int, int, int] = INK
    bold: bool = False


@dataclass(frozen=True)
class Tile:
    """A picture and the lines below it."""

    image: np.ndarray  # [h, w, 3] of uint8
    foot: tuple[Line, ...] = ()


@dataclass(frozen=True)
class TileRow:
    """Tiles beside one another."""

    head: tuple[Line, ...]  # the lines to their left
    cells: Sequence[Tile | None]  # None leaves a place empty


@dataclass(frozen=True)
class Sheet:
    """All that stands in one image."""

    title: str
    columns: Sequence[tuple[Line, ...]]  # the lines above each column
    rows: Sequence[TileRow]
    legend: Sequence[tuple[np.ndarray, str]]  # swatches [h, w, 3] and what they mean
    caption: Sequence[str] = ()  # the lines at the bottom


def render(page: Sheet) -> Image.Image:
    """Draw the page; every cell's picture keeps its own pixels."""
    cells = [cell for row in page.rows for cell in row.cells if cell is not None]
    wide = max(cell.image.shape[1] for cell in cells)
    width = max(2 * _MARGIN + _HEAD + len(page.columns) * (wide + _GAP) - _GAP, _LEAST)
    inside = width - 2 * _MARGIN
    captions = [line for text in page.caption for line in _wrap(text, inside, 13)]
    keys = _flow(page.legend, inside)
    above = max(len(lines) for lines in page.columns)
    heights = [_height(row) for row in page.rows]
    height = (
        2 * _MARGIN
        + 36
        + above * _LINE
        + sum(heights)
        + 14
        + len(keys) * (_LINE + 9)
        + 6
        + len(captions) * _LINE
    )
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left = _MARGIN + _HEAD
    y = _MARGIN
    draw.text((_MARGIN, y), _fit(page.title, font(20, True), inside), INK, font(20, True))
    y += 36
    for i, lines in enumerate(page.columns):
        x = left + i * (wide + _GAP) + wide // 2
        for j, line in enumerate(lines):
            # at the bottom, beside the cells
            _write(draw, (x, y + (above - len(lines) + j) * _LINE), line, wide, "ma")
    y += above * _LINE
    for row, tall in zip(page.rows, heights, strict=True):
        for j, line in enumerate(row.head):
            _write(draw, (_MARGIN, y + 4 + j * _LINE), line, _HEAD - 14, "la")
        for i, cell in enumerate(row.cells):
            if cell is None:
                continue
            x = left + i * (wide + _GAP)
            image.paste(Image.fromarray(cell.image), (x, y))
            for j, line in enumerate(cell.foot):
                place = (x + wide // 2, y + cell.image.shape[0] + 4 + j * _LINE)
                _write(draw, place, line, wide, "ma")
        y += tall
    y += 14
    for keys_of_line in keys:
        for x, swatch, meaning in keys_of_line:
            image.paste(Image.fromarray(swatch), (_MARGIN + x, y))
            draw.text((_MARGIN + x + swatch.shape[1] + 8, y + 2), meaning, INK, font(13))
        y += _LINE + 9
    y += 6
    for caption in captions:
        draw.text((_MARGIN, y), caption, GREY, font(13))
        y += _LINE
    return image


def _height(row: TileRow) -> int:
    cells = [cell for cell in row.cells if cell is not None]
    below = max((len(cell.foot) for cell in cells), default=0)
    picture = max((cell.image.shape[0] for cell in cells), default=0)
    return max(picture + below * _LINE, len(row.head) * _LINE) + _GAP + 4


def _flow(legend: Sequence[tuple[np.ndarray, str]], width: int) -> list[list[tuple[int, np.ndarray, str]]]:
    """Lines of (left end, swatch, meaning), broken where the width ends."""
    lines: list[list[tuple[int, np.ndarray, str]]] = [[]]
    x = 0
    for swatch, words in legend:
        meaning = _fit(words, font(13), width - swatch.shape[1] - 8)
        room = swatch.shape[1] + 8 + int(font(13).getlength(meaning))
        if x and x + room > width:
            lines.append([])
            x = 0
        lines[-1].append((x, swatch, meaning))
        x += room + 30
    return lines


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: Line, room: int, anchor: str) -> None:
    face = font(13, text.bold)
    draw.text(place, _fit(text.words, face, room), text.colour, face, anchor)


def _fit(words: str, face: ImageFont.FreeTypeFont, room: int) -> str:
    if face.getlength(words) <= room:
        return words
    fitting = bisect.bisect(range(len(words)), room, key=lambda n: math.ceil(face.getlength(words[:n] + "…")))
    return words[: max(fitting - 1, 0)].rstrip() + "…"


def _wrap(words: str, room: int, size: int) -> list[str]:
    face = font(size)
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_fit(line, face, room) for line in lines]


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it, so that every machine has it."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
