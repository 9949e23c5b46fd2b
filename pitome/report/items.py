"""The verdicts on an experiment as a table: in the terminal, in Markdown, CSV and LaTeX, with a figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pitome.config import CONF
from pitome.errors import UsageError
from pitome.paper.experiments import choose
from pitome.paper.item import PICTURES
from pitome.paper.verdicts import NOT_RUN, OUTSIDE, VERDICTS, WITHIN, ItemVerdicts, JudgedValue, judge
from pitome.records.code import other_code
from pitome.records.files import write_atomically
from pitome.records.rows import Outcomes
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report import figures, item_figure, schedules, tables, trained
from pitome.report.cells import NOTHING, number
from pitome.report.layout import layouts, to_latex
from pitome.report.rendering import Table, show, to_markdown

PUBLISHED = CONF.parent / "results" / "published"
VARIANTS = PUBLISHED / "variants"  # single options changed, which would crowd the tables of the methods
THEOREM = PUBLISHED / "theorem"
TRAINED = PUBLISHED / "trained"  # trained with merging on
SCHEDULES = PUBLISHED / "schedules"  # with the schedules that this project made
IDENTITY = ("Model", "Data", "Method", "Variant", "Ratio", "Metric")  # columns that say which value it is


def show_item(name: str, store: Store) -> Table:
    """Write what an experiment says with the records of `store` and the published ones to reports/ beside
    the store: <name>.md, .csv, .tex and, where there is something to draw, .png. Print and return the table.

    Raises UsageError for an unknown experiment and one of pictures, RecordError if the folder cannot be
    written.
    """
    if choose(name).item.kind == PICTURES:
        raise UsageError(f"{name} is pictures, without values; python run.py experiment={name} draws them")
    published = published_stores()
    local = [] if any(_same_folder(store, other) for other in published) else store.all()
    committed = published_records()
    verdicts = judge(name, local, committed)
    stores = [store, *published]
    item, both, outcomes = choose(name).item, [*committed, *local], outcomes_in(stores)
    twins = (trained.table(item.name, both, outcomes), schedules.table(item, both, outcomes))
    beside = [twin for twin in twins if twin is not None]
    note = other_code(verdicts.runs)
    written = write(verdicts, store.folder.parent / "reports", [*beside, *fair(verdicts, stores)], note)
    table = to_table(verdicts)
    show([*layouts(verdicts, table.caption), *beside])
    print(f"{summary(verdicts)} Every value with its verdict and reason is in the Markdown and CSV files.")
    if note is not None:
        print(note)
    for path in written:
        print(f"wrote: {_shown(path)}")
    return table


def published_stores() -> list[Store]:
    """Where this project keeps the records it has committed."""
    return [Store(folder) for folder in (PUBLISHED, VARIANTS, THEOREM, TRAINED, SCHEDULES)]


def published_records() -> list[Record]:
    """The records that this project has committed."""
    return [record for store in published_stores() for record in store.all()]


def write(
    verdicts: ItemVerdicts, folder: Path, comparisons: Sequence[Table] = (), note: str | None = None
) -> list[Path]:
    """Write the files of an experiment; `comparisons` and `note` follow its own tables in Markdown."""
    table = to_table(verdicts)
    laid_out = layouts(verdicts, table.caption)
    files = {
        "md": to_markdown([*laid_out, dataclasses.replace(table, caption=[]), *comparisons], note).encode(),
        "csv": to_csv(verdicts).encode(),
        "tex": to_latex(verdicts).encode(),
    }
    if (figure := item_figure.draw(verdicts)) is not None:
        files["png"] = figures.png(figure)
    paths = []
    for ending, data in files.items():
        paths.append(folder / f"{verdicts.name}.{ending}")
        write_atomically(paths[-1], data)
    return paths


def fair(verdicts: ItemVerdicts, stores: Sequence[Store]) -> list[Table]:
    """The comparison of an experiment's runs at equal ratio and at equal FLOPs: controls, paired intervals,
    and which differences are significant (docs/statistics.md)."""
    return tables.build(verdicts.runs, outcomes_in(stores)) if verdicts.runs else []


def outcomes_in(stores: Sequence[Store]) -> Outcomes:
    """The per-sample outcomes of a record, from whichever folder has them."""

    def read(record: Record) -> Mapping[str, Any] | None:
        file = record.outcomes.file if record.outcomes else ""
        store = next((store for store in stores if file and (store.folder / file).is_file()), None)
        return None if store is None else store.outcomes(record)

    return read


def summary(verdicts: ItemVerdicts) -> str:
    """How much of an experiment is checked, in one line."""
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    always = (WITHIN, OUTSIDE, NOT_RUN)
    causes = Counter(row.cause for row in verdicts.rows if row.cause)
    why = {
        OUTSIDE: f" ({', '.join(f'{count} {cause}' for cause, count in causes.items())})" if causes else ""
    }
    parts = [
        f"{count} {verdict}{why.get(verdict, '')}"
        for verdict, count in counts.items()
        if count or verdict in always
    ]
    return f"{verdicts.name}: {len(verdicts.rows)} values, {', '.join(parts)}."


def to_table(verdicts: ItemVerdicts) -> Table:
    """All values of an experiment."""
    compared = references(verdicts)
    header = [*IDENTITY, *compared, "Measured [95 % interval]", "Difference", "Tolerance", "Verdict", "Note"]
    lines = [
        [*(text for text, _ in cells(row, compared.values())), row.reason or NOTHING] for row in verdicts.rows
    ]
    if verdicts.offline:
        caption = [
            "This project's own model and data: no number here is from the paper.",
            f"Command: `{verdicts.command}`.",
        ]
    else:
        caption = [f"Command: `{verdicts.command}`. Needs: {verdicts.needs}.", f"Expect: {verdicts.expect}"]
    notes = [summary(verdicts)]
    if not verdicts.offline:
        notes.append(
            f"Printed: by the paper ({verdicts.paper}). Logged: in its authors' result files. Difference: "
            "measured minus printed, or minus logged where nothing is printed."
        )
    return Table(
        title=f"{verdicts.item}: every value with its verdict",
        caption=caption,
        header=header,
        rows=lines,
        notes=notes,
        text={0, 1, 2, 3, 5, len(header) - 2, len(header) - 1},
        folded=True,
    )


def to_csv(verdicts: ItemVerdicts) -> str:
    """All fields of all values, with a header."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(JudgedValue)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in verdicts.rows:
        fields = [getattr(row, name) for name in names]
        writer.writerow([json.dumps(f) if isinstance(f, dict | tuple) else f for f in fields])
    return buffer.getvalue()


