"""The views of this project's own runs: one for each group of comparable runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pitome.records.comparisons import Pair, pairs, to_controls, to_unmerged
from pitome.records.groups import digest, group
from pitome.records.identity import CONTROLS, RESIZE, UNMERGED
from pitome.records.rows import Outcomes, ResultRow, rows
from pitome.records.schema import Record
from pitome.records.settings import family
from pitome.records.statistics import proportion
from pitome.report.cells import caption, metric, setting_name
from pitome.report.findings import sentences
from pitome.report.page.command import command_of
from pitome.report.page.figures import Trace, figure, hover
from pitome.report.page.view import (
    NOTHING,
    Column,
    PagePicture,
    Plot,
    TableCell,
    TableLine,
    View,
    number,
    word,
)

BETTER, WORSE, OPEN, FAILED = "better", "worse", "not significant", "failed"
_LEAST_P = 0.001
TONES = {BETTER: "good", WORSE: "bad", OPEN: "mute", FAILED: "bad"}


def views(
    records: Sequence[Record], outcomes: Outcomes, pictures: dict[str, list[PagePicture]], *, prefix: str = ""
) -> list[View]:
    """One view for each group of records that has a finished run. pictures: by name of the model; prefix: in
    front of the titles."""
    views = []
    for members in group(records):
        if any(member.done for member in members):
            views.append(_view(members, outcomes, pictures, prefix))
    return views


def key_of(record: Record) -> str:
    """Of the view that shows this run among those that it may be compared with."""
    return f"{record.task}-{digest(record)}"


def _view(
    members: list[Record], outcomes: Outcomes, pictures: dict[str, list[PagePicture]], prefix: str
) -> View:
    first = next(member for member in members if member.done)
    table = rows(members)
    compared = pairs(table, outcomes)
    unmerged, controls = to_unmerged(compared), to_controls(compared)
    rivals: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in compared:
        rivals[pair.first.key].append(pair)
    lines = [_line(row, unmerged.get(row.key), controls.get(row.key, []), rivals[row.key]) for row in table]
    tally = Counter(line.verdict for line in lines if line.verdict in TONES)
    return View(
        key=key_of(first),
        kind="sweep",
        item=first.task,
        title=f"{prefix}{first.model.name} on {first.data.name}",
        facts=dict(_facts(members)),
        columns=_columns(members),
        lines=lines,
        plots=plots(table),
        findings=sentences(table, compared),
        pictures=pictures.get(first.model.name, []),
        notes=_NOTES if any(_speed(row) for row in table) else [*_NOTES[:-1], _UNTIMED],
        tally={verdict: tally[verdict] for verdict in TONES if tally[verdict]},
    )


_NOTES = [
    "Verdict: significantly better or worse than the unmerged model (p after Holm's correction below 0.05).",
    "Controls beaten: how many controls at the same setting the row is significantly better than. Filter by "
    "a setting to compare methods at an equal ratio or at equal FLOPs; a row's details hold its comparisons.",
    "Speed-up: merged and unmerged model timed alternately in one run. Rows were timed at different times: "
    "compare speed-ups, not samples per second.",
]
_BAND = (
    "Grey: 95 % interval of the unmerged score. A control may leave the picture; a double click shows all."
)
_UNTIMED = "None of these runs was timed; measure=full times the merged and the unmerged model alternately."


def _facts(members: Sequence[Record]) -> list[tuple[str, str]]:
    """The caption of the tables: term and description."""
    out = []
    for line in caption(members):
        name, _, rest = line.partition(": ")
        out.append((name.partition(",")[0], rest or line))
    return out


def _columns(members: Sequence[Record]) -> list[Column]:
    name = metric(members)
    return [
        Column("Method"),
        Column(setting_name(members), title="The requested reduction"),
        Column("Place", title="Where tokens go: in the image tower, after it, or in the language model"),
        Column("Tokens left", True, "Tokens after the last block, or at the place"),
        Column("Tower GMACs", True, "Of a question, the image tower's"),
        Column("GMACs", True, "Counted for one sample; FLOPs are twice that"),
        Column("Cost %", True, "FLOPs as a share of the unmerged model's"),
        Column(f"{name} %", True, "The headline metric"),
        Column(
            "Difference", True, "From the unmerged model, in percentage points, with the paired 95 % interval"
        ),
        Column("Verdict", title="Whether the difference from the unmerged model is significant"),
        Column(
            "Controls beaten", True, "Controls at the same setting that the row is significantly better than"
        ),
        Column("Speed-up", True, "Measured, median with its 95 % interval"),
        Column("Samples/s", True, "Measured, merged"),
    ]


def _line(row: ResultRow, pair: Pair | None, against: Sequence[Pair], rivals: Sequence[Pair]) -> TableLine:
    first = row.first
    verdict = _verdict(row, pair)
    several = f" ({len(row.runs)} seeds)" if len(row.runs) > 1 else ""
    cost, speed = first.cost, _speed(row)
    won = sum(comparison.significant and comparison.better for comparison in against)
    score = number(100 * row.score if row.score is not None else None)
    if row.deviation:
        score = TableCell(f"{score.text} ± {100 * row.deviation:.2f}", score.value)
    return TableLine(
        cells=[
            TableCell(row.label + several, row.label, strong=True),
            TableCell(row.setting if row.setting != "-" else NOTHING, _amount(first)),
            word((first.method.place or "tower") if row.whole and row.merges else ""),
            number(first.tokens[-1] if first.tokens else None, 1 if _mean(first) else 0),
            number(cost.macs / 1e9 if cost and row.whole else None, 4),
            number(row.macs / 1e9 if row.macs else None, 4),
            number(100 * row.share if row.share is not None else None, 1),
            score if first.done else TableCell(FAILED, None, tone="bad"),
            _difference(pair),
            word(verdict if verdict in TONES else "", TONES.get(verdict, "")),
            TableCell(f"{won} of {len(against)}", won / len(against)) if against else TableCell(NOTHING),
            TableCell(
                f"{speed.speedup:.2f} [{speed.speedup_low:.2f}, {speed.speedup_high:.2f}]", speed.speedup
            )
            if speed
            else TableCell(NOTHING),
            number(speed.images_per_s if speed else None, 1),
        ],
        model=first.model.name,
        method=first.method.name.removesuffix("_repo"),
        variant=_variant(first),
        verdict=verdict,
        command=command_of(first),
        records=[run.run_id for run in row.runs],
        note=f"failed: {first.error}" if not first.done else "",
        tokens=first.tokens,
        setting=row.point_name or NOTHING,
        against=[_compared(rival) for rival in rivals],
    )


def _compared(pair: Pair) -> str:
    """`random: +4.20 [+3.10, +5.30], p 0.001, significantly better`."""
    p = "p < 0.001" if pair.adjusted < _LEAST_P else f"p {pair.adjusted:.3f}"
    return f"{pair.second.label}: {_difference(pair).text}, {p}, {pair.verdict}"


def _verdict(row: ResultRow, pair: Pair | None) -> str:
    if not row.first.done:
        return FAILED
    if not row.merges:
        return UNMERGED
    if pair is None:
        return "not compared"
    return (BETTER if pair.better else WORSE) if pair.significant else OPEN


def _variant(record: Record) -> str:
    name = record.method.name
    if name == UNMERGED:
        return "unmerged"
    if name in CONTROLS:
        return "control"
    return "authors' code" if name.endswith("_repo") else "as published"


def _difference(pair: Pair | None) -> TableCell:
    if pair is None:
        return TableCell(NOTHING)
    d = pair.result.difference
    return TableCell(f"{100 * d.value:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]", 100 * d.value)


def _amount(record: Record) -> float | None:
    """Sorts settings: how much is kept."""
    asked = record.method.asked
    for key in ("ratio", "flops", "keep"):
        if isinstance(asked.get(key), int | float):
            return float(asked[key])
    if isinstance(asked.get("r"), int | float):
        return -float(asked["r"])
    return 1.0 if record.method.name == UNMERGED else record.cost.share if record.cost else None


def _mean(record: Record) -> bool:
    """Whether token counts are means over samples of different lengths."""
    return any(not float(count).is_integer() for count in record.tokens)


def _speed(row: ResultRow):  # type: ignore[no-untyped-def]
    """Throughput of the row's first timed run."""
    return next((run.throughput for run in row.runs if run.done and run.throughput), None)


