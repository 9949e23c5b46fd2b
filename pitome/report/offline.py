"""What the offline experiments gave, as one table: published values, and how far they repeat."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pitome.paper.experiments import OFFLINE, TRAINED_OFFLINE, choose, experiment_names
from pitome.paper.labels import R
from pitome.paper.verdicts import OUTSIDE, WITHIN, JudgedValue, judge
from pitome.records.schema import Record
from pitome.report.cells import number
from pitome.report.item_figure import label_of
from pitome.report.items import PUBLISHED
from pitome.report.rendering import Table

FOLDER = PUBLISHED / "offline"
"""Reports of these experiments as they were run from a fresh clone, committed."""


def offline_sweeps() -> list[str]:
    """The offline experiments of a paper's items that are sweeps and only test; a file with a mistake is left
    out, with one line on stderr."""
    names = experiment_names(skip_broken=True)
    names = [name for name in names if name.endswith(OFFLINE) and not name.endswith(TRAINED_OFFLINE)]
    return [name for name in names if choose(name).sweeps and choose(name).item.values]


def to_table(published: Sequence[Record], folder: Path = FOLDER) -> Table:
    """One line per offline experiment. published: the records this project has committed; folder: of the
    reports, which say what a second run measured."""
    return Table(
        title="Offline experiments",
        caption=[],
        header=["Experiment", "Points", "Repeated", "What comes out"],
        rows=[_line(name, published, folder) for name in offline_sweeps()],
        notes=[],
        text={0, 2, 3},
    )


def read_report(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of a committed report, in the words of its CSV file; none where there is no report."""
    path = folder / f"{name}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _line(name: str, published: Sequence[Record], folder: Path) -> list[str]:
    rows = judge(name, [], published).rows
    known = sum(row.published is not None for row in rows)
    points = str(len(rows)) if known == len(rows) else f"{known} of {len(rows)}"
    return [f"`{name}`", points, _repeated(read_report(name, folder)), _results(rows)]


def _repeated(report: Sequence[dict[str, str]]) -> str:
    """How many points were run a second time, and how far from the first."""
    judged = [row for row in report if row["verdict"] in (WITHIN, OUTSIDE)]
    if not judged:
        return "no"
    largest = max(abs(float(row["difference"])) for row in judged)
    outside = sum(row["verdict"] == OUTSIDE for row in judged)
    apart = f"by up to {largest:.2f}" if largest else "equal"
    return f"{len(judged)}, {apart}" + (f", {outside} outside" if outside else "")


def _method(row: JudgedValue) -> str:
    """The method, and in brackets how it was run."""
    method, _, rest = label_of(row).partition(", ")
    return f"{method} ({rest})" if rest else method


def _results(rows: Sequence[JudgedValue]) -> str:
    """The unmerged value and, of each kind of amount, the values where most is merged, the best first."""
    known = [row for row in rows if row.published is not None]
    if not known:
        return "-"
    parts = [f"unmerged {number(row.published, row.unit)}" for row in known if row.ratio == "-"]
    merged = [row for row in known if row.amount is not None]
    for kind in dict.fromkeys(row.amount_kind for row in merged):
        amounts = [row.amount for row in merged if row.amount_kind == kind and row.amount is not None]
        most = max(amounts) if kind == R else min(amounts)
        rows = [row for row in merged if (row.amount_kind, row.amount) == (kind, most)]
        rows.sort(key=lambda row: row.published or 0.0, reverse=True)
        values = ", ".join(f"{_method(row)} {number(row.published, row.unit)}" for row in rows)
        parts.append(f"at {rows[0].ratio}: {values}")
    return f"{known[0].metric}: " + "; ".join(parts)
