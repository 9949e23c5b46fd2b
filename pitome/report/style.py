"""How methods look: one colour and one marker each, in every plot and on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pitome.records.identity import CONTROLS

LineStyle = Literal["-", "--", ":", "-."]

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
    ("#8c6d31", "#d9c27a"),
    ("#d6006c", "#ff6fb5"),
    ("#444b9e", "#aab2ff"),
)
"""(on white, on black). Close to Okabe and Ito (2008), moved until a line has a contrast of at least 3 to its
ground and the first seven differ by 15 and more in CIELAB, also with any kind of colour blindness
(tests/report/test_style.py)."""

GREYS: tuple[tuple[str, str], ...] = (("#808080", "#9a9a9a"), ("#595959", "#c8c8c8"), ("#6e6e6e", "#b0b0b0"))
"""(on white, on black), of the controls in their order."""

COLOURS = (*PALETTE, *GREYS, ("#1c2128", "#e8ebf0"))
"""All colours of lines, (on white, on black); the last one is that of the unmerged model."""

METHODS = ("pitome", "tome", "tofu", "diffrate", "dct", "mctf", "crossget")
"""Methods in the order of PALETTE and MARKERS, all told apart at any kind of colour blindness."""

LATER = ("atc", "evit", "ppt", "repshift")
"""The other methods, after those; a method of the user's own takes what is left."""

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

UNMERGED = ("unmerged", "none", "-")
"""What labels call the model without merging."""

LINES: dict[LineStyle, str] = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
"""Kinds of line of matplotlib -> those of plotly."""
_CONTROL_LINES: tuple[LineStyle, ...] = ("--", ":", "-.")
_VARIANT_LINES: tuple[LineStyle, ...] = ("-", ":", "-.")


@dataclass(frozen=True)
class Look:
    """How one line of a plot looks."""

    place: int  # of its colour in `COLOURS`
    marker: str  # of MARKERS
    line: LineStyle
    control: bool = False

    @property
    def colour(self) -> str:
        """On white."""
        return COLOURS[self.place][0]


def method_of(label: str) -> str:
    """The method's name in the label of a line: `tome` of `tome_repo`, `ToMe, repo` and `ToMe (alpha=0)`."""
    return re.split(r"[,(]", label)[0].strip().removesuffix("_repo").lower()


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Label -> its look. The method gives the colour, and its variants share it: the authors' code (`_repo`)
    has the method's marker and a dashed line, changed options have other markers and lines. Controls are
    grey, the unmerged model is black. Where all methods are variants of one, they differ in colour as well.
    """
    methods = {label: method_of(label) for label in labels}
    merging = set(methods.values()).difference(UNMERGED, CONTROLS)
    others = [name for name in dict.fromkeys(methods.values()) if name in merging.difference(METHODS, LATER)]
    order = [*METHODS, *LATER, *others]
    markers = list(MARKERS)
    out: dict[str, Look] = {}
    variants: Counter[str] = Counter()
    for label in sorted(methods, key=_is_variant):  # the method itself before its variants
        name = methods[label]
        if name in CONTROLS:
            number = CONTROLS.index(name)
            out[label] = Look(len(PALETTE) + number, markers[-1 - number], _CONTROL_LINES[number], True)
        elif name in UNMERGED:
            out[label] = Look(len(COLOURS) - 1, markers[0], "-")
        else:
            repo = _options(label) in ({"repo"}, {"authors' code"})
            number = 0 if repo else variants[name]
            variants[name] += not repo
            base = order.index(name)
            out[label] = Look(
                (base + number * (len(merging) == 1)) % len(PALETTE),
                markers[(base + number) % len(markers)],
                "--" if repo else _VARIANT_LINES[number % len(_VARIANT_LINES)],
            )
    return {label: out[label] for label in methods}


def _options(label: str) -> set[str]:
    """What the label says besides the method; nothing for the method as published."""
    if label.endswith("_repo"):
        return {"repo"}
    return set(re.split(r", | \(", label.rstrip(")"))[1:]) - {"as published"}


def _is_variant(label: str) -> bool:
    return bool(_options(label))
