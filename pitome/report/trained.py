"""What a training with merging on gives back, and whether it adapts to its method or to merging as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pitome.paper.experiments import TRAINED_OFFLINE, choose, load
from pitome.paper.labels import label
from pitome.paper.matching import finished_runs
from pitome.paper.points import TRAINED_WITH, Point, trained_offline_points
from pitome.records.identity import CONTROLS, UNMERGED
from pitome.records.rows import Outcomes, ResultRow, mean_outcomes
from pitome.records.schema import Record
from pitome.records.statistics import LEVEL, Comparison, compare, holm
from pitome.report.cells import NOTHING, metric, points
from pitome.report.rendering import Table

_OF_TRAINING = ("mode", "trainer", "limit_train", "weights", TRAINED_WITH)  # keys that a test alone has not

_Scores = tuple[np.ndarray, np.ndarray]
"""Sample ids [n] and their outcomes [n], means over the seeds."""


@dataclass(frozen=True)
class _TrainedLine:
    """One method at one ratio."""

    ratio: float
    method: str
    shelf: _Scores | None  # tested as it is shipped
    plain: _Scores  # trained without merging
    alike: _Scores  # trained with what it is tested with
    gain: Comparison  # alike - plain
    adapted: Comparison | None  # alike - the mean of those trained with the other methods, without controls


def table(item: str, records: Sequence[Record], outcomes: Outcomes) -> Table | None:
    """What the runs of `experiment=<item>_trained_offline` say; None without them."""
    if not trained_offline_points(load(item)):
        return None
    every = choose(item + TRAINED_OFFLINE).points
    base = {
        key: value for key, value in every[0].items() if key not in ("seed", "merge", TRAINED_WITH, "ratio")
    }

    def scores(runs: Sequence[Record]) -> _Scores | None:
        return mean_outcomes(ResultRow(tuple(runs), "", "", "", ""), outcomes) if runs else None

    def trained(how: str, method: str, ratio: float | None) -> list[Record]:
        amount = {} if ratio is None else {"ratio": ratio}
        return finished_runs(base | {TRAINED_WITH: how, "merge": method} | amount, records)

    unmerged = trained(UNMERGED, UNMERGED, None)
    methods = dict.fromkeys(point["merge"] for point in every if point["merge"] != UNMERGED)
    shipped = {key: value for key, value in base.items() if key not in _OF_TRAINING}
    lines = []
    for ratio in dict.fromkeys(point["ratio"] for point in every if "ratio" in point):
        for method in methods:
            plain, alike = (scores(trained(how, method, ratio)) for how in (UNMERGED, method))
            if plain is None or alike is None:
                continue
            gain = compare(*alike, *plain)
            assert gain is not None
            hows = [how for how in methods if how != method and how not in CONTROLS]
            other = scores([run for how in hows for run in trained(how, method, ratio)])
            adapted = None if other is None else compare(*alike, *other)
            shelf = scores(finished_runs(shipped | {"merge": method, "ratio": ratio}, records))
            lines.append(_TrainedLine(ratio, method, shelf, plain, alike, gain, adapted))
    whole = scores(unmerged)
    if whole is None or not lines:
        return None
    return _laid_out(item, base, whole, lines, unmerged)


def _laid_out(
    item: str, base: Point, whole: _Scores, lines: Sequence[_TrainedLine], unmerged: Sequence[Record]
) -> Table:
    tests = [test for line in lines for test in (line.gain, line.adapted) if test is not None]
    adjusted = dict(zip(map(id, tests), holm([test.p for test in tests]), strict=True))

    def difference(test: Comparison | None) -> str:
        if test is None:
            return NOTHING
        return points(test.difference) + (" *" if adjusted[id(test)] < LEVEL else "")

    rows = []
    for line in lines:
        lost = float(whole[1].mean() - line.plain[1].mean())
        share = f"{100 * line.gain.difference.value / lost:.0f}" if lost > 0 else NOTHING
        scores = [_percent(scores) for scores in (line.shelf, line.plain, line.alike)]
        rows.append(
            [f"{line.ratio:g}", line.method, *scores, difference(line.gain), share, difference(line.adapted)]
        )
    model, data = label("model", base["model"]), label("data", base["data"])
    name, seeds = metric(unmerged), len(unmerged)
    return Table(
        title=f"{load(item).item}: trained with merging on, {model} on {data}, this project's own model",
        caption=[f"Command: `python run.py -m experiment={item}{TRAINED_OFFLINE}`."],
        header=[
            "Ratio",
            "Tested with",
            "Off the shelf",
            "Trained without",
            "Trained alike",
            "Alike - without",
            "Of the loss, %",
            "Alike - others",
        ],
        rows=rows,
        notes=[
            f"{name} in percent over {len(whole[0]):,} samples, mean of {seeds} seed{'s' * (seeds != 1)}; "
            f"unmerged, trained without merging: {_percent(whole)}.",
            "Off the shelf: as it is shipped. Trained without: as long, without merging. Alike: with the "
            "method it is tested with, at the same ratio. Others: with the other methods, without controls.",
            "Differences in points with the 95 % interval of a paired bootstrap over samples; *: significant "
            f"after Holm's correction for {len(tests)} tests. They say nothing of other seeds.",
        ],
        text={1},
    )


def _percent(scores: _Scores | None) -> str:
    return NOTHING if scores is None else f"{100 * scores[1].mean():.2f}"