def plots(table: Sequence[ResultRow]) -> list[Plot]:
    """The score against FLOPs, against measured speed, and the tokens of every layer."""
    scored = [row for row in table if row.scored]
    merged = [row for row in scored if row.merges]
    if not merged:
        return []
    name = metric([merged[0].first])
    base = next((row for row in scored if not row.merges), None)
    level = (f"unmerged {100 * (base.score or 0):.2f}", 100 * (base.score or 0)) if base else None
    band = _band(base) if base else None
    order = sorted({row.series for row in merged}, key=lambda label: (label in CONTROLS, label))
    made = []
    costly = _curves(merged, lambda row: None if row.share is None else 100 * row.share, name)
    if costly:
        drawn = figure(costly, "FLOPs, % of the unmerged model", f"{name}, %", order, level=level, band=band)
        made.append(Plot(f"{name} against FLOPs", {"all": drawn}, _BAND if band else ""))
    timed = [row for row in merged if _speed(row)]
    if timed:
        fast = _curves(timed, lambda row: _speed(row).speedup, name, bars=True)
        drawn = figure(fast, "Measured speed-up", f"{name}, %", order, level=level, band=band)
        devices = ", ".join(sorted({_speed(row).device for row in timed}))
        made.append(
            Plot(
                f"{name} against measured throughput",
                {"all": drawn},
                f"Over the unmerged model, on {devices}, with 95 % intervals.",
            )
        )
    panels: dict[str, list[ResultRow]] = defaultdict(list)
    for row in table:
        if row.first.done and row.first.tokens and row.merges and row.point and not row.whole:
            panels[row.point_name].append(row)
    if panels:
        whole = [row for row in table if row.first.done and not row.merges and row.first.tokens]
        drawn_panels = {
            setting: figure(
                [_layers(row) for row in [*whole, *here] if row.method != RESIZE],
                "Entering layer (last: leaving the model)",
                "Tokens",
                order,
            )
            for setting, here in panels.items()
        }
        made.append(Plot("Tokens layer by layer", drawn_panels, _tokens_note(table)))
    return made


