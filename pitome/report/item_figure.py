"""An experiment as a figure: the paper's points, the logged points and ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pitome.paper.costs import gmacs_of
from pitome.paper.labels import AS_PUBLISHED, AUTHORS, FLOPS, R
from pitome.paper.verdicts import ItemVerdicts, JudgedValue
from pitome.records.identity import UNMERGED
from pitome.report import figures, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 3  # places on the x axis; with fewer, the methods stand beside one another
_COLUMNS = 3
_LONG = 16  # letters of a method's name on the x axis before it is broken
_AXES = {FLOPS: "share of FLOPs", R: "tokens that a layer removes", "": "ratio"}
_CURVES = ("off the shelf", "trained")  # variants with a panel of their own


def draw(verdicts: ItemVerdicts) -> Figure | None:
    """One panel for each model, data set, variant and metric; None where there is nothing to draw.

    x: GMACs by the authors' count where they are known for all rows of a panel, else the ratio, the share of
    FLOPs or the number of tokens removed; where a panel has fewer than three places, the methods. Printed:
    hollow squares; logged (or published by this project): hollow circles on a line; measured: filled. A grey
    band is the 95 % interval of the unmerged model, where it was run.
    """
    panels: dict[tuple[str, ...], list[JudgedValue]] = {}
    for row in verdicts.rows:
        # the method as published has the same printed value as the authors' code of it, drawn there
        twice = not verdicts.offline and row.measured is None and AS_PUBLISHED in _parts(row)
        if row.point and not twice and not row.is_cost and _value(row) is not None:
            panels.setdefault(_panel_of(row, verdicts.offline), []).append(row)
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = figures.new_figure(4.2 * columns + 2.6, 3.2 * lines + 0.8)
    looks = style.looks(label_of(row) for rows in panels.values() for row in rows)
    axes = figure.subplots(lines, columns, squeeze=False)
    for place, ((*names, metric), rows) in zip(axes.flat, panels.items(), strict=False):
        _panel(place, rows, looks, unmerged_of(rows[0], verdicts.rows))
        place.set_title(", ".join(name for name in names if name), fontsize=10)
        place.set_ylabel(metric, fontsize=9)
        place.tick_params(labelsize=8)
        figures.dress(place)
    for place in list(axes.flat)[len(panels) :]:
        place.remove()
    title = f"{verdicts.item}: {verdicts.title}" + (" (offline)" if verdicts.offline else "")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    _legend(figure, looks, verdicts)
    return figure


def _panel(
    axes: Axes,
    rows: Sequence[JudgedValue],
    looks: Mapping[str, style.Look],
    unmerged: JudgedValue | None,
) -> None:
    places, name = _places(rows)
    curve = len(set(places)) >= _LEAST and name != ""
    if not curve:
        names = list(dict.fromkeys(label_of(row) for row in rows))
        places = [float(names.index(label_of(row))) for row in rows]
        written = [name.replace(", ", ",\n") if len(name) > _LONG else name for name in names]
        axes.set_xticks(range(len(names)), written, rotation=35, ha="right")
        axes.set_xlim(-0.6, len(names) - 0.4)
        if len({row.ratio for row in rows if row.ratio != "-"}) > 1:
            _name_amounts(axes, rows, places)
    else:
        axes.set_xlabel(name, fontsize=9)
    if unmerged is not None and unmerged.interval is not None:
        axes.axhspan(*unmerged.interval, color="0.5", alpha=0.12, linewidth=0, zorder=1)
    for label in dict.fromkeys(label_of(row) for row in rows):
        line = [(x, row) for x, row in zip(places, rows, strict=True) if label_of(row) == label]
        line.sort(key=lambda pair: pair[0])
        look = looks[label]
        # Not every published point is measured again: those that are have no line of their own.
        repeated = any(row.published is not None for _, row in line)
        kinds = (
            ("printed", "s", "none", 6.5, ""),
            ("logged", "o", "none", 5.0, look.line),
            ("published", "o", "none", 5.0, look.line),
            ("measured", "o", look.colour, 5.0, "" if repeated else look.line),
        )
        for field, marker, face, size, dashes in kinds:
            points = [(x, value) for x, row in line if (value := getattr(row, field)) is not None]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=look.colour,
                    marker=marker,
                    markerfacecolor=face,
                    markersize=size,
                    linestyle=dashes if curve else "",
                    linewidth=1.4 if field == "measured" else 0.8,
                )


def _name_amounts(axes: Axes, rows: Sequence[JudgedValue], places: Sequence[float]) -> None:
    """Beside each point how much is merged there: the x axis has the methods."""
    for x, row in zip(places, rows, strict=True):
        if (value := _value(row)) is not None and row.ratio != "-":
            text = row.ratio.removeprefix(f"{FLOPS} ")
            axes.annotate(text, (x, value), xytext=(5, -2), textcoords="offset points", fontsize=7)


def _value(row: JudgedValue) -> float | None:
    """One of the values of a row, the measured one first."""
    values = (row.measured, row.published, row.logged, row.printed)
    return next((value for value in values if value is not None), None)


def unmerged_of(panel: JudgedValue, rows: Iterable[JudgedValue]) -> JudgedValue | None:
    """The unmerged model among the rows of an item that a panel with this row is compared with, if it has an
    interval."""
    same = (row for row in rows if row.point.get("merge") == UNMERGED and row.interval)
    return next((row for row in same if _compared(row) == _compared(panel)), None)


def _compared(row: JudgedValue) -> tuple[str, ...]:
    return row.model, row.data, curve_of(row), row.title


def _places(rows: Sequence[JudgedValue]) -> tuple[list[float], str]:
    """Where rows stand on the x axis, and its name; empty where neither cost nor amount is known."""
    gmacs = gmacs_of(row.point for row in rows)
    if gmacs is not None:
        return gmacs, "GMACs (authors' count)"
    kind = rows[0].amount_kind
    same_kind = all(row.ratio == "-" or row.amount_kind == kind for row in rows)
    amounts = [1.0 if row.ratio == "-" else row.amount for row in rows]
    known = [amount for amount in amounts if amount is not None]
    return (
        (known, _AXES[kind])
        if kind in _AXES and same_kind and len(known) == len(rows)
        else ([0.0] * len(rows), "")
    )


def _panel_of(row: JudgedValue, offline: bool) -> tuple[str, ...]:
    """Model, data, how it was run, and the metric; apart from those at a ratio, runs with a fixed number
    of tokens and, offline, at equal FLOPs."""
    amount = {FLOPS: "at equal FLOPs" if offline else "", R: "fixed number"}.get(row.amount_kind, "")
    return row.model, row.data, curve_of(row), amount, row.title


def curve_of(row: JudgedValue) -> str:
    """The variant that has a panel of its own; empty for others."""
    variant = ", ".join(part for part in _parts(row) if part not in (AUTHORS, AS_PUBLISHED))
    return variant if variant in _CURVES else ""


def _parts(row: JudgedValue) -> list[str]:
    return row.variant.split(", ")


def label_of(row: JudgedValue) -> str:
    """The method and how it was run; the authors' code of it as `repo`."""
    parts = [part for part in _parts(row) if part not in (AS_PUBLISHED, *_CURVES, "")]
    return ", ".join([row.method, *("repo" if part == AUTHORS else part for part in parts)])


def _legend(figure: Figure, looks: Mapping[str, style.Look], verdicts: ItemVerdicts) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = {"s": "published by us"} if verdicts.offline else {"s": "printed", "o": "logged"}
    marks = [
        Line2D([], [], color="0.3", marker=marker, markerfacecolor="none", linestyle="", label=text)
        for marker, text in kinds.items()
    ]
    if verdicts.offline:
        marks[0].set_marker("o")
    marks.append(Line2D([], [], color="0.3", marker="o", linestyle="", label="measured"))
    lines = [
        Line2D([], [], color=look.colour, linestyle=look.line, linewidth=2, label=label)
        for label, look in looks.items()
    ]
    banded = any(unmerged_of(row, verdicts.rows) for row in verdicts.rows)
    bands = [Patch(color="0.5", alpha=0.2, label="95 % interval")] if banded else []
    figures.legend_beside(figure, [*marks, *lines, *bands], loc="outside right upper", fontsize=8)
