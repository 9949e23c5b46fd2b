"""Tables of runs, for the terminal and in Markdown."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.records.files import write_atomically
from pitome.records.groups import baseline, group, labels, setting
from pitome.records.identity import UNMERGED
from pitome.records.schema import Record
from pitome.records.statistics import Interval, paired_difference

if TYPE_CHECKING:
    from rich.console import Console

Outcomes = Callable[[Record], Mapping[str, Any] | None]
"""From a record to its per-sample outcomes (column -> [n]), e.g. `Store.outcomes`."""

NOTHING = "-"
_NAMES = {"top1": "Top-1", "top5": "Top-5"}


@dataclass(frozen=True)
class Table:
    """Cells as text. caption: lines above, saying what every number is; notes: lines below.

    bold: (row, column) of the cells that stand out; text: the columns that are words;
    remarks: row -> what is to be said of it (why it failed).
    """

    title: str
    caption: list[str]
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    bold: set[tuple[int, int]] = field(default_factory=set)
    text: set[int] = field(default_factory=lambda: {0})
    remarks: dict[int, str] = field(default_factory=dict)


def build(records: Sequence[Record], outcomes: Outcomes) -> list[Table]:
    """The tables of all runs: quality and cost for each group of comparable runs, then speed."""
    groups = group(records)
    tables = [quality(members, outcomes) for members in groups]
    return tables + [table for members in groups if (table := speed(members)) is not None]


def quality(members: Sequence[Record], outcomes: Outcomes) -> Table:
    """What merging costs in quality and saves in computation, for one group of runs."""
    names = labels(members)
    differences = {m.run_id: _difference(m, members, outcomes) for m in members if _compared(m)}
    metric = _metric(members)
    authors = any(m.cost and m.cost.authors_macs is not None for m in members)
    header = ["Method", _setting_name(members), "Tokens left", "GMACs"]
    header += ["GMACs (authors)"] if authors else []
    header += ["Cost %", "Plan %", f"{metric} %", "Difference [95 % interval]"]
    rows = []
    for m in members:
        cost = m.cost
        row = [names[m.run_id], setting(m), _tokens(m), _giga(cost.macs if cost else None)]
        row += [_giga(cost.authors_macs if cost else None)] if authors else []
        row += [f"{100 * cost.share:.1f}" if cost else NOTHING, _plan(m)]
        row += [_score(m), _points(differences.get(m.run_id))]
        rows.append(row)
    return Table(
        title=_title(members[0]),
        caption=_caption(members),
        header=header,
        rows=rows,
        notes=_notes(members, differences, authors),
        bold={(i, header.index(f"{metric} %")) for i in _best(members)},
        remarks={i: f"failed: {m.error}" for i, m in enumerate(members) if not m.done},
    )


def speed(members: Sequence[Record]) -> Table | None:
    """Measured throughput; None if no run of the group was timed."""
    names = labels(members)
    timed = [(m, m.throughput) for m in members if m.done and m.throughput]
    if not timed:
        return None
    rows = [
        [
            names[m.run_id],
            setting(m),
            _rate(t.images_per_s_unmerged),
            _rate(t.images_per_s),
            f"{t.speedup:.2f} [{t.speedup_low:.2f}, {t.speedup_high:.2f}]",
            str(t.pairs),
            str(t.batch),
            t.device,
            str(t.threads),
        ]
        for m, t in timed
    ]
    header = ["Method", _setting_name(members), "Unmerged images/s", "Merged images/s"]
    header += ["Speed-up [95 % interval]", "Pairs", "Batch", "Device", "Threads"]
    return Table(
        title=f"{_title(members[0])}: speed",
        caption=_caption([m for m, _ in timed]),
        header=header,
        rows=rows,
        notes=[
            "The two sides of a row were timed alternately in the same run; the speed-up is the median of "
            "its pairs. Images/s of different rows were measured at different times: do not compare them."
        ],
        text={0, 7},
    )


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavoured Markdown."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def write_markdown(path: Path, tables: Sequence[Table]) -> None:
    """Write the tables to `path` in one step. Raises RecordError if it cannot be written."""
    write_atomically(path, to_markdown(tables).encode())


def show(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print the tables to the terminal."""
    import rich.box
    import rich.console
    import rich.measure
    import rich.table
    import rich.text

    # Without a terminal (a log file, a pipe) rich would assume 80 columns.
    console = console or rich.console.Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        printed = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for j, name in enumerate(table.header):
            cells = [row[j] for row in table.rows]
            words = name.split() + (" ".join(cells).split() if j in table.text else cells)
            narrowest = max(map(len, words))  # break text between words, numbers never
            printed.add_column(
                rich.text.Text(name),  # in a plain string rich would take brackets for markup
                justify="left" if j in table.text else "right",
                min_width=narrowest,
                max_width=None if j in table.text else narrowest,
                overflow="fold",
                vertical="bottom",
            )
        for i, row in enumerate(table.rows):
            printed.add_row(
                *(rich.text.Text(c, style="bold" if (i, j) in table.bold else "") for j, c in enumerate(row))
            )
        unlimited = console.options.update(width=1000)
        if rich.measure.Measurement.get(console, unlimited, printed).minimum > console.width:
            printed.padding = (0, 0, 0, 0)
            narrowest = rich.measure.Measurement.get(console, unlimited, printed).minimum
            # Still too wide: the terminal breaks the lines; no number is ever cut off.
            printed.width = max(narrowest, console.width)
        console.print()
        console.print(rich.text.Text(table.title, style="bold"))
        for line in table.caption:
            console.print(rich.text.Text(line))
        console.print(printed, crop=False)
        for i, remark in sorted(table.remarks.items()):
            console.print(rich.text.Text(f"{table.rows[i][0]} {table.rows[i][1]} {remark}", style="red"))
        for line in table.notes:
            console.print(rich.text.Text(line, style="dim"))


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    header, rule = [_escape(name) for name in table.header], []
    for j in range(len(table.header)):
        rule.append("---" if j in table.text else "---:")
    if table.remarks:
        header, rule = [*header, "Note"], [*rule, "---"]
    rows = []
    for i, row in enumerate(table.rows):
        cells = [f"**{_escape(c)}**" if (i, j) in table.bold else _escape(c) for j, c in enumerate(row)]
        rows.append(line(cells + ([_escape(table.remarks.get(i, ""))] if table.remarks else [])))
    parts = [f"### {table.title}", "  \n".join(table.caption)]
    parts.append("\n".join([line(header), line(rule), *rows]))
    parts += ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n\n".join(parts)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _title(record: Record) -> str:
    return f"{record.task}: {record.model.name} on {record.data.name}"


