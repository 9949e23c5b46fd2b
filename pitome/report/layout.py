"""An experiment as the paper lays it out: methods as rows, metrics as columns; also in LaTeX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pitome.paper.experiments import choose
from pitome.paper.labels import AS_PUBLISHED, AUTHORS
from pitome.paper.metrics import METRICS
from pitome.paper.verdicts import YOURS, ItemVerdicts, JudgedValue
from pitome.report.cells import NOTHING, number
from pitome.report.item_figure import label_of
from pitome.report.rendering import Table

_SOURCES = {"printed": "printed", "logged": "logged", "published": "published by us", "measured": "measured"}
_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPES |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclasses.dataclass(frozen=True)
class _Line:
    """A row: one method at one amount on one model."""

    model: str
    method: str
    ratio: str
    values: Mapping[str, JudgedValue]  # title of a metric -> its value
    quoted: bool  # another work's numbers

    @property
    def rivals(self) -> tuple[str, str, str]:
        """Rows of which one is the best: the same model and amount, trained apart from off the shelf."""
        first = next(iter(self.values.values()))
        return self.model, self.ratio, "trained" if "trained" in first.variant.split(", ") else ""


def layouts(verdicts: ItemVerdicts, caption: Sequence[str]) -> list[Table]:
    """One table for each data set, and a folded one of the numbers that are quoted from other works. caption:
    lines above the first."""
    made: list[Table] = []
    name = f"{verdicts.item}: {verdicts.title}" + (" (offline)" if verdicts.offline else "")
    for data, lines in _by_data(verdicts).items():
        for quoted in (False, True):
            part = [line for line in lines if line.quoted is quoted]
            if part:
                title = f"{name}, {data}" + (", quoted from other works" if quoted else "")
                made.append(_table(verdicts, title, part, [] if made else caption, folded=quoted))
    return made


def to_latex(verdicts: ItemVerdicts) -> str:
    """The same as tables in the style of the package booktabs; what is quoted stands below a rule."""
    parts = [f"% {verdicts.name}: {verdicts.command}"]
    for data, lines in _by_data(verdicts).items():
        columns, used = _columns(lines), _used(lines)
        best = _best(verdicts, lines)
        parts += [
            f"% {data}; each cell: {' / '.join(_SOURCES[field] for field in used)}",
            rf"\begin{{tabular}}{{lll{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(map(latex, ["Model", "Method", "Ratio", *columns])) + r" \\",
        ]
        previous = None
        for i, line in sorted(enumerate(lines), key=lambda pair: pair[1].quoted):
            section = "" if line.quoted else line.model
            if section != previous:
                parts.append(r"\midrule")
            previous = section
            cells = [latex(text) for text in (line.model, line.method, line.ratio)]
            for column in columns:
                text = latex(_cell(line.values.get(column), used))
                cells.append(rf"\textbf{{{text}}}" if (i, column) in best else text)
            parts.append(" & ".join(cells) + r" \\")
        parts += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*parts, ""])


def latex(text: str) -> str:
    """Text in which LaTeX reads no command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _by_data(verdicts: ItemVerdicts) -> dict[str, list[_Line]]:
    """Data set -> its rows; rows of one model and amount side by side, else in the item's order, quoted ones
    last. The method as published has a row beside the authors' code of it once it was measured: the paper's
    numbers stand in the other one."""
    grouped: dict[str, dict[tuple[str, str, str, bool], dict[str, JudgedValue]]] = {}
    of_authors = {_cell_of(row) for row in verdicts.rows if AUTHORS in row.variant.split(", ")}
    for row in verdicts.rows:
        if AS_PUBLISHED in row.variant.split(", ") and _cell_of(row) in of_authors and not verdicts.offline:
            if row.measured is None:
                continue
            row = dataclasses.replace(row, printed=None, logged=None)
        key = (row.model, _method(row), row.ratio, not row.point)
        grouped.setdefault(row.data or NOTHING, {}).setdefault(key, {}).setdefault(row.title, row)
    out = {}
    for data, here in grouped.items():
        lines = [_Line(model, method, ratio, values, q) for (model, method, ratio, q), values in here.items()]
        models = list(dict.fromkeys(line.model for line in lines))
        rivals = list(dict.fromkeys(line.rivals for line in lines))
        places = {
            id(line): (line.quoted, models.index(line.model), rivals.index(line.rivals)) for line in lines
        }
        out[data] = sorted(lines, key=lambda line: places[id(line)])
    return out


