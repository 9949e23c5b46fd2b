"""How methods look: one colour and one marker each, in every plot and on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pitome.records.identity import CONTROLS

Line = Literal["-", "--", ":", "-."]

PALETTE: tuple[tuple[str, str], ...] = (
    ("#0063bb", "#096fae"),
    ("#ba4900", "#d55f00"),
    ("#5b9563", "#049f74"),
    ("#cb7aa5", "#cb78a8"),
    ("#d38100", "#e89f04"),
    ("#179dd4", "#5abcf1"),
    ("#5d3f85", "#8680ea"),
    ("#b2182b", "#ff8a8a"),
    ("#4d7c0f", "#a3d65c"),
    ("#0f766e", "#5fd3c6"),
)
"""(on white, on black). Close to Okabe and Ito (2008), moved until a line has a contrast of at least 3 to its
ground and the first seven differ by 15 and more in CIELAB, also with any kind of colour blindness
(tests/report/test_style.py)."""

GREYS: tuple[tuple[str, str], ...] = (("#808080", "#9a9a9a"), ("#595959", "#c8c8c8"), ("#6e6e6e", "#b0b0b0"))
"""(on white, on black), of the controls in their order."""

COLOURS = (*PALETTE, *GREYS)
"""All colours of lines, (on white, on black)."""

METHODS = ("pitome", "tome", "tofu", "diffrate", "dct", "mctf", "crossget")
"""Methods in the order of PALETTE and MARKERS; any other method takes what is left."""

MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
    "d": "diamond-tall",
    "8": "octagon",
    "p": "pentagon",
    "*": "star",
    "X": "x",
    "P": "cross",
}
"""Markers of matplotlib -> those of plotly."""

LINES: dict[Line, str] = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
"""Kinds of line of matplotlib -> those of plotly."""


@dataclass(frozen=True)
class Look:
    """How one line of a plot looks."""

    place: int  # of its colour in `COLOURS`
    marker: str  # of MARKERS
    line: Line
    control: bool = False

    @property
    def colour(self) -> str:
        """On white."""
        return COLOURS[self.place][0]


def method_of(label: str) -> str:
    """The method's name in the label of a line: `tome` of `tome_repo`, `ToMe, repo` and `ToMe (alpha=0)`."""
    return re.split(r"[ ,(]", label)[0].removesuffix("_repo").lower()


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Label -> its look. The method gives the colour, and its variants share it: the authors' code (`_repo`)
    has the method's marker and a dashed line, changed options have other markers and lines. Controls are
    grey. Where all labels are variants of one method, they differ in colour as well.
    """
    methods = {label: method_of(label) for label in labels}
    others = [name for name in dict.fromkeys(methods.values()) if name not in (*METHODS, *CONTROLS)]
    order = [*METHODS, *others]
    alone = len(set(methods.values())) == 1
    markers, lines = list(MARKERS), list(LINES)
    out: dict[str, Look] = {}
    variants: Counter[str] = Counter()
    for label, name in methods.items():
        if name in CONTROLS:
            number = CONTROLS.index(name)
            out[label] = Look(len(PALETTE) + number, markers[-1 - number], lines[1 + number], control=True)
            continue
        rest = label.lower().removeprefix(name).strip(" ,()_")
        variants[name] += rest != ""
        number = variants[name] if rest else 0
        marker = order.index(name) + (0 if rest == "repo" else number)
        out[label] = Look(
            (order.index(name) + (number if alone else 0)) % len(PALETTE),
            markers[marker % len(markers)],
            "-" if not rest else "--" if rest == "repo" else lines[(number + 1) % len(lines)],
        )
    return out
