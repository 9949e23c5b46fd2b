"""What the types of an experiment file cannot say. Imports no torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import yaml

from pitome.config import CONF, MODES, Config, task_of
from pitome.errors import nearest
from pitome.merge.schedule import check_ratio, check_removal, parse_layers
from pitome.paper import values
from pitome.paper.metrics import METRICS, TASKS
from pitome.paper.schema import PICTURES, RUNS, THEOREM, Block, Experiment, Value
from pitome.records.identity import canonical

GROUPS = ("task", "model", "data", "merge")
QUOTED, CASE, METRIC = "quoted", "case", "metric"
_THEOREM_KEYS = ("task", "data", "merge", "ratio", "noise")

Names = Mapping[str, Collection[str]]
"""Group -> what may be chosen of it."""


def check(experiment: Experiment, names: Names) -> None:
    """Raises ValueError, one line, for the first mistake."""
    if bool(experiment.picture) is not (experiment.kind == PICTURES):
        raise ValueError(f"kind: {PICTURES} and `picture` go together")
    _check_metrics(experiment)
    for where, keys in _parts(experiment):
        for key in keys:
            _check_key(experiment.kind, key, where)
    twins = [name.removesuffix(values.REPO) for name in names["merge"] if name.endswith(values.REPO)]
    for name in experiment.also:
        if name not in twins:
            raise ValueError(f"also: {name} has no {name}{values.REPO} to run beside; {nearest(name, twins)}")
    for i, block in enumerate(experiment.values):
        _check_block(block, f"values[{i}]")
    found = values.values(experiment)
    if not found and experiment.kind == RUNS:
        raise ValueError("values is empty")
    _check_values(found)
    for value in found:
        _check_point(experiment.kind, value.point, names, complete=not value.quoted)
        _check_task(value.metric, value.point)
    for point in values.expand(experiment.points):
        _check_point(experiment.kind, experiment.base | point, names)
    _check_offline(experiment, names)


def _check_metrics(experiment: Experiment) -> None:
    for name, judged in experiment.metrics.items():
        if name not in METRICS:
            raise ValueError(f"metrics: {name} is no metric; {nearest(str(name), METRICS)}")
        if judged.tolerance is not None and judged.relative is not None:
            raise ValueError(f"metrics.{name} has a tolerance and a relative one, expected one")
        if judged.tolerance is judged.relative is None and not judged.why:
            raise ValueError(f"metrics.{name} has no tolerance and no `why`")


def _parts(experiment: Experiment) -> Iterator[tuple[str, Collection[str]]]:
    """Every place that has keys of a run, and its keys. Raises ValueError for an empty list of values."""
    grids = {f"points[{i}]": grid for i, grid in enumerate(experiment.points)}
    plain = {"base": experiment.base} | {f"cases.{name}": own for name, own in experiment.cases.items()}
    if experiment.offline is not None:
        plain |= {"offline.replace": experiment.offline.replace}
        grids |= {f"offline.points[{i}]": grid for i, grid in enumerate(experiment.offline.points)}
        grids |= {f"offline.also[{i}]": grid for i, grid in enumerate(experiment.offline.also)}
        yield "offline.drop", experiment.offline.drop
    for i, block in enumerate(experiment.values):
        plain[f"values[{i}].at"] = block.at
        yield f"values[{i}].by", [block.by] if block.by not in (QUOTED, CASE) else []
        yield f"values[{i}].along", [key for key in block.along if key != METRIC]
        grids[f"values[{i}].along"] = dict(block.along)
    for where, part in plain.items():
        yield where, part
    for where, grid in grids.items():
        if empty := [key for key, given in grid.items() if given == []]:
            raise ValueError(f"{where}.{empty[0]} is an empty list")
        yield where, [key for key in grid if key != METRIC]


def _check_key(kind: str, key: object, where: str) -> None:
    known = _THEOREM_KEYS if kind == THEOREM else [field.name for field in dataclasses.fields(Config)]
    if str(key) not in known and (kind == THEOREM or not _is_nested(str(key))):
        raise ValueError(f"{where}: {key} is no key of a run; {nearest(str(key), known)}")


def _is_nested(key: str) -> bool:
    """Whether a dotted key leads to something in the configuration: `model.checkpoint`, `merge.options.x`."""
    kind: Any = Config
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return any(typing.get_origin(one) is dict for one in (kind, *typing.get_args(kind)))
        fields = typing.get_type_hints(kind)
        if part not in fields:
            return False
        kind = fields[part]
    return True


def _check_block(block: Block, where: str) -> None:
    """Rows and columns."""
    rows = [*block.printed, *block.logged]
    if not rows:
        raise ValueError(f"{where} has neither printed nor logged numbers")
    if block.by in (QUOTED, CASE) and (numbers := [row for row in rows if not isinstance(row, str)]):
        raise ValueError(f"{where}: the row {numbers[0]} is no text; put it in quotes")
    if block.by in block.along:
        raise ValueError(f"{where}: both rows and columns differ in {block.by}")
    if twice := [key for key in block.along if key in block.at]:
        raise ValueError(f"{where}: both at and along say {twice[0]}")
    for name in block.along.get(METRIC, []):
        if not isinstance(name, str):
            raise ValueError(f"{where}.along.metric has {name!r}, expected the name of a metric")


def _check_values(found: Collection[Value]) -> None:
    """Numbers are numbers, have a source, and no cell has two of them."""
    seen: dict[str, float] = {}
    for value in found:
        cell = f"{value.metric} at {_shown(value.point)}"
        own = [canonical(value.point), value.metric, value.variant, value.case, value.quoted]
        for name, number, key, source in (
            ("printed", value.printed, "source", value.source),
            ("logged", value.logged, "logged_source", value.logged_source),
        ):
            if number is None:
                continue
            if not math.isfinite(number):
                raise ValueError(f"{cell} is {name} as {number}, expected a number")
            if not source:
                raise ValueError(f"{cell} is {name} without a {key}")
            # two logs may differ, two printed numbers of one cell may not
            key = json.dumps([name, own, source if name == "logged" else ""], sort_keys=True, default=str)
            if key in seen:
                raise ValueError(f"{cell} is {name} twice, as {seen[key]:g} and {number:g}")
            seen[key] = number


def _check_point(kind: str, point: Mapping[str, Any], names: Names, *, complete: bool = True) -> None:
    """A run's overrides. complete: it names task, model, data and method, or runs of any would count."""
    for group in GROUPS if kind == RUNS else ("data", "merge"):
        if group not in point and complete:
            raise ValueError(f"{_shown(point) or 'a point'} names no {group}")
        chosen = point.get(group, "")
        if group in point and (not isinstance(chosen, str) or chosen not in names[group]):
            raise ValueError(f"unknown {group}={chosen}; {nearest(str(chosen), names[group])}")
    try:
        json.dumps(point)
    except TypeError:  # a date, for one
        raise ValueError(f"{_shown(point)} has a value that is neither text nor number; use quotes") from None
    _check_amounts(point)
    if kind != RUNS or not complete:
        return
    task, merge = point["task"], point["merge"]
    for group in ("model", "data"):
        if (own := _task_of(group, point[group])) not in ("", task):
            raise ValueError(f"{group}={point[group]} is for task={own}, not for task={task}")
    if (method := _method(merge)) is None:
        return
    if method.get("tasks") and task not in method["tasks"]:
        raise ValueError(f"merge={merge} is for {', '.join(method['tasks'])}, not for task={task}")
    options = method.get("options") or {}
    for key in point:
        name = key.removeprefix("merge.options.")
        if name != key and name not in options:
            raise ValueError(f"merge={merge} has no option {name}; {nearest(name, options)}")


