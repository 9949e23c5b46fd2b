"""Step 7: each value of an item beside what was measured, with a verdict. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from pitome.paper import costs
from pitome.paper.checks import not_built
from pitome.paper.experiments import Experiment, choose
from pitome.paper.item import MetricRule
from pitome.paper.labels import LabelledPoint, label_point
from pitome.paper.matching import Addition, additions, finished_runs, why_unfinished
from pitome.paper.metrics import METRICS, Metric
from pitome.paper.points import PaperValue, Point, command, paper_values, published_name
from pitome.records.schema import Record

WITHIN, OUTSIDE, NOT_RUN = "within", "outside", "not run"
ONLY_PUBLISHED = "published"  # by this project, and not run a second time on this machine
UNEXPLAINED = "unexplained"  # the cause that nobody knows
LOGGED_OTHERWISE = "logged otherwise"  # the authors' result files have what is measured, not what is printed
NOT_JUDGED = "not judged"  # measured, with nothing to compare it with, or without a tolerance
YOURS = (
    "yours"  # a run beside those of the item: another method or other options at its models, data, amounts
)
VERDICTS = (WITHIN, OUTSIDE, ONLY_PUBLISHED, NOT_JUDGED, YOURS, NOT_RUN)
_ROUNDING = 1e-9  # 79.4 - 79.1 is above 0.3 in binary


@dataclass(frozen=True, kw_only=True)
class JudgedValue(LabelledPoint):
    """One value of a table or figure beside what was measured; a number of another work that is only
    quoted has an empty point. The CSV files have these fields."""

    metric: str
    unit: str  # of all numbers: `%`, `Rsum`, `GMACs`, `x`, `points`, ...
    printed: float | None = None  # by the paper
    logged: float | None = None  # by the authors' result files
    published: float | None = None  # by this project, for offline experiments alone
    measured: float | None = None  # by a run, or computed where the metric needs no run
    interval: tuple[float, float] | None = None  # 95 %, of the measured value, else of the published one
    difference: float | None = None  # measured minus printed, else minus logged, else minus published
    tolerance: float | None = None
    verdict: str = NOT_RUN  # one of VERDICTS
    cause: str = ""  # why a value of the paper is outside, in a few words
    reason: str = ""  # why it was not run, not repeated or not judged, or what else is to be said
    command: str = ""  # the run's
    run_id: str | None = None  # of its record

    @property
    def title(self) -> str:
        """The metric with its unit, where its name does not say it."""
        return f"{self.metric}, {self.unit}" if self.unit and self.unit not in self.metric else self.metric

    @property
    def judgement(self) -> str:
        """The verdict, and the cause where there is one."""
        return f"{self.verdict}: {self.cause}" if self.cause else self.verdict

    @property
    def is_cost(self) -> bool:
        """Whether its metric is computed from the architecture, without a run."""
        return any(metric.computed and metric.label == self.metric for metric in METRICS.values())


@dataclass(frozen=True, kw_only=True)
class ItemVerdicts:
    """An experiment with a verdict on each of its values."""

    name: str  # as in `experiment=<name>`
    title: str
    item: str  # `Table 5`, `Figure 3`
    paper: str  # that it is of: `arXiv 2405.16148`
    command: str  # runs it
    needs: str  # in words
    expect: str  # in words
    offline: bool  # whether the rows are of this project's own models, without the paper's numbers
    rows: list[JudgedValue] = field(default_factory=list)
    runs: list[Record] = field(default_factory=list)  # finished ones of all its points

    def count(self, verdict: str) -> int:
        """Rows with this verdict."""
        return sum(row.verdict == verdict for row in self.rows)


def judge(name: str, records: Sequence[Record], published: Sequence[Record] = ()) -> ItemVerdicts:
    """Every value of an experiment beside what these records measured.

    name: `table5`, `table5_offline`, ...; `table5_trained` has the values of `table5`. records: runs of
    this machine. published: runs that this project has committed; they count as measured where the paper's
    numbers are concerned, and are the reference of an offline experiment. Raises UsageError for an unknown
    name, ExperimentError for a file with a mistake.
    """
    experiment = choose(name)
    item, every = experiment.item, [*published, *records]
    if experiment.offline:
        rows = _judge_offline(experiment, records, published)
        needs, expect = "nothing but this repository and a package registry", "our own published values"
    else:
        rows = [row for value in paper_values(item) for row in _judge_value(experiment, value, every)]
        needs, expect = item.needs.in_words(), " ".join(item.expect.split())
    covered = [*experiment.points, *(row.point for row in rows if row.run_id)]
    local = [record for record in records if record not in published]
    added = additions(covered, local) if experiment.sweeps else []
    rows += [row for addition in added for row in _yours(experiment, addition, records)]
    points = [*experiment.points, *(addition.point for addition in added)]
    runs = {record.run_id: record for point in points for record in finished_runs(point, every)}
    return ItemVerdicts(
        name=experiment.name if experiment.offline else item.name,
        title=item.title,
        item=item.item,
        paper=item.paper,
        command=experiment.command,
        needs=needs,
        expect=expect,
        offline=experiment.offline,
        rows=rows,
        runs=list(runs.values()),
    )


def _judge_value(experiment: Experiment, value: PaperValue, records: Sequence[Record]) -> list[JudgedValue]:
    """The row of a value, and that of its method as published where this is asked for or was run."""
    first = _judge_point(experiment, value, value.point, records)
    method = published_name(value.point)
    if value.quoted or method is None:
        return [first]
    second = _judge_point(experiment, value, value.point | {"merge": method}, records)
    asked = method in experiment.item.also and METRICS[value.metric].read and not value.block.blocked
    return [first, second] if asked or second.run_id is not None else [first]


def _judge_point(
    experiment: Experiment, value: PaperValue, point: Point, records: Sequence[Record]
) -> JudgedValue:
    metric, rule, block = METRICS[value.metric], experiment.item.metrics[value.metric], value.block
    row = replace(
        _row(point, metric, block.variant, "" if value.quoted else value.case),
        printed=value.printed,
        logged=value.logged,
        command=experiment.command_of(point),
    )
    if value.quoted:
        row = replace(row, point={}, model=value.case, method="-", command="")
        return replace(row, reason="a number of another work, quoted by the paper")
    notes = [block.note] if block.note else []
    if metric.computed:
        cost = costs.find(point, value.metric)
        if cost is None:
            return replace(row, reason=not_built(point) or "not among the computed costs")
        return _compare(replace(row, measured=cost.value), value, rule, [], [*notes, cost.note])
    reason = block.blocked or (not_built(point) if experiment.sweeps else None)
    if reason is None and metric.read is None:
        reason = rule.why or "not measured by this project"
    runs = [] if reason else finished_runs(point, records)
    row = _with_runs(row, metric, runs)
    if row.measured is None:
        if runs:
            reason = "the run has no such number; measure=full and overwrite=all may give it"
        reason = reason or why_unfinished(point, records) or "no run of it on the whole test split"
        return replace(row, reason="; ".join([reason, *notes]))
    return _compare(row, value, rule, runs, [*notes, *_remarks(point, runs)])


def _remarks(point: Point, runs: Sequence[Record]) -> list[str]:
    """How the runs differ from the usual."""
    remarks = [f"mean of {len(runs)} seeds"] if len(runs) > 1 else []
    if any(map(_low_precision, runs)):
        remarks.append(f"precision {runs[0].precision}")
    foreign = any(record.weights.source not in ("hub", "shipped", "none") for record in runs)
    return [*remarks, f"weights {runs[0].weights.name}"] if foreign and "mode" not in point else remarks


def _low_precision(run: Record) -> bool:
    return run.precision not in ("32", "64")


def _cause(row: JudgedValue, value: PaperValue, rule: MetricRule, runs: Sequence[Record]) -> str:
    """Why a value is outside: what its runs say of themselves, else that the authors' log has the measured
    value, else what the item's file says."""
    if row.verdict != OUTSIDE:
        return ""
    unlike = {
        "fewer samples": any(run.data.n_skipped for run in runs),
        "other precision": any(map(_low_precision, runs)),
    }
    if said := ", ".join(name for name, holds in unlike.items() if holds):
        return said
    near = rule.tolerance_of(row.logged) if row.logged is not None else None
    if near is not None and _against(row, row.logged or 0.0, near).verdict == WITHIN:
        return LOGGED_OTHERWISE
    return value.block.causes.get(value.metric, rule.cause) or UNEXPLAINED


