"""Figures of plotly as JSON. Colours and fonts are the page's: it fills them in, for light and dark.

Of a trace, `meta.series` says which of the page's colours it takes, -1 the one of text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitome.records.identity import CONTROLS

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "hexagon")
_ROW = 38  # pixels for a name of two lines
_FEW, _HEIGHT, _ENTRY = 6, 462, 16  # entries of a legend, and pixels: of a figure with so many, for one more
_TOOLS = 76  # pixels below the axis: for its numbers, its name, and the buttons that appear there
_DASHES = ("dash", "dot", "dashdot")
_COLOURS = ("pitome", "tome", "dct", "tofu", "resize", "mctf", "diffrate", "crossget", "random", "stride")
"""Methods in the order of the page's colours, so that a method has one colour in every figure."""


@dataclass(frozen=True)
class Points:
    """A line or a cloud of one name. x, y: [n]; text: [n], shown on hover; low, high: [n], ends of the
    intervals of x, if it has some; series: equal for what takes equal colours, None: that of text; listed:
    in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float | str]
    text: Sequence[str]
    series: str | None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    joined: bool = True
    hollow: bool = False
    symbol: str | None = None
    listed: bool = True


def figure(
    points: Sequence[Points],
    x: str,
    y: str,
    order: Sequence[str],
    *,
    level: tuple[str, float] | None = None,
) -> str:
    """JSON of a figure. x, y: names of the axes; order: of the series, which gives their symbols; level: a
    horizontal line with its name."""
    colours = _colours(order)
    traces: list[dict[str, Any]] = []
    for one in points:
        place = order.index(one.series) if one.series in order else -1
        control = one.series in CONTROLS
        symbol = one.symbol or _SYMBOLS[place % len(_SYMBOLS)]
        arguments: dict[str, Any] = {}
        if one.low is not None and one.high is not None:
            arguments["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [h - v for h, v in zip(one.high, one.x, strict=True)],
                "arrayminus": [v - low for low, v in zip(one.low, one.x, strict=True)],
                "thickness": 1,
                "width": 3,
            }
        traces.append(
            {
                "type": "scatter",
                "x": list(one.x),
                "y": list(one.y),
                "name": one.name,
                "legendgroup": one.series or one.name,
                "showlegend": one.listed,
                "meta": {"series": colours.get(one.series or "", -1)},
                "mode": "lines+markers" if one.joined else "markers",
                "line": {"width": 1.5 if control else 2, "dash": _dash(one.series)},
                "marker": {"size": 8, "symbol": f"{symbol}-open" if one.hollow else symbol},
                "hovertext": list(one.text),
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
            | arguments
        )
    names = any(isinstance(value, str) for one in points for value in one.y)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": x, "standoff": 8}, "automargin": True, "zeroline": False},
        # Names are read from top to bottom, as in the table.
        "yaxis": {"title": {"text": y}, "automargin": True, "zeroline": False}
        | ({"autorange": "reversed", "type": "category"} if names else {}),
        "hovermode": "closest",
        "margin": {"l": 8, "r": 12, "t": 12, "b": _TOOLS},
        # Above, where no name of an axis is in its way.
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "xanchor": "left"},
    }
    if (listed := sum(one.listed for one in points)) > _FEW:
        layout["height"] = _HEIGHT + _ENTRY * (listed - _FEW)
    if names:
        layout["height"] = 172 + _ROW * len({value for one in points for value in one.y})
    if level is not None:
        name, height = level
        line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height}
        layout["shapes"] = [line | {"line": {"dash": "dash", "width": 1.2}}]
        label = {"xref": "paper", "x": 1, "xanchor": "right", "y": height, "yanchor": "bottom"}
        layout["annotations"] = [label | {"text": name, "showarrow": False}]
    return json.dumps({"data": traces, "layout": layout}, separators=(",", ":"))


def _colours(order: Sequence[str]) -> dict[str, int]:
    """Series -> place of its colour: that of its method, whose variants differ in their symbols; variants of
    one method alone, by their order."""
    methods = {one: one.partition(" (")[0].removesuffix("_repo").lower() for one in order}
    if len(set(methods.values())) <= 1:
        return {one: place for place, one in enumerate(order)}
    others = [name for name in dict.fromkeys(methods.values()) if name not in _COLOURS]
    known = [*_COLOURS, *others]
    return {one: known.index(name) for one, name in methods.items()}


def hover(name: str, facts: Mapping[str, str]) -> str:
    """What is shown of a point."""
    return "<br>".join([f"<b>{_escape(name)}</b>", *(f"{k}: {_escape(v)}" for k, v in facts.items() if v)])


def _dash(series: str | None) -> str:
    return _DASHES[CONTROLS.index(series)] if series in CONTROLS else "solid"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
