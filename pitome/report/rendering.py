"""Tables of text, for the terminal and in Markdown."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pitome.records.files import write_atomically
from pitome.records.markdown import escape, escape_words, markdown_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


LONGEST = 40
"""Rows of a folded table that still are printed to the terminal."""


@dataclass(frozen=True)
class Table:
    """Cells as plain text, for the terminal and for Markdown."""

    title: str
    caption: list[str]  # lines above the table, which say what every number is
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)  # lines below the table
    bold: set[tuple[int, int]] = field(default_factory=set)  # (row, column) of the cells in bold
    text: set[int] = field(default_factory=lambda: {0})  # columns that are words, not numbers
    remarks: dict[int, str] = field(default_factory=dict)  # row -> remark on it (why it failed)
    sections: set[int] = field(default_factory=set)  # rows that begin a section
    folded: bool = False  # a long table that the reader opens
    aside: bool = False  # for the file alone: a terminal shows what the reader asks first
    findings: list[str] = field(default_factory=list)  # what the numbers mean, in sentences
    names: int = 1  # leading columns that say which row it is
    first: tuple[str, ...] = ()  # columns that come first where a terminal is too narrow for all


def to_markdown(tables: Sequence[Table], note: str | None = None) -> str:
    """GitHub-flavoured Markdown; `note` stands below all tables."""
    return "\n\n".join([*map(_markdown, tables), *([note] if note else [])]) + "\n"


def write_markdown(path: Path, tables: Sequence[Table], note: str | None = None) -> None:
    """Write the tables to `path` in one step. Raises RecordError if it cannot be written."""
    write_atomically(path, to_markdown(tables, note).encode())


def show(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print the tables to the terminal, in several parts where it is too narrow for all columns."""
    import rich.console
    import rich.text

    # Without a terminal (a log file, a pipe) rich would assume 80 columns.
    console = console or rich.console.Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        if table.aside:
            continue
        if table.folded and len(table.rows) > LONGEST:
            # A terminal cannot fold; the files hold it all.
            console.print(f"\n{table.title}: {len(table.rows)} rows, in the Markdown file", markup=False)
            continue
        console.print()
        console.print(rich.text.Text(table.title, style="bold"))
        for line in table.caption:
            console.print(rich.text.Text(line))
        for columns in _parts(table, console):
            printed = _printed(table, columns)
            if _narrowest(printed, console) > console.width:
                printed.padding = (0, 0, 0, 0)
                # Still too wide: the terminal breaks the lines; no number is ever cut off.
                printed.width = max(_narrowest(printed, console), console.width)
            console.print(printed, crop=False)
        for i, remark in sorted(table.remarks.items()):
            console.print(rich.text.Text(f"{table.rows[i][0]} {table.rows[i][1]} {remark}", style="red"))
        for line in table.findings:
            console.print(rich.text.Text(line))
        for line in table.notes:
            console.print(rich.text.Text(line, style="dim"))


def _parts(table: Table, console: Console) -> list[list[int]]:
    """The columns of each part that fits the terminal; each begins with those that name the row."""
    every = list(range(len(table.header)))
    named, rest = every[: table.names], every[table.names :]
    rest.sort(key=lambda j: table.header[j] not in table.first)
    if _narrowest(_printed(table, every), console) <= console.width:
        return [every]
    parts: list[list[int]] = []
    for j in rest:
        wider = sorted([*(parts[-1] if parts else named), j])
        if not parts or _narrowest(_printed(table, wider), console) > console.width:
            parts.append([*named, j])
        else:
            parts[-1] = wider
    return parts or [every]


def _printed(table: Table, columns: Sequence[int]) -> RichTable:
    """Some columns of a table, as rich prints them."""
    import rich.box
    import rich.table
    import rich.text

    printed = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for j in columns:
        name, cells = table.header[j], [row[j] for row in table.rows]
        words = name.split() + (" ".join(cells).split() if j in table.text else cells)
        narrowest = max(map(len, words))  # break text between words, numbers never
        if j not in table.text:  # rich would otherwise take room from numbers and leave it to words
            name = "\n".join(textwrap.wrap(name, narrowest, break_long_words=False))
        printed.add_column(
            rich.text.Text(name),  # in a plain string rich would take brackets for markup
            no_wrap=j not in table.text,
            justify="left" if j in table.text else "right",
            min_width=narrowest,
            max_width=None if j in table.text else narrowest,
            overflow="fold",
            vertical="bottom",
        )
    for i, row in enumerate(table.rows):
        if i in table.sections:
            printed.add_section()
        printed.add_row(
            *(rich.text.Text(row[j], style="bold" if (i, j) in table.bold else "") for j in columns)
        )
    return printed


def _narrowest(printed: RichTable, console: Console) -> int:
    import rich.measure

    return rich.measure.Measurement.get(console, console.options.update(width=1000), printed).minimum


def _markdown(table: Table) -> str:
    header = [escape(name) for name in table.header]
    right = {j for j in range(len(header)) if j not in table.text}
    rows = []
    for i, row in enumerate(table.rows):
        cells = [f"**{escape(c)}**" if (i, j) in table.bold else escape(c) for j, c in enumerate(row)]
        rows.append([*cells, escape(table.remarks.get(i, ""))] if table.remarks else cells)
    parts = [
        "  \n".join(map(escape_words, table.caption)),
        markdown_table([*header, "Note"] if table.remarks else header, rows, right),
    ]
    parts += [" ".join(map(escape_words, table.findings))] if table.findings else []
    parts += ["\n".join(f"- {escape_words(note)}" for note in table.notes)] if table.notes else []
    if table.folded:
        summary = f"<details>\n<summary>{escape(table.title)} ({len(table.rows)} rows)</summary>"
        return "\n\n".join([summary, *parts, "</details>"])
    return "\n\n".join([f"### {escape(table.title)}", *parts])
