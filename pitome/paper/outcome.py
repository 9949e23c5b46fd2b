"""What an experiment says of its item: one row per value, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from pitome.config import DEFAULT_RATIO
from pitome.paper import costs, matching, values
from pitome.paper.loading import TRAINED, Chosen, choose, known, label, missing
from pitome.paper.matching import command
from pitome.paper.metrics import METRICS
from pitome.paper.schema import RUNS, Experiment, Judged, Value
from pitome.records.schema import Record

WITHIN, OUTSIDE, NOT_RUN = "within", "outside", "not run"
ONLY_PUBLISHED = "published"  # by this project, and not run a second time on this machine
NOT_JUDGED = "not judged"  # measured, with nothing to compare it with, or without a tolerance
VERDICTS = (WITHIN, OUTSIDE, ONLY_PUBLISHED, NOT_JUDGED, NOT_RUN)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of a table or figure beside what was measured, all in `unit`.

    point: the overrides of its run (`{"model": "deit_s", "merge": "tome_repo", "ratio": 0.925}`); empty
    where a number of another work is only quoted. model, method, variant, ratio, data: labels.
    metric: name of what is compared; unit: `%`, `Rsum`, `GMACs`, `x`, `points`, ...
    printed: by the paper; logged: by the authors' result files; published: by this project, of offline
    experiments alone; None where there is none. measured: by the run, or computed from the architecture
    where the metric needs no run. interval: 95 % of the measured value alone.
    difference: measured minus printed, or minus logged (or published) where nothing is printed.
    verdict: one of VERDICTS; reason: why it was not run, not repeated or not judged, or what else is to be
    said. command: the run's; run_id: of its record.
    """

    point: Mapping[str, Any]
    model: str
    method: str
    variant: str
    ratio: str
    data: str
    metric: str
    unit: str
    printed: float | None = None
    logged: float | None = None
    published: float | None = None
    measured: float | None = None
    interval: tuple[float, float] | None = None
    difference: float | None = None
    tolerance: float | None = None
    verdict: str = NOT_RUN
    reason: str = ""
    command: str = ""
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One experiment. name: as in `experiment=<name>`; title: what it is; item: `Table 5`, `Figure 3`;
    command: runs it; needs, expect: in words; offline: whether the rows are this project's own models
    and never the paper's numbers."""

    name: str
    title: str
    item: str
    command: str
    needs: str
    expect: str
    offline: bool
    rows: list[Row] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        """Rows with this verdict."""
        return sum(row.verdict == verdict for row in self.rows)


def outcome(name: str, records: Sequence[Record], published: Sequence[Record] = ()) -> Outcome:
    """Every value of an experiment beside what these records measured.

    name: `table5`, `table5_offline`, ... (`table5_trained` is a part of `table5`). records: of the
    machine's own runs. published: those this project has committed; they count as measured where the
    paper's numbers are concerned, and are what an offline experiment is compared with. Raises UsageError
    for an unknown name, ExperimentError for a file with a mistake.
    """
    chosen = choose(name)
    experiment = chosen.experiment
    both = [*published, *records]
    if chosen.offline:
        rows = [
            _offline_row(experiment, point, metric, records, published)
            for point in chosen.points
            for metric in experiment.offline.metrics  # type: ignore[union-attr]
        ]
    else:
        rows = [row for value in values.values(experiment) for row in _rows(experiment, value, both)]
    return Outcome(
        name=chosen.word if chosen.offline else experiment.name,
        title=experiment.title,
        item=experiment.item,
        command=run_command(chosen),
        needs=needs(chosen),
        expect="our own published values" if chosen.offline else " ".join(experiment.expect.split()),
        offline=chosen.offline,
        rows=rows,
    )


def run_command(chosen: Chosen) -> str:
    """What runs an experiment: where nothing but training is in it, that."""
    experiment = chosen.experiment
    if experiment.kind != RUNS:
        return f"python run.py experiment={chosen.word}"
    trains = not chosen.points and not chosen.offline and values.training_points(experiment)
    return f"python run.py -m experiment={experiment.name + TRAINED if trains else chosen.word}"


