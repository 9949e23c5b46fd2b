"""The views of the paper's tables and figures: what is printed beside what was measured."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pitome.errors import UsageError
from pitome.paper.costs import gmacs_of
from pitome.paper.experiments import OFFLINE, TRAINED, experiment_names
from pitome.paper.labels import FLOPS, SCHEDULE, R
from pitome.paper.verdicts import (
    NOT_RUN,
    OUTSIDE,
    UNEXPLAINED,
    VERDICTS,
    WITHIN,
    ItemVerdicts,
    JudgedValue,
    judge,
)
from pitome.records.groups import group
from pitome.records.rows import rows
from pitome.records.schema import Record
from pitome.report.cells import number
from pitome.report.item_figure import curve_of, label_of, unmerged_of
from pitome.report.items import IDENTITY, cells, references
from pitome.report.page import sweeps
from pitome.report.page.figures import Trace, figure, hover
from pitome.report.page.view import NOTHING, Column, Plot, TableCell, TableLine, View

_TONES = {WITHIN: "good", OUTSIDE: "bad", f"{OUTSIDE}: {UNEXPLAINED}": "bad", NOT_RUN: "mute"}
_KINDS = (
    ("printed", "square", True),
    ("logged", "circle", True),
    ("published", "circle", True),
    ("measured", "circle", False),
)
"""Field of a row, its symbol, and whether that is hollow."""
_AMOUNTS = {  # kind -> panel, x axis
    "": ("", "Ratio"),
    FLOPS: ("at equal FLOPs", "Share of FLOPs"),
    R: ("a fixed number", "Tokens removed by a layer"),
    SCHEDULE: ("a schedule", ""),
}
_LEAST = 3  # places on the x axis; with fewer there is no curve


def views(records: Sequence[Record], published: Sequence[Record]) -> list[View]:
    """One view for every item of the paper, and for every offline experiment that has a number."""
    made = []
    for name in experiment_names(skip_broken=True):
        if name.endswith(TRAINED):  # a part of the item
            continue
        with contextlib.suppress(UsageError):  # an item without an offline part
            verdicts = judge(name, records, published)
            if any(_numbers(row) for row in verdicts.rows):  # an item of pictures has none
                made.append(view(verdicts, [*published, *records]))
    keys = {item_view.key for item_view in made}
    return [_linked(item_view, keys) for item_view in made]


def view(verdicts: ItemVerdicts, records: Sequence[Record] = ()) -> View:
    """The table and the plots of one experiment. records: those its runs are among."""
    compared = references(verdicts)
    columns = [*map(Column, IDENTITY), *(Column(name, True) for name in compared)]
    columns += [
        Column("Measured", True, "With its 95 % interval where there is one"),
        Column("Difference", True, "Measured minus printed, or minus logged where nothing is printed"),
        Column("Tolerance", True),
        Column("Verdict"),
    ]
    by_id = {record.run_id: record for record in records}
    groups = group(verdicts.runs) if verdicts.offline else []
    judgements = Counter(row.judgement for row in verdicts.rows)
    facts = {"Command": verdicts.command, "Needs": verdicts.needs, "Expect": verdicts.expect}
    return View(
        key=verdicts.name,
        kind="offline" if verdicts.offline else "paper",
        item=verdicts.item,
        title=_where(verdicts) if verdicts.offline else verdicts.title,
        facts={name: text for name, text in facts.items() if text},
        columns=columns,
        lines=[_line(row, compared.values(), by_id) for row in verdicts.rows],
        plots=[*_plots(verdicts), *_run_plots(groups)],
        links={
            sweeps.key_of(members[0]): f"all runs of {members[0].model.name} on {members[0].data.name}: "
            "differences, controls, token pictures"
            for members in groups
        },
        tally={word: judgements[word] for word in sorted(judgements, key=_rank)},
    )


def tone(judgement: str) -> str:
    """The tone of a verdict with its cause: outside is bad where the cause is not known."""
    return _TONES.get(judgement, "own")


def _rank(judgement: str) -> int:
    return VERDICTS.index(judgement.partition(": ")[0])


def _where(verdicts: ItemVerdicts) -> str:
    """The project's models and data that it ran on; the paper's title names others."""
    pairs = dict.fromkeys(f"{row.model} on {row.data}" for row in verdicts.rows if row.model and row.data)
    return f"{', '.join(pairs)}, at the points of {verdicts.item}" if pairs else verdicts.title


def _run_plots(groups: Sequence[Sequence[Record]]) -> list[Plot]:
    """Of the runs of an offline experiment: the score against FLOPs and measured speed, tokens layer by
    layer."""
    plots = []
    for members in groups:
        where = f": {members[0].model.name} on {members[0].data.name}" if len(groups) > 1 else ""
        plots += [replace(plot, title=plot.title + where) for plot in sweeps.plots(rows(members))]
    return plots


def _linked(view: View, keys: set[str]) -> View:
    """With the way from an item of the paper to its offline counterpart, and back."""
    other = view.key.removesuffix(OFFLINE) if view.kind == "offline" else view.key + OFFLINE
    name = "the item of the paper" if view.kind == "offline" else "the same points on this project's model"
    return replace(view, links=view.links | ({other: name} if other in keys else {}))


def _line(row: JudgedValue, fields: Iterable[str], records: Mapping[str, Record]) -> TableLine:
    run = records.get(row.run_id or "")
    line = [TableCell(text, value) for text, value in cells(row, fields)]
    line[IDENTITY.index("Method")] = replace(line[IDENTITY.index("Method")], strong=True)
    line[-1] = replace(line[-1], tone=tone(row.judgement))
    return TableLine(
        cells=line,
        model=row.model or NOTHING,
        method=row.method or NOTHING,
        variant=row.variant or NOTHING,
        verdict=row.judgement,
        command=row.command,
        setting=row.ratio or NOTHING,
        records=[row.run_id] if row.run_id else [],
        note=row.reason,
        tokens=run.tokens if run is not None else [],
    )


def _numbers(row: JudgedValue) -> list[float]:
    return [value for field, _, _ in _KINDS if (value := getattr(row, field)) is not None]


def _plots(verdicts: ItemVerdicts) -> list[Plot]:
    """One panel for each metric, model, data set and training, offline for each kind of amount too: printed,
    logged and measured points of every method, against FLOPs where they are known, else against the ratio."""
    panels: dict[str, list[JudgedValue]] = defaultdict(list)
    for row in verdicts.rows:
        if row.point and not row.is_cost and _numbers(row):
            kind = _AMOUNTS[row.amount_kind][0] if verdicts.offline else ""
            where = ", ".join(part for part in (row.model, row.data, curve_of(row), kind) if part)
            panels[f"{row.metric}: {where}"].append(row)
    order = list(dict.fromkeys(label_of(row) for row in verdicts.rows))
    drawn = {name: _panel(rows, order, verdicts.rows) for name, rows in panels.items() if len(rows) > 1}
    note = "Hollow: printed (squares), logged or published (circles). Filled: measured. Grey: 95 % interval."
    return [Plot("Quality against cost", drawn, note)] if drawn else []


def _panel(table: Sequence[JudgedValue], order: Sequence[str], every: Sequence[JudgedValue]) -> str:
    places, axis = _places(table)
    title = table[0].title
    if places is None:
        return figure(_list(table), title, "", order)
    made = []
    for label in dict.fromkeys(label_of(row) for row in table):
        listed = True
        for field, symbol, hollow in _KINDS:
            places_of_label = [pair for pair in zip(places, table, strict=True) if label_of(pair[1]) == label]
            points = [
                (x, value, row) for x, row in places_of_label if (value := getattr(row, field)) is not None
            ]
            points.sort(key=lambda point: point[0])
            if points:
                made.append(
                    Trace(
                        name=label,
                        x=[x for x, _, _ in points],
                        y=[y for _, y, _ in points],
                        text=[_hover(row, field) for _, _, row in points],
                        series=label,
                        hollow=hollow,
                        symbol=symbol,
                        joined=field != "printed",
                        listed=listed,
                    )
                )
                listed = False
    unmerged = unmerged_of(table[0], every)
    if unmerged is None:
        return figure(made, axis, title, order)
    value = unmerged.published if unmerged.measured is None else unmerged.measured
    assert value is not None, "an interval is that of a value"
    level = (f"unmerged {value:.2f}", value)
    return figure(made, axis, title, order, level=level, band=unmerged.interval)


def _list(table: Sequence[JudgedValue]) -> list[Trace]:
    """The methods one below the other: where there is no curve."""
    made = []
    for field, symbol, hollow in _KINDS:
        here = [row for row in table if getattr(row, field) is not None]
        ends = [row.interval for row in here if row.interval and field in ("measured", "published")]
        whole = len(ends) == len(here)
        if here:
            made.append(
                Trace(
                    name=field,
                    x=[getattr(row, field) for row in here],
                    y=[_broken(row) for row in here],
                    text=[_hover(row, field) for row in here],
                    low=[low for low, _ in ends] if whole else None,
                    high=[high for _, high in ends] if whole else None,
                    series=None,
                    hollow=hollow,
                    symbol=symbol,
                    joined=False,
                )
            )
    return made


def _hover(row: JudgedValue, field: str) -> str:
    value = f"{number(getattr(row, field), row.unit)} {row.unit}"
    return hover(label_of(row), {"ratio": row.ratio, field: value})


def _broken(row: JudgedValue) -> str:
    """A label in two lines, so that there is room beside it on a narrow screen."""
    ratio = f" {row.ratio}" if row.ratio not in ("", "-") else ""
    return f"{row.method}{ratio}" + (f"<br><sub>{row.variant}</sub>" if row.variant else "")


def _places(table: Sequence[JudgedValue]) -> tuple[list[float] | None, str]:
    """Where rows stand on the x axis, and its name; None where there is neither cost nor ratio."""
    gmacs = gmacs_of(row.point for row in table)
    if gmacs is not None and len(set(gmacs)) > _LEAST:
        return gmacs, "GMACs (authors' count)"
    amounts = [1.0 if row.ratio in ("-", "") else row.amount for row in table]
    known = [amount for amount in amounts if amount is not None]
    if len(known) == len(table) and len(set(known)) > _LEAST:
        return known, _AMOUNTS[table[0].amount_kind][1]
    return None, ""
