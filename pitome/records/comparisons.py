"""Which rows of a table are compared, and the verdicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pitome.records.identity import CONTROLS, RESIZE
from pitome.records.rows import Outcomes, ResultRow, mean_outcomes, resize_for
from pitome.records.statistics import LEVEL, Comparison, compare, holm


@dataclass(frozen=True)
class Pair:
    """`first` against `second`, at one setting."""

    first: ResultRow
    second: ResultRow
    result: Comparison
    adjusted: float  # p-value after Holm's correction over all pairs of the group of runs
    better: bool  # whether the first has the better score

    @property
    def significant(self) -> bool:
        """Whether the two differ significantly."""
        return self.adjusted < LEVEL

    @property
    def verdict(self) -> str:
        if not self.significant:
            return "not significant"
        return "significantly better" if self.better else "significantly worse"


def pairs(table: Sequence[ResultRow], outcomes: Outcomes) -> list[Pair]:
    """All comparisons of one group of runs, setting by setting: every row against the unmerged
    model, every method against every control at the same setting, the best method against the runner-up.

    Pairs without a score or per-sample outcomes are left out. Raises RecordError if outcomes have
    an id twice.
    """
    wanted = _wanted([row for row in table if row.scored])
    every = {row.first.run_id: row for pair in wanted for row in pair}
    means = {run_id: mean_outcomes(row, outcomes) for run_id, row in every.items()}
    # By run: a control that stands in several settings is one comparison, not many.
    results: dict[tuple[str, str], Comparison] = {}
    for first, second in wanted:
        ours, theirs = means[first.first.run_id], means[second.first.run_id]
        if _runs(first, second) in results or ours is None or theirs is None:
            continue
        if (result := compare(*ours, *theirs)) is not None:
            results[_runs(first, second)] = result
    adjusted = dict(zip(results, holm([result.p for result in results.values()]), strict=True))
    return [
        Pair(
            first,
            second,
            result := results[_runs(first, second)],
            adjusted[_runs(first, second)],
            (result.difference.value > 0) is first.first.headline.higher_is_better,
        )
        for first, second in wanted
        if _runs(first, second) in results
    ]


def to_unmerged(compared: Sequence[Pair]) -> dict[tuple[str, str], Pair]:
    """Row (its `key`) -> its comparison with the unmerged model."""
    return {pair.first.key: pair for pair in compared if not pair.second.merges}


def to_controls(compared: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Row (its `key`) -> its comparisons with the controls."""
    out: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in compared:
        if pair.second.method in CONTROLS and pair.first.method not in CONTROLS:
            out[pair.first.key].append(pair)
    return out


def _wanted(table: Sequence[ResultRow]) -> list[tuple[ResultRow, ResultRow]]:
    unmerged = [row for row in table if not row.merges]
    points: dict[str, list[ResultRow]] = defaultdict(list)
    for row in table:
        if row.merges:
            points[row.point].append(row)
    out = [(row, unmerged[0]) for row in unmerged[1:]]  # of the same model, trained with merging
    for here in points.values():
        methods = [row for row in here if row.method not in CONTROLS]
        blind = [row for row in here if row.method in CONTROLS and row.method != RESIZE]
        out += [(row, unmerged[0]) for row in here if unmerged]
        for row in methods:
            out += [(row, control) for control in [*blind, *resize_for(row, here)]]
        if len(methods) > 1:
            higher = methods[0].first.headline.higher_is_better
            ranked = sorted(methods, key=lambda row: row.score or 0.0, reverse=higher)
            out.append((ranked[0], ranked[1]))
    return out


def _runs(first: ResultRow, second: ResultRow) -> tuple[str, str]:
    return first.first.run_id, second.first.run_id
