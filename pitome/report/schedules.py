"""What a schedule gives beside the uniform ratio, at equal FLOPs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pitome.paper.checks import not_built
from pitome.paper.item import PaperItem
from pitome.paper.labels import label
from pitome.paper.matching import finished_runs
from pitome.paper.points import Point, offline_points
from pitome.records.rows import Outcomes, ResultRow, mean_outcomes
from pitome.records.schema import Record
from pitome.records.statistics import LEVEL, Comparison, Interval, compare, holm
from pitome.report.cells import NOTHING, metric, points
from pitome.report.rendering import Table
from pitome.sources.schedule_file import MADE, UNIFORM

KINDS = tuple(kind.rstrip("/") for kind in MADE)
EVERY = "in every layer"  # the uniform ratio where the task merges in fewer


@dataclass(frozen=True)
class _ScheduleRun:
    """A run with a schedule, beside a uniform one of the same model, method and target."""

    name: str  # of the schedule
    difference: Interval  # as a share
    p: float  # after Holm's correction for all runs that are compared likewise


def table(item: PaperItem, records: Sequence[Record], outcomes: Outcomes) -> Table | None:
    """The offline runs of an item with schedules that this project made; None without them."""
    runs: dict[tuple[str, str, str], dict[str, Record]] = {}
    for point in offline_points(item):
        if (place := _place(point)) is None or not_built(point) is not None:
            continue
        found = finished_runs(point, records)
        *key, kind = place
        if found and found[0].score is not None:
            runs.setdefault((key[0], key[1], key[2]), {})[kind] = found[0]
    lines = {key: here for key, here in runs.items() if UNIFORM in here and len(here) > 1}
    tests, every = (_tests(lines.values(), base, outcomes) for base in (UNIFORM, EVERY))
    if not tests:
        return None
    significant = {run_id for run_id, run in tests.items() if run.p < LEVEL}

    def cell(record: Record | None) -> str:
        if record is None or record.score is None or record.cost is None:
            return NOTHING
        text = f"{100 * record.score:.2f} ({100 * record.cost.share:.1f})"
        if (run := tests.get(record.run_id)) is None:
            return text
        return f"{text} {points(run.difference)}" + (" *" if record.run_id in significant else "")

    shown = [kind for kind in (UNIFORM, EVERY, *KINDS) if any(kind in here for here in lines.values())]
    rows = [
        [label("model", model), method, target, *(cell(here.get(kind)) for kind in shown)]
        for (model, method, target), here in lines.items()
    ]
    names = dict.fromkeys(
        f"{label('model', here[UNIFORM].model.name)}: {metric([here[UNIFORM]])}" for here in lines.values()
    )
    asked = sum(_place(point) is not None and "flops" not in point for point in offline_points(item))
    tested = sum(kind in here for here in lines.values() for kind in KINDS)
    better = sum(_is_better(tests[run_id]) for run_id in significant)
    clear = [run for run in every.values() if run.p < LEVEL]
    above = [f"{run.name} {points(run.difference)}" for run in clear if _is_better(run)]
    which = f" ({'; '.join(above)})" if above else ""
    beside = [
        f"Beside the uniform ratio {EVERY}, of {len(every)} schedules, {len(above)} are significantly better"
        f"{which}, {len(clear) - len(above)} significantly worse, after Holm's correction for {len(every)} "
        "tests."
    ]
    return Table(
        title=f"{item.item}: against the uniform ratio",
        caption=[],
        header=["Model", "Method", "FLOPs", *(kind.capitalize() for kind in shown)],
        rows=rows,
        notes=[
            f"{'; '.join(names)}; in percent, in brackets the measured share of the unmerged FLOPs, then the "
            "difference to the uniform ratio in points with the 95 % interval of a paired bootstrap over the "
            f"test samples; *: significant after Holm's correction for {len(tests)} tests.",
            f"Of the {asked} schedules of this experiment {tested} are made and tested so far."
            if tested < asked
            else f"All {asked} schedules of this experiment are tested.",
            f"Of these {len(tests)} schedules, {better} are significantly better than their uniform ratio, "
            f"{len(significant) - better} significantly worse.",
            *(beside if every else []),
        ],
        text={0, 1},
    )


def _tests(lines: Collection[Mapping[str, Record]], base: str, outcomes: Outcomes) -> dict[str, _ScheduleRun]:
    """Run id -> a run with a schedule beside the uniform one of the kind `base` of the same line."""
    compared: dict[str, tuple[str, Comparison]] = {}
    for here in lines:
        uniform = _outcomes(here[base], outcomes) if base in here else None
        for kind in KINDS if uniform is not None else ():
            ours = _outcomes(here[kind], outcomes) if kind in here else None
            test = None if ours is None or uniform is None else compare(*ours, *uniform)
            if test is not None:
                record = here[kind]
                compared[record.run_id] = (str(record.method.asked["schedule"]), test)
    adjusted = holm([test.p for _, test in compared.values()])
    return {
        run_id: _ScheduleRun(name, test.difference, p)
        for (run_id, (name, test)), p in zip(compared.items(), adjusted, strict=True)
    }


def _outcomes(record: Record, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray] | None:
    return mean_outcomes(ResultRow((record,), "", "", "", ""), outcomes)


def _is_better(run: _ScheduleRun) -> bool:
    return run.difference.value > 0


def _place(point: Point) -> tuple[str, str, str, str] | None:
    """Model, method, target and kind of schedule of a point; None for other points."""
    schedule, names = point.get("schedule"), (point["model"], point["merge"])
    if "flops" in point:
        return (*names, f"{point['flops']:g}", EVERY if point.get("layers") == "every1" else UNIFORM)
    if not isinstance(schedule, str) or not schedule.startswith(MADE):
        return None
    return (*names, schedule.rpartition("@")[2], schedule.partition("/")[0])