def _caption(members: Sequence[Record]) -> list[str]:
    """What was measured, on what, with what: every number below depends on it."""
    first = next((m for m in members if m.done), members[0])
    data, weights = first.data, first.weights
    samples = f"{data.n_samples:,} samples" if data.n_samples is not None else "no samples evaluated"
    if data.limit is not None:
        samples += f" (limit {data.limit:,}{', ' + data.selection if data.selection else ''})"
    skipped = max(m.data.n_skipped for m in members)
    seen = [f"Data: {data.name}", f"split {data.split or 'unknown'}", samples, f"{skipped} skipped"]
    seen += [f"revision {data.revision[:12]}"] if data.revision else []
    if weights.random:
        origin = f"random (seed {first.seed})"
    else:
        origin = f"{weights.name} ({weights.source}, sha256 {(weights.sha256 or 'unknown')[:12]})"
    places = sorted({m.environment.device for m in members if m.environment}) or ["unknown"]
    conditions = [f"Weights: {origin}", f"precision {first.precision}", f"device {', '.join(places)}"]
    conditions += [f"result version {first.result_version}"]
    lines = [", ".join(seen) + ".", ", ".join(conditions) + "."]
    if any(m.method.name.endswith("_repo") for m in members):
        lines.append(
            "Methods: a bare name is the method as its authors published it, _repo is what the code "
            "of the PiToMe repository runs under that name."
        )
    return lines


