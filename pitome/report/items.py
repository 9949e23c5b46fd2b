"""An experiment's outcome as a table: in the terminal, in Markdown, CSV and LaTeX, with its figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pitome.config import CONF
from pitome.errors import UsageError
from pitome.paper import matching
from pitome.paper.loading import choose
from pitome.paper.outcome import NOT_RUN, OUTSIDE, VERDICTS, WITHIN, Outcome, Row, outcome
from pitome.paper.schema import PICTURES
from pitome.records.files import write_atomically
from pitome.records.rows import Outcomes
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report import item_figure as figure
from pitome.report import tables
from pitome.report.cells import NOTHING
from pitome.report.rendering import LONGEST, Table, show, to_markdown

PUBLISHED = CONF.parent / "results" / "published"
VARIANTS = PUBLISHED / "variants"  # single options changed, which would crowd the tables of the methods
THEOREM = PUBLISHED / "theorem"

_ESCAPES = {"\\": r"\textbackslash{}"} | {one: f"\\{one}" for one in "&%$#_{}"} | {"~": r"\textasciitilde{}"}


def show_outcome(word: str, store: Store) -> Table:
    """Write what an experiment says with the records of `store` and the published ones to reports/ beside
    the store: <name>.md, .csv, .tex and, where there is something to draw, .png. Print and return the table.

    Raises UsageError for an unknown experiment and one of pictures, RecordError if the folder cannot be
    written.
    """
    if choose(word).experiment.kind == PICTURES:
        raise UsageError(f"{word} is pictures, without values; python run.py experiment={word} draws them")
    published = published_stores()
    committed = [record for one in published for record in one.all()]
    own = [] if any(_same(store, one) for one in published) else store.all()
    result = outcome(word, own, committed)
    folder = store.folder.parent / "reports"
    written = write(result, folder, fair(word, [*committed, *own], [store, *published]))
    table = to_table(result)
    show([table if len(table.rows) <= LONGEST else judged(result, table)])
    for path in written:
        print(f"wrote: {_shown(path)}")
    return table


def judged(result: Outcome, table: Table) -> Table:
    """The table of an outcome without the rows that were not run, for a terminal that cannot fold it."""
    rows = [line for line, row in zip(table.rows, result.rows, strict=True) if row.verdict != NOT_RUN]
    left = len(table.rows) - len(rows)
    notes = [*table.notes, f"{left} rows that were not run are in the Markdown file, each with its reason."]
    return dataclasses.replace(table, rows=rows, notes=notes if left else table.notes, folded=False)


def published_stores() -> list[Store]:
    """Where this project keeps the records it has committed."""
    return [Store(folder) for folder in (PUBLISHED, VARIANTS, THEOREM)]


def write(result: Outcome, folder: Path, more: Sequence[Table] = ()) -> list[Path]:
    """The files of an outcome; `more`: tables behind its own in the Markdown file."""
    texts = {
        "md": to_markdown([dataclasses.replace(to_table(result), folded=False), *more]),
        "csv": to_csv(result),
        "tex": to_latex(result),
    }
    written = []
    for ending, text in texts.items():
        path = folder / f"{result.name}.{ending}"
        write_atomically(path, text.encode())
        written.append(path)
    if (drawn := figure.draw(result)) is not None:
        content = io.BytesIO()
        drawn.savefig(content, format="png", dpi=150)
        write_atomically(folder / f"{result.name}.png", content.getvalue())
        written.append(folder / f"{result.name}.png")
    return written


def fair(word: str, records: Sequence[Record], stores: Sequence[Store]) -> list[Table]:
    """The comparison at equal ratio and equal FLOPs of the runs of an experiment: controls, paired
    intervals, and whether a difference is resolved (docs/statistics.md)."""
    found: dict[str, Record] = {}
    for point in choose(word).points:
        found |= {record.run_id: record for record in matching.runs(point, records)}

    return tables.build(list(found.values()), outcomes_in(stores)) if found else []


def outcomes_in(stores: Sequence[Store]) -> Outcomes:
    """The per-sample outcomes of a record, from whichever folder has them."""

    def read(record: Record) -> Mapping[str, Any] | None:
        file = record.outcomes.file if record.outcomes else ""
        store = next((one for one in stores if file and (one.folder / file).is_file()), None)
        return None if store is None else store.outcomes(record)

    return read


def summary(result: Outcome) -> str:
    """How much of an experiment is checked, in one line."""
    counts = {verdict: result.count(verdict) for verdict in VERDICTS}
    always = (WITHIN, OUTSIDE, NOT_RUN)
    said = [f"{count} {verdict}" for verdict, count in counts.items() if count or verdict in always]
    return f"{result.name}: {len(result.rows)} values, {', '.join(said)}."


def to_table(result: Outcome) -> Table:
    """All rows of an outcome."""
    header = ["Model", "Data", "Method", "Variant", "Ratio", "Metric"]
    header += ["Published by us"] if result.offline else ["Printed", "Logged"]
    header += ["Measured [95 % interval]", "Difference", "Tolerance", "Verdict", "Note"]
    lines = [
        [
            *(one or NOTHING for one in (row.model, row.data, row.method, row.variant, row.ratio)),
            f"{row.metric}, {row.unit}" if row.unit and row.unit not in row.metric else row.metric,
            *[number(one, row.unit) for one in references(result, row)],
            number(row.measured, row.unit) + _interval(row),
            signed(row.difference, row.unit),
            number(row.tolerance, row.unit),
            row.verdict,
            row.reason or NOTHING,
        ]
        for row in result.rows
    ]
    if result.offline:
        caption = [
            "This project's own model and data: no number of the paper stands here.",
            f"Command: `{result.command}`.",
        ]
    else:
        caption = [f"Command: `{result.command}`. Needs: {result.needs}.", f"Expect: {result.expect}"]
    notes = [summary(result)]
    if not result.offline:
        notes.append(
            "Printed: by the paper (arXiv 2405.16148). Logged: in its authors' result files. Difference: "
            "measured minus printed, or minus logged where nothing is printed."
        )
    return Table(
        title=f"{result.item}: {result.title}" + (" (offline)" if result.offline else ""),
        caption=caption,
        header=header,
        rows=lines,
        notes=notes,
        text={0, 1, 2, 3, 5, len(header) - 2, len(header) - 1},
        folded=True,
    )


def to_csv(result: Outcome) -> str:
    """All fields of all rows, with a header."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(Row)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in result.rows:
        cells = [getattr(row, name) for name in names]
        writer.writerow(
            [
                "" if one is None else json.dumps(one) if isinstance(one, dict | tuple) else one
                for one in cells
            ]
        )
    return buffer.getvalue()