def nothing_to_run(chosen: Chosen) -> str:
    """Why a sweep has no point, and what to do."""
    if values.training_points(chosen.experiment):
        return f"has only points that train; use experiment={chosen.experiment.name}{TRAINED}"
    return f"has no point that can be run; python scripts/report.py {chosen.word} says why"


def needs(chosen: Chosen) -> str:
    """What an experiment needs, in one line."""
    if chosen.offline:
        return "nothing but this repository and a package registry"
    wanted = chosen.experiment.needs
    parts = [*(f"checkpoint {one}" for one in wanted.checkpoints), *wanted.data]
    hours = [f"about {wanted.gpu_hours:g} GPU hours"] if wanted.gpu_hours else []
    hours += [f"{wanted.gpu_hours_training:g} more to train"] if wanted.gpu_hours_training else []
    disk = [f"{wanted.disk_gb:g} GB of disk"] if wanted.disk_gb else []
    return "; ".join([*parts, *hours, *disk]) or "nothing"


def _rows(experiment: Experiment, value: Value, records: Sequence[Record]) -> list[Row]:
    """The row of a value, and of its method as published where that is asked for or was run."""
    first = _row(experiment, value, value.point, records)
    bare = values.bare_name(value.point)
    if value.quoted or bare is None or any(key.startswith("merge.options.") for key in value.point):
        return [first]
    own = _row(experiment, value, {**value.point, "merge": bare}, records)
    wanted = bare in experiment.also and METRICS[value.metric].read is not None and not value.blocked
    return [first, own] if wanted or own.run_id is not None else [first]


def _row(experiment: Experiment, value: Value, point: Mapping[str, Any], records: Sequence[Record]) -> Row:
    metric, judged = METRICS[value.metric], experiment.metrics[value.metric]
    start = Row(
        point={} if value.quoted else point,
        model=value.case if value.quoted else label("model", point.get("model", "")),
        method="-" if value.quoted else label("merge", point.get("merge", "-")),
        variant=_variant(value, point),
        ratio=_ratio(point),
        data=_data(point),
        metric=metric.label,
        unit=metric.unit,
        printed=value.printed,
        logged=value.logged,
        command="" if value.quoted else _command(experiment, point),
    )
    if value.quoted:
        return replace(start, reason="a number of another work, quoted by the paper")
    said = [value.note] if value.note else []
    if metric.computed:
        cost = costs.find(point, value.metric)
        if cost is None:
            return replace(start, reason=missing(point) or "not among the computed costs")
        return _judge(start, cost.value, value, judged, [*said, cost.note])
    reason = value.blocked or (missing(point) if experiment.kind == RUNS else None)
    if reason is None and metric.read is None:
        reason = judged.why or "not measured by this project"
    found = [] if reason else matching.runs(point, records)
    measured = [one for one in map(metric.read, found) if one is not None] if metric.read else []
    if not measured:
        if found:
            reason = "the run has no such number; measure=full and rerun=true may give it"
        reason = reason or matching.unfinished(point, records) or "no run of it on the whole test split"
        return replace(start, reason="; ".join([reason, *said]))
    if len(found) > 1:
        said.append(f"mean of {len(found)} seeds")
    if any(record.precision not in ("32", "64") for record in found):
        said.append(f"precision {found[0].precision}")
    if any(record.weights.source not in ("hub", "shipped", "none") for record in found) and (
        "mode" not in point
    ):
        said.append(f"weights {found[0].weights.name}")
    row = replace(start, interval=metric.interval(found[0]), run_id=found[0].run_id)
    return _judge(row, fmean(measured), value, judged, said)


def _judge(row: Row, measured: float, value: Value, judged: Judged, said: list[str]) -> Row:
    """The row with its measured value and verdict."""
    if value.above is not None:
        verdict = WITHIN if measured > value.above else OUTSIDE
        stated = f"stated: above {value.above:g}"
        return replace(row, measured=measured, verdict=verdict, reason="; ".join([stated, *said]))
    target = value.printed if value.printed is not None else value.logged
    assert target is not None
    tolerance = judged.tolerance
    if judged.relative is not None:
        tolerance = judged.relative * abs(target) + _half_digit(target)
    difference = measured - target
    if tolerance is None:
        why = "; ".join([judged.why, *said])
        return replace(row, measured=measured, verdict=NOT_JUDGED, reason=why)
    return replace(
        row,
        measured=measured,
        difference=difference,
        tolerance=tolerance,
        # a hair's width more: 79.4 - 79.1 is above 0.3 in binary
        verdict=WITHIN if abs(difference) <= tolerance * (1 + 1e-9) + 1e-9 else OUTSIDE,
        reason="; ".join(part for part in said if part),
    )