def _notes(members: Sequence[Record], differences: Mapping[str, Interval | None], authors: bool) -> list[str]:
    notes = []
    metric = _metric(members)
    if any(m.cost for m in members):
        notes.append(
            "GMACs per sample. Cost %: FLOPs as a share of the unmerged model's. Plan %: the part of a "
            "row's own MACs that decides what is merged."
        )
    if authors:
        unmerged = {m.cost.unmerged_authors_macs for m in members if m.cost} - {None}
        stated = f" (unmerged {', '.join(sorted(_giga(m) for m in unmerged))})" if unmerged else ""
        notes.append(f"GMACs (authors): counted as the PiToMe repository counts them{stated}.")
    if members[0].weights.random:
        notes.append(f"{metric} is left out: the weights are random, so it would mean nothing.")
        return notes
    seen = {interval.n for interval in differences.values() if interval is not None}
    if seen:
        counts = ", ".join(f"{n:,}" for n in sorted(seen))
        notes.append(
            "Difference to the unmerged model in percentage points, with the 95 % interval of a paired "
            f"bootstrap over {counts} samples."
        )
    merged = [m for m in members if _compared(m)]
    if any(baseline(m, members) is None for m in merged):
        notes.append("The difference needs merge=none with the same model, data and limit: run it too.")
    elif any(differences[m.run_id] is None for m in merged):
        notes.append("A difference is left out where per-sample outcomes are missing: rerun=true makes them.")
    return notes


def _compared(record: Record) -> bool:
    return record.done and record.score is not None and record.method.name != UNMERGED


def _difference(record: Record, members: Sequence[Record], outcomes: Outcomes) -> Interval | None:
    """To the unmerged model; None without it or without outcomes."""
    base = baseline(record, members)
    column = record.headline.outcome
    if base is None or column is None:
        return None
    ours, theirs = outcomes(record), outcomes(base)
    if ours is None or theirs is None or column not in ours or column not in theirs:
        return None
    return paired_difference(ours["id"], ours[column], theirs["id"], theirs[column])


def _best(members: Sequence[Record]) -> list[int]:
    """Rows with the best score of all that were asked the same, where there is a choice."""
    rivals: dict[str, list[int]] = defaultdict(list)
    for i, m in enumerate(members):
        if _compared(m):
            rivals[setting(m)].append(i)
    best = []
    for rows in rivals.values():
        pick = max if members[rows[0]].headline.higher_is_better else min
        top = pick(members[i].score or 0.0 for i in rows)
        best += [i for i in rows if members[i].score == top] if len(rows) > 1 else []
    return best


def _metric(members: Sequence[Record]) -> str:
    name = members[0].headline.name
    return _NAMES.get(name, name)


def _setting_name(members: Sequence[Record]) -> str:
    """`Ratio` where every row is one ratio or unmerged."""
    merged = [m for m in members if m.method.name != UNMERGED]
    return "Ratio" if all(set(m.method.asked) == {"ratio"} for m in merged) else "Setting"


def _tokens(record: Record) -> str:
    if not record.tokens:
        return NOTHING
    return f"{record.tokens[-1]:.4g}/{record.tokens[0]:.4g}"


def _score(record: Record) -> str:
    if not record.done:
        return "failed"
    return NOTHING if record.score is None else f"{100 * record.score:.2f}"


def _plan(record: Record) -> str:
    if record.cost is None or record.cost.plan_macs is None or record.method.name == UNMERGED:
        return NOTHING
    return f"{100 * record.cost.plan_macs / record.cost.macs:.2f}"


def _giga(macs: int | None) -> str:
    """Four significant digits: models here span 0.01 to 1,000 GMACs."""
    return NOTHING if macs is None else f"{macs / 1e9:#.4g}".rstrip(".")


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _points(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    value, low, high = (f"{100 * x:+.2f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"
