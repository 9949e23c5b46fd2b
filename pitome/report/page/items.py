"""The views of the paper's tables and figures: what is printed beside what was measured."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pitome.errors import UsageError
from pitome.paper import costs, matching
from pitome.paper.loading import OFFLINE, words
from pitome.paper.metrics import METRICS
from pitome.paper.outcome import NOT_RUN, OUTSIDE, VERDICTS, WITHIN, Outcome, Row, outcome
from pitome.records.groups import group
from pitome.records.rows import rows
from pitome.records.schema import Record
from pitome.report.items import number as digits
from pitome.report.items import signed
from pitome.report.page import sweeps
from pitome.report.page.figures import Points, figure, hover
from pitome.report.page.view import NOTHING, Cell, Column, Line, Plot, View, word

TONES = dict.fromkeys(VERDICTS, "own") | {WITHIN: "good", OUTSIDE: "bad", NOT_RUN: "mute"}
_COSTS = {metric.label for metric in METRICS.values() if metric.computed}
_KINDS = (
    ("printed", "square", True),
    ("logged", "circle", True),
    ("published", "circle", True),
    ("measured", "circle", False),
)
"""Field of a row, its symbol, and whether that is hollow."""
_SHARE, _NUMBER = "FLOPs ", "r "
_LEAST = 3  # places on the x axis; with fewer there is no curve


def views(records: Sequence[Record], published: Sequence[Record]) -> list[View]:
    """One view for every item of the paper, and for every offline experiment that has a number."""
    found = []
    for name in words(sound=True):
        if name.endswith("_trained"):  # a part of the item
            continue
        with contextlib.suppress(UsageError):  # an item without an offline part
            result = outcome(name, records, published)
            if not result.offline or any(_numbers(row) for row in result.rows):
                found.append(view(result, [*published, *records]))
    return [_linked(one, {view.key for view in found}) for one in found]


def view(result: Outcome, records: Sequence[Record] = ()) -> View:
    """The table and the plots of one experiment. records: those its runs are among."""
    references = [("Printed", "printed"), ("Logged", "logged")]
    if result.offline:
        references = [("Published by us", "published")]
    columns = [Column(name) for name in ("Model", "Data", "Method", "Variant", "Ratio", "Metric")]
    columns += [Column(name, True) for name, _ in references]
    columns += [
        Column("Measured", True, "With its 95 % interval where there is one"),
        Column("Difference", True, "Measured minus printed, or minus logged where nothing is printed"),
        Column("Tolerance", True),
        Column("Verdict"),
    ]
    measured = {record.run_id: record for record in records}
    runs = group(_runs(result, records)) if result.offline else []
    facts = {"Command": result.command, "Needs": result.needs, "Expect": result.expect}
    return View(
        key=result.name,
        kind="offline" if result.offline else "paper",
        item=result.item,
        title=_where(result) + result.title if result.offline else result.title,
        facts={name: text for name, text in facts.items() if text},
        columns=columns,
        lines=[_line(row, [field for _, field in references], measured) for row in result.rows],
        plots=[*_plots(result), *_own_plots(runs)],
        links={
            sweeps.key_of(members[0]): f"all runs of {members[0].model.name} on {members[0].data.name}: "
            "differences, controls, token pictures"
            for members in runs
        },
        tally={verdict: count for verdict in VERDICTS if (count := result.count(verdict))},
    )


def _where(result: Outcome) -> str:
    """On which models of our own; the paper's title names others."""
    pairs = dict.fromkeys(f"{row.model} and {row.data}" for row in result.rows if row.model and row.data)
    return f"On {', '.join(pairs)}: " if pairs else ""


def _runs(result: Outcome, records: Sequence[Record]) -> list[Record]:
    """The finished runs behind an experiment."""
    found: dict[str, Record] = {}
    for point in [row.point for row in result.rows if row.point]:
        found |= {record.run_id: record for record in matching.runs(point, records)}
    return list(found.values())


def _own_plots(runs: Sequence[Sequence[Record]]) -> list[Plot]:
    """Of the runs behind an offline experiment: the score against FLOPs and measured speed, tokens layer by
    layer."""
    made = []
    for members in runs:
        where = f": {members[0].model.name} on {members[0].data.name}" if len(runs) > 1 else ""
        made += [replace(plot, title=plot.title + where) for plot in sweeps.plots(rows(members))]
    return made


def _linked(view: View, keys: set[str]) -> View:
    """With the way from an item of the paper to its offline counterpart, and back."""
    other = view.key.removesuffix(OFFLINE) if view.kind == "offline" else view.key + OFFLINE
    name = "the item of the paper" if view.kind == "offline" else "the same points on a model of our own"
    return replace(view, links=view.links | ({other: name} if other in keys else {}))