def _half_digit(value: float) -> float:
    """Half a unit of the last digit of a number as it is printed."""
    return 0.5 * 10.0 ** -len(f"{value:g}".partition(".")[2])


def _offline_row(
    experiment: Experiment,
    point: Mapping[str, Any],
    name: str,
    records: Sequence[Record],
    published: Sequence[Record],
) -> Row:
    """A point on an offline model. A record that is itself the published one is no repetition of it."""
    metric = METRICS[name]
    assert metric.read is not None and experiment.offline is not None
    reference = [one for r in matching.runs(point, published) if (one := metric.read(r)) is not None]
    own = [record for record in records if record not in published]
    found = [record for record in matching.runs(point, own) if metric.read(record) is not None]
    row = Row(
        point=point,
        model=label("model", point.get("model", "")),
        method=label("merge", point.get("merge", "-")),
        variant=_variant(Value(point=dict(point), metric=name), point),
        ratio=_ratio(point),
        data=_data(point),
        metric=metric.label,
        unit=metric.unit,
        published=fmean(reference) if reference else None,
        command=command(point),
    )
    if not found:
        failed = matching.unfinished(point, own)
        reason = failed
        if reason is None and matching.runs(point, [one for one in records if one in published]):
            reason = "not repeated: the run here is the published one itself"
        reason = reason or ("not repeated on this machine" if reference else "not published, not run")
        return replace(row, reason=reason, verdict=ONLY_PUBLISHED if reference and not failed else NOT_RUN)
    measured = fmean(one for r in found if (one := metric.read(r)) is not None)
    row = replace(row, measured=measured, interval=metric.interval(found[0]), run_id=found[0].run_id)
    if row.published is None:
        return replace(row, verdict=NOT_JUDGED, reason="nothing published to compare it with")
    tolerance, difference = experiment.offline.metrics[name], measured - row.published
    verdict = WITHIN if abs(difference) <= tolerance + 1e-9 else OUTSIDE
    return replace(row, tolerance=tolerance, difference=difference, verdict=verdict)


def _command(experiment: Experiment, point: Mapping[str, Any]) -> str:
    """What gives a point: its own run, or the whole experiment where it is no sweep."""
    return command(point) if experiment.kind == RUNS else f"python run.py experiment={experiment.name}"


def _variant(value: Value, point: Mapping[str, Any]) -> str:
    """How it was run, in words; whose code stands behind the name of a method."""
    name = str(point.get("merge", ""))
    parts = [value.variant, value.case if not value.quoted else ""]
    if name.endswith(values.REPO):
        parts.append("authors' code")
    elif name + values.REPO in known()["merge"]:
        parts.append("as published")
    parts += [f"noise {point['noise']:g}"] if "noise" in point else []
    own = [key for key in point if key.startswith("merge.options.")]
    parts += [] if value.case else [f"{key.rpartition('.')[2]}={point[key]}" for key in own]
    return ", ".join(part for part in parts if part)


def _data(point: Mapping[str, Any]) -> str:
    """The data, and how much of it where the point asks for a part."""
    name = label("data", point.get("data", ""))
    return f"{name}, {point['limit']:,} samples" if "limit" in point else name


def _ratio(point: Mapping[str, Any]) -> str:
    """How much is merged: `0.925`, `r 8`, `FLOPs 0.5`, `-` for the unmerged model."""
    if point.get("merge") in (None, "none"):
        return "-"
    if "r" in point:
        return f"r {point['r']}"
    if "flops" in point:
        return f"FLOPs {point['flops']:g}"
    return f"{point.get('ratio', DEFAULT_RATIO):g}"
