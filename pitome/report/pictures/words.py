"""The tokens of a text as boxes in the colours of their groups. Arrays [H, W, 3] of uint8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pitome.report.pictures.colours import NONE, PALETTE
from pitome.report.pictures.groups import DROPPED
from pitome.report.pictures.page import GREY, INK, font

_TINT = 0.42  # share of the group's colour; the rest is white
_BOX, _PAD, _GAP, _LINE = 26, 6, 5, 34  # pixels: height, room beside a word, between words, between lines
_FRAME = (196, 200, 208)
_GONE = (233, 234, 237)


def boxes(pieces: Sequence[str], groups: np.ndarray, colours: np.ndarray, width: int) -> np.ndarray:
    """Word pieces [N] one after the other, broken into lines of `width` pixels.

    groups, colours: [N], as `groups.Step` and `colours.colour` give them for a grid of one row. Merged
    pieces have the colour and the number of their token, dropped ones are struck out.
    """
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups[colours != NONE].tolist()), 1)}
    places, lines = _places(pieces, colours, width)
    image = Image.new("RGB", (width, lines * _LINE), "white")
    draw = ImageDraw.Draw(image)
    for piece, group, colour, (x, y, wide) in zip(
        pieces, groups.tolist(), colours.tolist(), places, strict=True
    ):
        merged, gone = colour != NONE, group == DROPPED
        fill = _tinted(colour) if merged else _GONE if gone else "white"
        draw.rounded_rectangle((x, y, x + wide - 1, y + _BOX), 5, fill, _FRAME)
        middle = y + _BOX // 2
        word = _shown(piece)
        draw.text((x + _PAD, middle), word, GREY if gone else INK, font(14), anchor="lm")
        if gone:
            draw.line((x + 3, middle, x + wide - 4, middle), GREY, 2)
        if merged:
            draw.text((x + wide - _PAD, y + 2), str(numbers[group]), INK, font(9), anchor="ra")
    return np.asarray(image)


def _places(pieces: Sequence[str], colours: np.ndarray, width: int) -> tuple[list[tuple[int, int, int]], int]:
    """Left, top and width of every piece, and the number of lines. A piece that goes on with a word touches
    the one in front."""
    x = line = 0
    out: list[tuple[int, int, int]] = []
    for i, piece in enumerate(pieces):
        room = 12 if colours[i] != NONE else 0  # for the number
        wide = min(int(font(14).getlength(_shown(piece))) + 2 * _PAD + room, width)
        gap = 0 if not out or x == 0 or piece.startswith("##") else _GAP
        if x + gap + wide > width:
            x, gap, line = 0, 0, line + 1
        out.append((x + gap, line * _LINE, wide))
        x += gap + wide
    return out, line + 1


def _shown(piece: str) -> str:
    return piece.removeprefix("##")


def _tinted(colour: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * (1 - _TINT) + _TINT * int(part)) for part in PALETTE[colour])
    return red, green, blue
