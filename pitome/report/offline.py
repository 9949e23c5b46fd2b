"""What the offline experiments gave, as one table: published values, and how far they repeat."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pitome.paper.loading import OFFLINE, choose, words
from pitome.paper.outcome import OUTSIDE, WITHIN, Row, outcome
from pitome.paper.schema import RUNS
from pitome.records.schema import Record
from pitome.report.item_figure import label_of
from pitome.report.items import PUBLISHED, number
from pitome.report.rendering import Table

FOLDER = PUBLISHED / "offline"
"""Reports of these experiments as they were run from a fresh clone, committed."""


def items() -> list[str]:
    """The offline experiments that are sweeps; a file with a mistake is left out, with one line on stderr."""
    return [
        word for word in words(sound=True) if word.endswith(OFFLINE) and choose(word).experiment.kind == RUNS
    ]


def to_table(published: Sequence[Record], folder: Path = FOLDER) -> Table:
    """One line per offline experiment. published: the records this project has committed; folder: of the
    reports, which say what a second run measured."""
    return Table(
        title="Offline experiments",
        caption=[],
        header=["Experiment", "Points", "Repeated", "What comes out"],
        rows=[_line(word, published, folder) for word in items()],
        notes=[],
        text={0, 2, 3},
    )


def read(word: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """The rows of a committed report, in the words of its CSV file; none where there is no report."""
    path = folder / f"{word}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _line(word: str, published: Sequence[Record], folder: Path) -> list[str]:
    found = outcome(word, [], published).rows
    known = sum(row.published is not None for row in found)
    points = str(len(found)) if known == len(found) else f"{known} of {len(found)}"
    return [f"`{word}`", points, _repeated(read(word, folder)), _said(found)]


def _repeated(report: Sequence[dict[str, str]]) -> str:
    """How many points were run a second time, and how far from the first."""
    judged = [row for row in report if row["verdict"] in (WITHIN, OUTSIDE)]
    if not judged:
        return "no"
    largest = max(abs(float(row["difference"])) for row in judged)
    outside = sum(row["verdict"] == OUTSIDE for row in judged)
    apart = f"by up to {largest:.2f}" if largest else "equal"
    return f"{len(judged)}, {apart}" + (f", {outside} outside" if outside else "")


def _name(row: Row) -> str:
    """The method, and in brackets how it was run."""
    method, _, rest = label_of(row).partition(", ")
    return f"{method} ({rest})" if rest else method


def _said(rows: Sequence[Row]) -> str:
    """The unmerged value and, of each kind of amount, those where most is merged, the best first."""
    known = [row for row in rows if row.published is not None]
    if not known:
        return "-"
    parts = [f"unmerged {number(row.published, row.unit)}" for row in known if row.ratio == "-"]
    kinds: dict[str, list[Row]] = {}
    for row in known:
        kinds.setdefault(row.ratio.rpartition(" ")[0], []).append(row)
    for kind, members in kinds.items():
        amounts = [float(row.ratio.rpartition(" ")[2]) for row in members if row.ratio != "-"]
        if not amounts:
            continue
        most = max(amounts) if kind == "r" else min(amounts)
        here = [row for row in members if row.ratio != "-" and float(row.ratio.rpartition(" ")[2]) == most]
        here = sorted(here, key=lambda row: row.published or 0.0, reverse=True)
        values = ", ".join(f"{_name(row)} {number(row.published, row.unit)}" for row in here)
        parts.append(f"at {here[0].ratio}: {values}")
    return f"{known[0].metric}: " + "; ".join(parts)
