"""What the page shows: tables with plots, as plain values for the template."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

NOTHING = "-"


@dataclass(frozen=True)
class TableCell:
    """A cell of a table on the page."""

    text: str  # as it is read
    value: float | str | None = None  # as it is sorted and compared (a number in full precision)
    strong: bool = False  # in bold
    tone: str = ""  # `good`, `bad` or `mute`


@dataclass(frozen=True)
class Column:
    """A column of a table on the page."""

    name: str
    number: bool = False  # aligned and sorted as numbers
    title: str = ""  # explains the column, on hover


@dataclass(frozen=True)
class TableLine:
    """A row. The filters use model, method, variant, verdict and setting."""

    cells: list[TableCell]
    model: str
    method: str
    variant: str
    verdict: str
    command: str  # that makes its runs
    setting: str = NOTHING
    records: list[str] = field(default_factory=list)  # run ids
    note: str = ""
    tokens: list[float] = field(default_factory=list)  # entering each layer, then the final count
    against: list[str] = field(default_factory=list)  # its comparisons with other rows, as text


@dataclass(frozen=True)
class Plot:
    """Figures of which the reader chooses one."""

    title: str
    panels: dict[str, str]  # name -> a figure of plotly as JSON
    note: str = ""  # below the figure


@dataclass(frozen=True)
class PagePicture:
    """A picture of tokens."""

    title: str
    data: str  # a PNG as a data URL
    alt: str  # what it shows, in words
    command: str = ""  # draws it
    width: int = 0  # pixels
    height: int = 0


@dataclass(frozen=True)
class View:
    """One table and its plots."""

    key: str  # its address after the `#`
    kind: str  # `paper`, `offline` or `sweep`
    item: str
    title: str
    facts: dict[str, str]  # term -> description
    columns: list[Column]
    lines: list[TableLine]
    plots: list[Plot] = field(default_factory=list)
    pictures: list[PagePicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)  # verdict -> number of rows
    findings: list[str] = field(default_factory=list)  # what its numbers mean, in sentences
    links: dict[str, str] = field(default_factory=dict)  # key of another view -> what it is

    def compact(self) -> View:
        """Without empty columns; a model or data set that is the same in every row becomes a fact."""
        shared = {
            column.name: texts.pop()
            for i, column in enumerate(self.columns)
            if column.name in ("Model", "Data")
            and len(texts := {line.cells[i].text for line in self.lines}) == 1
        }
        filled = [
            i
            for i, column in enumerate(self.columns)
            if column.name not in shared
            and any(line.cells[i].value is not None or line.cells[i].tone for line in self.lines)
        ]
        lines = [replace(line, cells=[line.cells[i] for i in filled]) for line in self.lines]
        facts = {name: text for name, text in shared.items() if text != NOTHING} | self.facts
        return replace(self, columns=[self.columns[i] for i in filled], lines=lines, facts=facts)

    def filters(self) -> dict[str, list[str]]:
        """Name of a filter -> its choices, where there is a choice."""
        out: dict[str, list[str]] = {}
        for name in ("model", "method", "variant", "setting", "verdict"):
            values = list(dict.fromkeys(str(getattr(line, name)) for line in self.lines))
            if len(values) > 1:
                out[name] = values
        return out


def number(value: float | None, digits: int = 2, unit: str = "", *, sign: bool = False) -> TableCell:
    """A number to read, sorted by its full value."""
    if value is None:
        return TableCell(NOTHING)
    return TableCell(f"{value:{'+' if sign else ''},.{digits}f}{unit}", value)


def word(text: str, tone: str = "") -> TableCell:
    return TableCell(text or NOTHING, text or None, tone=tone)
