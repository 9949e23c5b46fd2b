"""Tables of text, for the terminal and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pitome.records.files import write_atomically
from pitome.records.markdown import escape, escape_words, markdown_table

if TYPE_CHECKING:
    from rich.console import Console


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


def to_markdown(tables: Sequence[Table], note: str | None = None) -> str:
    """GitHub-flavoured Markdown; `note` stands below all tables."""
    return "\n\n".join([*map(_markdown, tables), *([note] if note else [])]) + "\n"


def write_markdown(path: Path, tables: Sequence[Table], note: str | None = None) -> None:
    """Write the tables to `path` in one step. Raises RecordError if it cannot be written."""
    write_atomically(path, to_markdown(tables, note).encode())


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
        if table.folded and len(table.rows) > LONGEST:
            # A terminal cannot fold; the files hold it all.
            console.print(f"\n{table.title}: {len(table.rows)} rows, in the Markdown file", markup=False)
            continue
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
            if i in table.sections:
                printed.add_section()
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
    parts += ["\n".join(f"- {escape_words(note)}" for note in table.notes)] if table.notes else []
    if table.folded:
        summary = f"<details>\n<summary>{escape(table.title)} ({len(table.rows)} rows)</summary>"
        return "\n\n".join([summary, *parts, "</details>"])
    return "\n\n".join([f"### {escape(table.title)}", *parts])
