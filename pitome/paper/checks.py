"""Step 4: whether the points of an item can be runs: its methods, models, data sets and amounts.

Every check raises ValueError with one line. Imports no torch.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from pitome.config import PARTS, Config, task_of
from pitome.errors import nearest
from pitome.fields import fits, shown, types_of
from pitome.merge.schedule import AMOUNTS, Reduction
from pitome.paper.files import LABELLED, available, conf_file, labels
from pitome.paper.item import RUNS, PaperItem
from pitome.paper.metrics import METRICS
from pitome.paper.points import (
    OPTIONS,
    REPO,
    PaperValue,
    Point,
    expand,
    offline_points,
    paper_values,
    trained_offline_points,
)
from pitome.records.identity import canonical
from pitome.sources.schedule_file import is_missing

GROUPS = ("task", "model", "data", "merge")  # of conf/, each of which a run needs


def check_points(item: PaperItem) -> None:
    """Raises ValueError for the first mistake in the values and points of an item."""
    presets = [name.removesuffix(REPO) for name in known_names("merge") if name.endswith(REPO)]
    for name in item.also:
        if name not in presets:
            raise ValueError(f"also: {name} has no {name}{REPO} to run beside; {nearest(name, presets)}")
    values = paper_values(item)
    _check_numbers(values)
    for value in values:
        _check_point(item.kind, value.point, complete=not value.quoted)
        _check_metric(value.metric, value.point)
    for point in expand(item.points):
        _check_point(item.kind, item.base | point)
    for point in [*offline_points(item), *trained_offline_points(item)]:
        _check_point(item.kind, point)
        for metric in item.offline.metrics if item.offline else ():
            _check_metric(metric, point)


def known_names(group: str) -> set[str]:
    """What may stand for a group of conf/: what is built here, and what the paper has a name for."""
    return {*available(group), *(labels()[group] if group in LABELLED else ())}


def not_built(point: Mapping[str, Any]) -> str | None:
    """Why a point cannot be run: its method, model, data or schedule are not there; None if they are."""
    for group in LABELLED:
        name = point.get(group)
        if name is not None and name not in available(group):
            return f"{group}={name} is not among this project's; see python run.py --help"
    if is_missing(point.get("schedule")):
        return f"schedule={point['schedule']} is not made yet; python scripts/schedules.py makes it"
    return None


def _check_numbers(values: Collection[PaperValue]) -> None:
    """Every number has a source, and no cell has two of a kind."""
    seen: dict[str, float] = {}
    for value in values:
        cell = f"{value.metric} at {_shown(value.point)}"
        block = value.block
        same_cell = [canonical(value.point), value.metric, block.variant, value.case, value.quoted]
        for name, number, field, source in (
            ("printed", value.printed, "source", block.source),
            ("logged", value.logged, "logged_source", block.logged_source),
        ):
            if number is None:
                continue
            if not source:
                raise ValueError(f"{cell} is {name} without a {field}")
            # two logs may differ, two printed numbers of one cell may not
            log = source if name == "logged" else ""
            key = json.dumps([name, same_cell, log], sort_keys=True, default=str)
            if key in seen:
                raise ValueError(f"{cell} is {name} twice, as {seen[key]:g} and {number:g}")
            seen[key] = number


def _check_point(kind: str, point: Point, *, complete: bool = True) -> None:
    """complete: it names all that a run needs; otherwise runs of any model, data and method would match."""
    for group in GROUPS if kind == RUNS else ("data", "merge"):
        if group not in point:
            if complete:
                raise ValueError(f"{_shown(point) or 'a point'} names no {group}")
            continue
        name, names = point[group], known_names(group)
        if not isinstance(name, str) or name not in names:
            raise ValueError(f"unknown {group}={name}; {nearest(str(name), names)}")
    try:
        json.dumps(point)
    except TypeError:  # a date, for one
        raise ValueError(f"{_shown(point)} has a value that is neither text nor number; use quotes") from None
    _check_values(point)
    if kind == RUNS and complete:
        _check_fit(point)


def _check_fit(point: Point) -> None:
    """The model, the data and the method are for the task, and the method has the options."""
    task, merge = point["task"], point["merge"]
    for group in ("model", "data"):
        if (fits := _task_of(group, point[group])) not in ("", task):
            raise ValueError(f"{group}={point[group]} is for task={fits}, not for task={task}")
    if merge not in available("merge"):
        return
    method = conf_file("merge", merge)
    if method.get("tasks") and task not in method["tasks"]:
        raise ValueError(f"merge={merge} is for {', '.join(method['tasks'])}, not for task={task}")
    options = method.get("options") or {}
    for key in point:
        name = key.removeprefix(OPTIONS)
        if name != key and name not in options:
            raise ValueError(f"merge={merge} has no option {name}; {nearest(name, options)}")


def _check_values(point: Point) -> None:
    """Amounts of merging, and the other keys of a run."""
    for key in ("ratio", "r", "flops"):
        if key in point and isinstance(point[key], list | None):
            raise ValueError(f"{key}={shown(point[key])} is not a single number")
    skipped = "schedule" if is_missing(point.get("schedule")) else None
    Reduction(**{key: point[key] for key in (*AMOUNTS, "layers") if key in point and key != skipped})
    for key, value in point.items():
        if key in types_of(Config) and key not in PARTS:
            fits(Config, key, value)
    if not 0 < point.get("noise", 1) < math.inf:
        raise ValueError(f"noise={point['noise']} is not a number above 0")


def _check_metric(metric: str, point: Point) -> None:
    task, tasks = point.get("task"), METRICS[metric].tasks
    if task is not None and tasks and task not in tasks:
        raise ValueError(f"{metric} is not a metric of task={task}, but of {', '.join(tasks)}")


def _shown(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in point.items())


@functools.cache
def _task_of(group: str, name: str) -> str:
    return task_of(group, name)