def _line(row: Row, references: Sequence[str], records: Mapping[str, Record]) -> Line:
    run = records.get(row.run_id or "")
    unit = f"{row.metric}, {row.unit}" if row.unit and row.unit not in row.metric else row.metric
    measured = _cell(row.measured, row.unit)
    if row.interval is not None:
        low, high = (digits(end, row.unit) for end in row.interval)
        measured = Cell(f"{measured.text} [{low}, {high}]", row.measured)
    difference = Cell(NOTHING)
    if row.difference is not None:
        difference = Cell(signed(row.difference, row.unit), row.difference)
    return Line(
        cells=[
            word(row.model),
            word(row.data),
            Cell(row.method or NOTHING, row.method or None, strong=True),
            word(row.variant),
            Cell(row.ratio or NOTHING, _ratio(row.ratio)),
            word(unit),
            *(_cell(getattr(row, field), row.unit) for field in references),
            measured,
            difference,
            _cell(row.tolerance, row.unit),
            word(row.verdict, TONES[row.verdict]),
        ],
        model=row.model or NOTHING,
        method=row.method or NOTHING,
        variant=row.variant or NOTHING,
        verdict=row.verdict,
        command=row.command,
        setting=row.ratio or NOTHING,
        records=[row.run_id] if row.run_id else [],
        note=row.reason,
        tokens=run.tokens if run is not None else [],
    )


def _cell(value: float | None, unit: str) -> Cell:
    return Cell(NOTHING) if value is None else Cell(digits(value, unit), value)


def _ratio(text: str) -> float | str | None:
    try:
        return float(text.removeprefix(_SHARE).removeprefix(_NUMBER))
    except ValueError:
        return text or None


def _numbers(row: Row) -> list[float]:
    return [value for field, _, _ in _KINDS if (value := getattr(row, field)) is not None]


def _plots(result: Outcome) -> list[Plot]:
    """One panel for each metric, model and data set, offline also for each kind of amount: printed, logged
    and measured points of every method, against FLOPs where these are known, else against the ratio."""
    panels: dict[str, list[Row]] = defaultdict(list)
    for row in result.rows:
        if row.point and row.metric not in _COSTS and _numbers(row):
            kind = _kind(row.ratio) if result.offline else ""
            where = ", ".join(part for part in (row.model, row.data, kind) if part)
            panels[f"{row.metric}: {where}"].append(row)
    order = list(dict.fromkeys(_label(row) for row in result.rows))
    drawn = {name: _panel(rows, order) for name, rows in panels.items() if len(rows) > 1}
    note = "Hollow: printed (squares), logged or published (circles). Filled: measured."
    return [Plot("Quality against cost", drawn, note)] if drawn else []


def _kind(ratio: str) -> str:
    """Amounts that stand on one axis: shares of FLOPs and fixed numbers are no ratios."""
    kinds = {_SHARE: "at equal FLOPs", _NUMBER: "a fixed number"}
    return next((name for prefix, name in kinds.items() if ratio.startswith(prefix)), "")


def _panel(table: Sequence[Row], order: Sequence[str]) -> str:
    places, axis = _places(table)
    unit, name = table[0].unit, table[0].metric
    title = f"{name}, {unit}" if unit and unit not in name else name
    if places is None:
        return figure(_list(table), title, "", order)
    made = []
    for label in dict.fromkeys(_label(row) for row in table):
        listed = True
        for field, symbol, hollow in _KINDS:
            own = [pair for pair in zip(places, table, strict=True) if _label(pair[1]) == label]
            points = [(x, value, row) for x, row in own if (value := getattr(row, field)) is not None]
            points.sort(key=lambda point: point[0])
            if points:
                made.append(
                    Points(
                        name=label,
                        x=[x for x, _, _ in points],
                        y=[y for _, y, _ in points],
                        text=[_said(row, field) for _, _, row in points],
                        series=label,
                        hollow=hollow,
                        symbol=symbol,
                        joined=field != "printed",
                        listed=listed,
                    )
                )
                listed = False
    return figure(made, axis, title, order)


def _list(table: Sequence[Row]) -> list[Points]:
    """The methods one below the other: where there is no curve."""
    made = []
    for field, symbol, hollow in _KINDS:
        here = [row for row in table if getattr(row, field) is not None]
        if here:
            made.append(
                Points(
                    name=field,
                    x=[getattr(row, field) for row in here],
                    y=[_broken(row) for row in here],
                    text=[_said(row, field) for row in here],
                    series=None,
                    hollow=hollow,
                    symbol=symbol,
                    joined=False,
                )
            )
    return made


def _said(row: Row, field: str) -> str:
    value = f"{digits(getattr(row, field), row.unit)} {row.unit}"
    return hover(_label(row), {"ratio": row.ratio, field: value})


def _broken(row: Row) -> str:
    """A label in two lines, so that there is room beside it on a narrow screen."""
    ratio = f" {row.ratio}" if row.ratio not in ("", "-") else ""
    return f"{row.method}{ratio}" + (f"<br><sub>{row.variant}</sub>" if row.variant else "")


def _places(table: Sequence[Row]) -> tuple[list[float] | None, str]:
    """Where rows stand on the x axis, and its name; None where there is neither cost nor ratio."""
    known = [costs.find(row.point, "gmacs") for row in table]
    values = [cost.value for cost in known if cost is not None]
    if len(values) == len(table) and len(set(values)) > _LEAST:
        return values, "GMACs (authors' count)"
    prefix = next((one for one in (_SHARE, _NUMBER) if table[0].ratio.startswith(one)), "")
    ratios = [1.0 if row.ratio in ("-", "") else _ratio(row.ratio) for row in table]
    numbers = [ratio for ratio in ratios if isinstance(ratio, float)]
    if len(numbers) == len(table) and len(set(numbers)) > _LEAST:
        return numbers, {_SHARE: "Share of FLOPs", _NUMBER: "Tokens removed by a layer"}.get(prefix, "Ratio")
    return None, ""


def _label(row: Row) -> str:
    return f"{row.method} ({row.variant})" if row.variant else row.method