def _with_runs(row: JudgedValue, metric: Metric, runs: Sequence[Record]) -> JudgedValue:
    """The row with the mean of these runs; unchanged where none has the metric."""
    measured = _mean(metric, runs)
    if measured is None:
        return row
    return replace(row, measured=measured, interval=metric.interval(runs), run_id=runs[0].run_id)


def _mean(metric: Metric, runs: Sequence[Record]) -> float | None:
    if metric.read is None:
        return None
    numbers = [number for number in map(metric.read, runs) if number is not None]
    return fmean(numbers) if numbers else None


def _compare(
    row: JudgedValue, value: PaperValue, rule: MetricRule, runs: Sequence[Record], notes: Sequence[str]
) -> JudgedValue:
    """The row with its verdict: the measured value, of these runs, against the paper's."""
    assert row.measured is not None
    if value.block.above is not None:
        verdict = WITHIN if row.measured > value.block.above else OUTSIDE
        return replace(
            row, verdict=verdict, reason="; ".join([f"stated: above {value.block.above:g}", *notes])
        )
    target = value.printed if value.printed is not None else value.logged
    assert target is not None
    tolerance = rule.tolerance_of(target)
    if tolerance is None:
        return replace(row, verdict=NOT_JUDGED, reason="; ".join([rule.why, *notes]))
    row = _against(row, target, tolerance)
    return replace(row, cause=_cause(row, value, rule, runs), reason="; ".join(notes))