def _cell_of(row: JudgedValue) -> tuple[str, ...]:
    return row.data, row.model, row.method, row.ratio, row.metric


def _method(row: JudgedValue) -> str:
    """The method, how it was run, and whether it is the reader's."""
    parts = row.variant.split(", ")
    trained = ", trained" if "trained" in parts else ""
    return label_of(row) + trained + (f" ({YOURS})" if row.verdict == YOURS else "")


def _columns(lines: Sequence[_Line]) -> list[str]:
    """The metrics that have a number."""
    titles = dict.fromkeys(title for line in lines for title in line.values)
    known = {
        title
        for line in lines
        for title, row in line.values.items()
        if any(getattr(row, field) is not None for field in _SOURCES)
    }
    return [title for title in titles if title in known] or list(titles)


def _used(lines: Sequence[_Line]) -> list[str]:
    """Which of printed, logged, published and measured a cell has."""
    values = [row for line in lines for row in line.values.values()]
    return [field for field in _SOURCES if any(getattr(row, field) is not None for row in values)] or [
        "measured"
    ]


def _cell(row: JudgedValue | None, used: Sequence[str]) -> str:
    if row is None or all(getattr(row, field) is None for field in used):
        return NOTHING
    return " / ".join(number(getattr(row, field), row.unit) for field in used)


def _best(verdicts: ItemVerdicts, lines: Sequence[_Line]) -> set[tuple[int, str]]:
    """(row, column) of the best of several methods: by our numbers where all that are compared have one, else
    by the paper's."""
    better = {METRICS[name].label: rule.better for name, rule in choose(verdicts.name).item.metrics.items()}
    best: set[tuple[int, str]] = set()
    for column in _columns(lines):
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, line in enumerate(lines):
            if column in line.values and not line.quoted and line.ratio != NOTHING:
                groups.setdefault(line.rivals, []).append(i)
        for members in groups.values():
            values = {i: lines[i].values[column] for i in members}
            for fields in (("measured", "published"), ("printed", "logged")):
                known = {i: value for i, row in values.items() if (value := _first(row, fields)) is not None}
                if len(known) == len(values) > 1:
                    sign = -1 if better.get(next(iter(values.values())).metric) == "lower" else 1
                    top = max(sign * value for value in known.values())
                    if len(set(known.values())) > 1:
                        best |= {(i, column) for i, value in known.items() if sign * value == top}
                    break
    return best


def _first(row: JudgedValue, fields: Iterable[str]) -> float | None:
    return next((value for field in fields if (value := getattr(row, field)) is not None), None)


def _table(
    verdicts: ItemVerdicts, title: str, lines: Sequence[_Line], caption: Sequence[str], *, folded: bool
) -> Table:
    columns, used = _columns(lines), _used(lines)
    best = _best(verdicts, lines)
    notes = [
        f"Each cell: {' / '.join(_SOURCES[field] for field in used)}. Bold: the best of one model and amount."
    ]
    return Table(
        title=title,
        caption=list(caption),
        header=["Model", "Method", "Ratio", *columns],
        rows=[
            [
                line.model or NOTHING,
                line.method,
                line.ratio,
                *(_cell(line.values.get(c), used) for c in columns),
            ]
            for line in lines
        ],
        notes=[] if folded else notes,
        bold={(i, 3 + columns.index(column)) for i, column in best},
        text={0, 1, 2},
        sections={i for i in range(1, len(lines)) if lines[i].model != lines[i - 1].model and not folded},
        folded=folded,
        names=3,
    )