def references(verdicts: ItemVerdicts) -> dict[str, str]:
    """Name and field of what the values are compared with: the paper's numbers, or ours."""
    if verdicts.offline:
        return {"Published by us": "published"}
    return {"Printed": "printed", "Logged": "logged"}


def cells(row: JudgedValue, fields: Iterable[str]) -> list[tuple[str, float | str | None]]:
    """The cells of a row as they are read, each with its value: what IDENTITY names, these fields, the
    measured value, difference, tolerance and verdict."""
    names = (row.model, row.data, row.method, row.variant)
    interval = ""
    if row.interval is not None and row.measured is not None:
        interval = f" [{', '.join(number(end, row.unit) for end in row.interval)}]"
    return [
        *((name or NOTHING, name or None) for name in names),
        (row.ratio or NOTHING, row.ratio or None if row.amount is None else row.amount),
        (row.title, row.title),
        *((number(value := getattr(row, field), row.unit), value) for field in fields),
        (number(row.measured, row.unit) + interval, row.measured),
        (signed(row.difference, row.unit), row.difference),
        (number(row.tolerance, row.unit), row.tolerance),
        (row.judgement, row.judgement),
    ]


def signed(value: float | None, unit: str) -> str:
    """A difference with its sign."""
    if value is None:
        return NOTHING
    return f"{value:+.3g}" if unit in ("GMACs", "") else f"{value:+.2f}"


def _same_folder(store: Store, other: Store) -> bool:
    return store.folder.resolve() == other.folder.resolve()


def _shown(path: Path) -> str:
    """A path as short as it can be read from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