def to_latex(result: Outcome) -> str:
    """A table in the style of the package booktabs."""
    header = ["Model", "Data", "Method", "Variant", "Ratio", "Metric"]
    header += ["Published"] if result.offline else ["Printed", "Logged"]
    header += ["Measured", "Difference", "Verdict"]
    lines = [
        [
            *(row.model, row.data, row.method, row.variant, row.ratio, row.metric),
            *[number(one, row.unit) for one in references(result, row)],
            number(row.measured, row.unit),
            signed(row.difference, row.unit),
            row.verdict,
        ]
        for row in result.rows
    ]
    columns = "llllll" + "r" * (len(header) - 7) + "l"
    body = [" & ".join(map(latex, cells)) + r" \\" for cells in lines]
    return "\n".join(
        [
            f"% {result.name}: {result.command}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(latex, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Text in which LaTeX reads no command."""
    return "".join(_ESCAPES.get(one, one) for one in text)


def references(result: Outcome, row: Row) -> list[float | None]:
    """What a row is compared with: the paper's numbers, or ours where it is offline."""
    return [row.published] if result.offline else [row.printed, row.logged]


def number(value: float | None, unit: str) -> str:
    """A value in its unit: GMACs with four significant digits, everything else with two decimals."""
    if value is None:
        return NOTHING
    if unit in ("GMACs", ""):
        return f"{value:.4g}"
    return f"{value:.2f}"


def signed(value: float | None, unit: str) -> str:
    """A difference with its sign."""
    if value is None:
        return NOTHING
    return f"{value:+.3g}" if unit in ("GMACs", "") else f"{value:+.2f}"


def _interval(row: Row) -> str:
    if row.interval is None:
        return ""
    low, high = row.interval
    return f" [{number(low, row.unit)}, {number(high, row.unit)}]"


def _same(one: Store, other: Store) -> bool:
    return one.folder.resolve() == other.folder.resolve()


def _shown(path: Path) -> str:
    """A path as short as it can be read from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
