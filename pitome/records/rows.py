"""From runs to the rows of a table: seeds together, controls where they belong."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitome.records.identity import RESIZE, UNMERGED
from pitome.records.schema import Record
from pitome.records.settings import order, point, point_name, setting, training, word, word_of

Outcomes = Callable[[Record], Mapping[str, Any] | None]
"""From a record to its per-sample outcomes (column -> [n]), e.g. `Store.outcomes`."""


@dataclass(frozen=True)
class ResultRow:
    """Runs that differ by the seed only, at one setting; a failed run stands alone."""

    runs: tuple[Record, ...]
    label: str  # the method, with the options in which its runs differ
    point: str  # key shared by rows with the same requested reduction; see `settings.point`
    point_name: str  # the same as text
    setting: str  # as text, with the ratio that was applied
    whole: bool = (
        False  # whether costs are of whole questions: some run of the table removes tokens after a tower
    )

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the row: the control `resize` may occur in several settings."""
        return self.first.run_id, self.point

    @property
    def first(self) -> Record:
        """The run with the lowest seed; what does not depend on the seed is read from it."""
        return self.runs[0]

    @property
    def method(self) -> str:
        return self.first.method.name

    @property
    def series(self) -> str:
        """What its line in a plot is called."""
        words = training(self.first)
        return self.method if self.method == RESIZE else f"{self.label} ({words})" if words else self.label

    @property
    def score(self) -> float | None:
        """The headline metric, mean over the seeds."""
        scores = [run.score for run in self.runs if run.score is not None]
        return statistics.fmean(scores) if len(scores) == len(self.runs) else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the score over the seeds (n - 1); None for a single run."""
        scores = [run.score for run in self.runs if run.score is not None]
        return statistics.stdev(scores) if len(scores) > 1 else None

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of a sample: of an encoder, or of a whole question."""
        cost = self.first.cost
        return None if cost is None else cost.total_macs if self.whole else cost.macs

    @property
    def share(self) -> float | None:
        """`macs` as a share of the unmerged model's."""
        cost = self.first.cost
        return None if cost is None else cost.question_share if self.whole else cost.share

    @property
    def merges(self) -> bool:
        return self.method != UNMERGED

    @property
    def scored(self) -> bool:
        return self.first.done and self.score is not None


def rows(members: Sequence[Record]) -> list[ResultRow]:
    """The rows of one group of runs (see `groups.group`), in its order.

    The control `resize` is listed once in every setting that it is a control for, so possibly more
    than once; at the end where it is for none.
    """
    names = labels(members)
    together: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for m in members:
        key: tuple[str, ...] = (m.method.name, point(m), training(m), word_of(_options(m)))
        together[key if m.done else (*key, m.run_id)].append(m)
    whole = any(m.method.place for m in members)
    made = [
        ResultRow(
            tuple(sorted(runs, key=lambda run: run.seed)),
            names[runs[0].run_id],
            *_place(runs[0]),
            whole=whole,
        )
        for runs in sorted(together.values(), key=lambda runs: order(runs[0]))
    ]
    controls = [row for row in made if row.method == RESIZE and row.first.done]
    out: list[ResultRow] = []
    used: set[str] = set()
    rest = [row for row in made if row not in controls]
    places = {row.point: i for i, row in reversed(list(enumerate(rest)))}
    rest.sort(key=lambda row: places[row.point])  # also those whose costs would tear them apart
    for i, row in enumerate(rest):
        out.append(row)
        if i + 1 == len(rest) or rest[i + 1].point != row.point:
            here = [control for control in controls if _answers(control, row.point, rest)]
            out += [
                ResultRow(control.runs, control.label, row.point, row.point_name, row.point_name)
                for control in here
            ]
            used |= {control.label for control in here}
    return out + [control for control in controls if control.label not in used]


def size_of(record: Record) -> str:
    """Image size of the control `resize` in pixels: `26x24` (height x width)."""
    return "x".join(map(str, record.method.options.get("size", ["?"])))


def resize_for(row: ResultRow, table: Sequence[ResultRow]) -> list[ResultRow]:
    """The control `resize` of `row`: the largest image whose cost is within the row's budget."""
    return [c for c in table if c.method == RESIZE and c.point == row.point and _serves(c.first, row)]


def labels(members: Sequence[Record]) -> dict[str, str]:
    """Run id -> name of the method, with the options in which the runs differ; a failed run with its
    seed where there are several."""
    by_method: dict[str, list[Record]] = defaultdict(list)
    for record in members:
        by_method[record.method.name].append(record)
    several_seeds = len({m.seed for m in members}) > 1
    names = {}
    for name, runs in by_method.items():
        # A failed run may have stopped before its options were resolved.
        known = [_options(r) for r in runs if r.method.options]
        differing = sorted(
            key
            for key in {key for options in known for key in options}
            if len({word(options.get(key)) for options in known}) > 1
        )
        for run in runs:
            if name == RESIZE and run.done:
                names[run.run_id] = f"{name} {size_of(run)}"
                continue
            options = _options(run)
            parts = [f"{key}={word(options[key])}" for key in differing if key in options]
            parts += [f"seed {run.seed}"] if several_seeds and not run.done else []
            names[run.run_id] = f"{name} ({', '.join(parts)})" if parts else name
    return names


def mean_outcomes(row: ResultRow, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray] | None:
    """Sample ids [n] and their outcomes [n], mean over the row's seeds, over the samples that all
    of its runs have; None where a run has none."""
    column = row.first.headline.outcome
    read = [outcomes(run) for run in row.runs]
    if column is None or any(table is None or column not in table for table in read):
        return None
    tables = [(np.asarray(table["id"]), np.asarray(table[column], dtype=float)) for table in read if table]
    ids, values = tables[0]
    for other_ids, other in tables[1:]:
        if len(np.unique(other_ids)) < len(other_ids) or len(np.unique(ids)) < len(ids):
            return ids, values  # for the comparison to refuse
        ids, left, right = np.intersect1d(ids, other_ids, assume_unique=True, return_indices=True)
        values = values[left] + other[right]
    # Rounded: equal thirds must stay equal however they were summed.
    return ids, np.round(values / len(tables), 12)


def identical(row: ResultRow, outcomes: Outcomes) -> bool:
    """Whether several seeds gave the same outcome on every sample."""
    mean = mean_outcomes(row, outcomes) if len(row.runs) > 1 else None
    if mean is None or row.deviation != 0:
        return False
    first = mean_outcomes(ResultRow(row.runs[:1], "", "", "", ""), outcomes)
    assert first is not None
    if len(first[0]) != len(mean[0]):
        return False
    return bool(np.array_equal(first[1][np.argsort(first[0])], mean[1][np.argsort(mean[0])]))


def _options(record: Record) -> dict[str, Any]:
    """Of the method; its own seed is left out where it is the run's."""
    return {k: v for k, v in record.method.options.items() if k != "seed" or v != record.seed}


def _place(record: Record) -> tuple[str, str, str]:
    return point(record), point_name(record), setting(record)


def _answers(control: ResultRow, here: str, table: Sequence[ResultRow]) -> bool:
    return here != "" and any(row.point == here and _serves(control.first, row) for row in table)


def _serves(control: Record, row: ResultRow) -> bool:
    """Whether `control` is the largest image within the budget of `row`: of what it was asked to
    cost, or else of what it costs. Its next larger image would be above."""
    if row.method == RESIZE or not row.first.done:
        return False
    record = row.first
    budget = record.method.asked.get("flops", record.cost.share if record.cost else None)
    share, larger = control.method.asked.get("shares", (2.0, 2.0))
    return budget is not None and share <= budget < larger