def _against(row: JudgedValue, target: float, tolerance: float) -> JudgedValue:
    assert row.measured is not None
    difference = row.measured - target
    verdict = WITHIN if abs(difference) <= tolerance * (1 + _ROUNDING) + _ROUNDING else OUTSIDE
    return replace(row, difference=difference, tolerance=tolerance, verdict=verdict)


def _judge_offline(
    experiment: Experiment, records: Sequence[Record], published: Sequence[Record]
) -> list[JudgedValue]:
    """The points of an offline model, the seeds of one together. A record that is itself the published one is
    not a repetition of it."""
    copies = [record for record in records if record in published]
    repeated = [record for record in records if record not in copies]
    tolerances = experiment.item.offline.metrics if experiment.item.offline else {}
    points: list[Point] = []
    for point in ({key: value for key, value in p.items() if key != "seed"} for p in experiment.points):
        points += [point] if point not in points else []
    rows = []
    for point in points:
        for name, tolerance in tolerances.items():
            metric = METRICS[name]
            runs = [run for run in finished_runs(point, repeated) if _mean(metric, [run]) is not None]
            known = finished_runs(point, published)
            seeds = {run.seed for run in runs}
            if common := [run for run in known if run.seed in seeds]:  # like is compared with like
                runs, known = [run for run in runs if run.seed in {run.seed for run in common}], common
            reference = _mean(metric, known)
            row = replace(_row(point, metric), published=reference, command=command(point))
            if reference is not None:
                row = replace(row, interval=metric.interval(known))
            row = _with_runs(row, metric, runs)
            if runs and reference is not None and (common or point.get("mode") != "train"):
                left = sorted(seeds - {run.seed for run in runs})  # empty where no seed is common
                out = (
                    f"without seed {', '.join(map(str, left))}, of which nothing is published" if left else ""
                )
                row = replace(_against(row, reference, tolerance), reason=out)
            elif runs:
                why = "published with other seeds" if known else "nothing published to compare it with"
                row = replace(row, verdict=NOT_JUDGED, reason=why)
            elif reference is None:
                row = replace(row, reason=why_unfinished(point, repeated) or "not published, not run")
            else:  # what is published counts, whatever shorter or failed runs there are besides
                copied = "the run here is the published one itself" if finished_runs(point, copies) else ""
                why = why_unfinished(point, repeated) or copied
                reason = f"not repeated: {why}" if why else "not repeated on this machine"
                row = replace(row, verdict=ONLY_PUBLISHED, reason=reason)
            rows.append(row)
    return rows


def _yours(experiment: Experiment, addition: Addition, records: Sequence[Record]) -> list[JudgedValue]:
    """A row for each metric of the item that the runs of an addition have."""
    item, runs = experiment.item, finished_runs(addition.point, records)
    names = item.offline.metrics if experiment.offline and item.offline else item.metrics
    rows = [_with_runs(_row(addition.shown, METRICS[name]), METRICS[name], runs) for name in names]
    why = "; ".join(["not among the methods of the item", *_remarks(addition.point, runs)])
    return [
        replace(row, verdict=YOURS, reason=why, command=command(addition.shown))
        for row in rows
        if row.measured is not None
    ]


def _row(point: Point, metric: Metric, variant: str = "", case: str = "") -> JudgedValue:
    labels = vars(label_point(point, variant, case))
    return JudgedValue(**labels, metric=metric.label, unit=metric.unit)
