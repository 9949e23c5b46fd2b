"""Figures of plotly as JSON. Colours and fonts are the page's: it fills them in, for light and dark.

Of a trace, `meta.series` says which of the page's colours it takes, -1 the one of text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitome.report.style import COLOURS, LINES, MARKERS, Look, looks

_ROW = 38  # pixels for a name of two lines
_FEW, _HEIGHT, _ENTRY = 6, 462, 16  # entries of a legend, and pixels: of a figure with so many, for one more
_CONTROL_ROOM = 0.4  # of the height, for controls below the methods
_TOOLS = 76  # pixels below the axis: for its numbers, its name, and the buttons that appear there


@dataclass(frozen=True)
class Trace:
    """A line or a cloud of n points."""

    name: str
    x: Sequence[float]  # [n]
    y: Sequence[float | str]  # [n]
    text: Sequence[str]  # [n], shown on hover
    series: str | None  # equal for what looks equal; None: the colour of text
    low: Sequence[float] | None = None  # [n], ends of the intervals of x
    high: Sequence[float] | None = None  # [n]
    joined: bool = True
    hollow: bool = False
    symbol: str | None = None  # instead of that of the series
    listed: bool = True  # in the legend


def figure(
    traces: Sequence[Trace],
    x: str,
    y: str,
    order: Sequence[str],
    *,
    level: tuple[str, float] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """JSON of a figure.

    x, y: names of the axes; order: all series of the page's table, which give their looks (`style.looks`);
    level: a horizontal line with its name; band: its 95 % interval, which the picture holds as a whole, so
    that differences look as large as they are.
    """
    look_of = looks(order)
    data: list[dict[str, Any]] = []
    for trace in traces:
        look = look_of.get(trace.series or "")
        symbol = trace.symbol or (MARKERS[look.marker] if look else "circle")
        control = look is not None and look.control
        arguments: dict[str, Any] = {}
        if trace.low is not None and trace.high is not None:
            arguments["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [h - v for h, v in zip(trace.high, trace.x, strict=True)],
                "arrayminus": [v - low for low, v in zip(trace.low, trace.x, strict=True)],
                "thickness": 1,
                "width": 3,
            }
        data.append(
            {
                "type": "scatter",
                "x": list(trace.x),
                "y": list(trace.y),
                "name": _escape(trace.name),
                "legendgroup": trace.series or trace.name,
                "showlegend": trace.listed,
                "meta": {"series": look.place if look else -1},
                "mode": "lines+markers" if trace.joined else "markers",
                "line": {"width": 1.5 if control else 2, "dash": LINES[look.line] if look else "solid"},
                "marker": {"size": 8, "symbol": f"{symbol}-open" if trace.hollow else symbol},
                "hovertext": list(trace.text),
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
            | arguments
        )
    names = any(isinstance(value, str) for trace in traces for value in trace.y)
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
    if (listed := sum(trace.listed for trace in traces)) > _FEW:
        layout["height"] = _HEIGHT + _ENTRY * (listed - _FEW)
    if names:
        layout["height"] = 172 + _ROW * len({value for trace in traces for value in trace.y})
    if level is not None:
        name, height = level
        line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height}
        layout["shapes"] = [line | {"line": {"dash": "dash", "width": 1.2}}]
        label = {"xref": "paper", "x": 1, "xanchor": "right", "y": height, "yanchor": "bottom"}
        if band is not None:
            layout["shapes"].append(_band(*band))
            layout["yaxis"]["range"] = _range(traces, look_of, (height, *band))
        layout["annotations"] = [label | {"text": name, "showarrow": False}]
    return json.dumps({"data": data, "layout": layout}, separators=(",", ":"))


def _band(low: float, high: float) -> dict[str, Any]:
    """A strip over the whole width; the page fills it."""
    place = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high}
    return place | {"line": {"width": 0}, "layer": "below", "opacity": 0.14}


def _range(traces: Sequence[Trace], look_of: Mapping[str, Look], kept: Sequence[float]) -> list[float]:
    """Lowest and highest value of the picture: of the methods and of `kept`. Controls that would squeeze the
    methods into a corner leave it."""
    every = [float(value) for trace in traces for value in trace.y]
    blind = {label for label, look in look_of.items() if look.control}
    seen = [float(value) for trace in traces if trace.series not in blind for value in trace.y]
    seen = [*kept, *(seen or every)]
    low, high = min(seen), max([*kept, *every])
    low = max(min([*every, low]), low - _CONTROL_ROOM * (high - low))
    return [low - 0.05 * (high - low), high + 0.08 * (high - low)]


def palette(ground: int) -> str:
    """The colours of all series as CSS. ground: 0 for white, 1 for black."""
    return " ".join(pair[ground] for pair in COLOURS)


def hover(name: str, facts: Mapping[str, str]) -> str:
    """What is shown of a point."""
    return "<br>".join([f"<b>{_escape(name)}</b>", *(f"{k}: {_escape(v)}" for k, v in facts.items() if v)])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