def _band(row: ResultRow) -> tuple[float, float] | None:
    """Wilson's 95 % interval of the unmerged score, in percent."""
    score, n = row.score, row.first.data.n_samples
    if score is None or not n or not 0 <= score <= 1:
        return None
    interval = proportion(score, n)
    return 100 * interval.low, 100 * interval.high


def _tokens_note(table: Sequence[ResultRow]) -> str:
    if any(_mean(row.first) for row in table):
        return "Means over the samples, whose lengths differ."
    return "The lines of methods that remove equally many tokens coincide."


def _curves(table: Sequence[ResultRow], x, name: str, *, bars: bool = False) -> list[Trace]:  # type: ignore[no-untyped-def]
    """A line per method and family of settings, from cheap to expensive."""
    lines: dict[tuple[str, str], dict[str, ResultRow]] = defaultdict(dict)
    for row in table:
        if x(row) is not None:
            lines[row.series, family(row.first)].setdefault(row.first.run_id, row)
    made: list[Trace] = []
    for (label, _), by_run in lines.items():
        here = sorted(by_run.values(), key=lambda row: x(row))
        made.append(
            Trace(
                name=label,
                x=[x(row) for row in here],
                y=[100 * (row.score or 0.0) for row in here],
                text=[hover(row.label, _said(row, name)) for row in here],
                series=label,
                listed=all(trace.name != label for trace in made),
                low=[_speed(row).speedup_low for row in here] if bars else None,
                high=[_speed(row).speedup_high for row in here] if bars else None,
            )
        )
    return sorted(made, key=lambda trace: (trace.name in CONTROLS, trace.name))


def _layers(row: ResultRow) -> Trace:
    tokens = row.first.tokens
    return Trace(
        name="unmerged" if not row.merges else row.label,
        x=list(range(1, len(tokens) + 1)),
        y=tokens,
        text=[hover(row.label, {"layer": str(i), "tokens": f"{n:g}"}) for i, n in enumerate(tokens, 1)],
        series=row.series if row.merges else None,
    )


def _said(row: ResultRow, name: str) -> dict[str, str]:
    speed = _speed(row)
    return {
        "setting": row.setting,
        name: f"{100 * (row.score or 0):.2f} %",
        "cost": f"{100 * row.share:.1f} % ({row.macs / 1e9:.4f} GMACs)" if row.share and row.macs else "",
        "speed-up": f"{speed.speedup:.2f}, {speed.images_per_s:,.1f} samples/s" if speed else "",
    }