def _check_amounts(point: Mapping[str, Any]) -> None:
    given = [key for key in ("ratio", "r", "flops") if key in point]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other: {_shown(point)}")
    if "ratio" in point:
        check_ratio(point["ratio"])
    if "r" in point:
        check_removal(point["r"])
    if "layers" in point:
        layers = point["layers"]
        known = isinstance(layers, list | str | None)
        parse_layers(layers if known else str(layers), 10_000)  # its form; the model knows its depth
    for key, low, high, what in (
        ("flops", 0.0, 1.0, "a share in (0, 1]"),
        ("inflection", -1.0 - 1e-9, 1.0, "in [-1, 1]"),
        ("noise", 0.0, 1e9, "a number above 0"),
    ):
        number = point.get(key, high)
        if isinstance(number, bool) or not isinstance(number, int | float) or not low < number <= high:
            raise ValueError(f"{key}={number} is not {what}")
    limit = point.get("limit", 1)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"limit={limit} is not a whole number >= 1")
    if point.get("mode", "test") not in MODES:
        raise ValueError(f"mode={point['mode']} is not known; {nearest(str(point['mode']), MODES)}")


def _check_task(metric: str, point: Mapping[str, Any]) -> None:
    task, allowed = point.get("task"), TASKS.get(metric)
    if task is not None and allowed is not None and task not in allowed:
        raise ValueError(f"{metric} is no metric of task={task}, but of {', '.join(allowed)}")


def _check_offline(experiment: Experiment, names: Names) -> None:
    offline = experiment.offline
    if offline is None:
        return
    if experiment.kind == RUNS and not offline.metrics:
        raise ValueError("offline.metrics is empty")
    measured = [name for name, metric in METRICS.items() if metric.read is not None]
    for name in offline.metrics:
        if name not in measured:
            raise ValueError(
                f"offline.metrics: {name} is not measured by a run; {nearest(str(name), measured)}"
            )
    for point in values.offline_points(experiment):
        _check_point(experiment.kind, point, names)
        for name in offline.metrics:
            _check_task(name, point)


def _shown(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in point.items())


@functools.cache
def _task_of(group: str, name: str) -> str:
    return task_of(group, name)


@functools.cache
def _method(name: str) -> dict[str, Any] | None:
    """What conf/merge says of a method; None for one that is not there."""
    path = CONF / "merge" / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else None
