"""Step 6: which records are runs of a point. Its overrides are compared with what a record was asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pitome.config import DEFAULT_RATIO, SPEED, TrainerConfig
from pitome.fields import decode
from pitome.merge.schedule import AMOUNTS
from pitome.paper.files import conf_file, method_options
from pitome.paper.points import OPTIONS, TRAINED_WITH, Point, has_options
from pitome.records.identity import RESIZE, UNMERGED, canonical
from pitome.records.schema import Record
from pitome.sources.schedule_file import MADE, find_schedule, is_missing

# Keys of a point that are compared by rules of their own.
_SPECIAL = ("task", "model", "data", "merge", "mode", "layers", "weights", "control", "trainer", *AMOUNTS)


def finished_runs(point: Point, records: Iterable[Record]) -> list[Record]:
    """Finished runs of the point, the newest of each seed, in the order of seeds: on the whole test split,
    or on the part of it that the point asks for."""
    newest: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: record.started):
        if record.done and record.data.limit == point.get("limit") and matches(point, record):
            newest[record.seed] = record
    return [newest[seed] for seed in sorted(newest)]


def why_unfinished(point: Point, records: Iterable[Record]) -> str | None:
    """Why the newest unfinished run of the point does not count: it failed, or saw a part of the data;
    None if there is no such run."""
    for record in reversed(_attempts(point, records)):
        if not record.done:
            return f"failed: {record.error}"
        if record.data.limit is not None and record.data.limit != point.get("limit"):
            return f"run on {record.data.limit:,} samples alone (limit={record.data.limit})"
    return None


def failure(point: Point, records: Iterable[Record]) -> str | None:
    """Why the newest run of the point failed; None if it did not."""
    attempts = _attempts(point, records)
    return None if not attempts or attempts[-1].done else attempts[-1].error


@dataclass(frozen=True)
class Addition:
    """What a user ran beside the points of an item: another method, or other options of one."""

    point: Point
    shown: Point  # the same with the module of the method, without the options that are usual for it


def additions(points: Iterable[Point], records: Iterable[Record]) -> list[Addition]:
    """What finished runs put beside these points: runs with the model, the data and the amount of one of
    them that are runs of none. Usual are the options in conf/, else those of the method's first run."""
    points = list(points)
    places = [_place(point) for point in points if point.get("merge") != UNMERGED]
    added: list[Addition] = []
    usual: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.started):
        name = record.method.name
        if name in (UNMERGED, RESIZE) or any(matches(point, record) for point in points):
            continue
        asked, known = asked_options(record), method_options(name)
        options = {
            OPTIONS + key: value for key, value in asked.items() if key not in known or known[key] != value
        }
        method = {"merge": name} | options
        place = next((place for place in places if finished_runs(place | method, [record])), None)
        if place is None or any(addition.point == place | method for addition in added):
            continue
        first = usual.setdefault(name, {} if known else options)
        shown = place | {
            key: value for key, value in method.items() if key not in first or first[key] != value
        }
        imports = record.config.get("imports")
        added.append(Addition(place | method, shown | ({"imports": imports} if imports else {})))
    return added


def _place(point: Point) -> Point:
    """A point without its method."""
    return {key: value for key, value in point.items() if key != "merge" and not key.startswith(OPTIONS)}


def asked_options(record: Record) -> dict[str, Any]:
    """The options that a run was asked for, without the seed of a control, which is the run's."""
    options = record.config.get("merge", {}).get("options", {})
    return {key: value for key, value in options.items() if key != "seed"}


def matches(point: Point, record: Record) -> bool:
    """Whether the run was asked for what the point says, and for nothing else that changes a result but
    its seed, its precision and the file that its weights came from."""
    return (
        not record.weights.random
        and record.mode == point.get("mode", "test")
        and record.task == point.get("task", record.task)
        and record.data.name == point.get("data", record.data.name)
        and record.method.name == point.get("merge", "pitome")
        and _has_model(point, record)
        and (record.mode == "test" or _has_training(point, record))
        and (record.method.name == UNMERGED or (_has_options(point, record) and _has_amount(point, record)))
        and all(
            canonical(_look_up(record.config, key)) == canonical(value)
            for key, value in point.items()
            if key not in _SPECIAL and not key.startswith(OPTIONS)
        )
    )


def _attempts(point: Point, records: Iterable[Record]) -> list[Record]:
    """All runs of the point, oldest first."""
    return sorted((r for r in records if matches(point, r)), key=lambda record: record.started)


def _has_model(point: Point, record: Record) -> bool:
    name = point.get("model")
    if name is None:
        return True
    model = record.config.get("model", {})
    file = conf_file("model", str(name))
    default = file.get("checkpoint") if file else model.get("checkpoint")
    if model.get("checkpoint") != point.get("model.checkpoint", default):
        return False  # fine-tuned for other data, under the same name
    changed = any(key.startswith("model.") for key in point)
    return bool((model.get("name") if changed else record.model.name) == name)


def _has_training(point: Point, record: Record) -> bool:
    """Whether the weights were trained as the point says: its recipe, with its method at its amount."""
    config = record.config
    keys = (TRAINED_WITH, "limit_train", *(AMOUNTS if point.get(TRAINED_WITH, UNMERGED) != UNMERGED else ()))
    name = str(point.get("trainer", point.get("data", "")))
    usual, trainer = (
        {key: value for key, value in vars(decode(TrainerConfig, values)).items() if key not in SPEED}
        for values in (dict(conf_file("trainer", name)), config.get("trainer", {}))
    )
    return usual == trainer and all(canonical(config.get(key)) == canonical(point.get(key)) for key in keys)


def _has_options(point: Point, record: Record) -> bool:
    """Compared as they were asked: in a `_repo` preset null stands for the value of the model's family. An
    option that a record does not know, because it came later, has its default."""
    given = {key.removeprefix(OPTIONS): value for key, value in point.items() if key.startswith(OPTIONS)}
    usual = method_options(record.method.name)
    return bool(canonical(usual | asked_options(record)) == canonical(usual | given))


def _has_amount(point: Point, record: Record) -> bool:
    wanted = {key: point[key] for key in AMOUNTS if point.get(key) is not None}
    if not wanted and not has_options(point):
        wanted = {"ratio": DEFAULT_RATIO}
    layers = point.get("layers")
    if "layers" not in point and "schedule" not in wanted:  # which names every layer
        layers = conf_file("task", record.task).get("layers")
    wanted |= {"layers": layers} if layers is not None else {}
    keys = (*AMOUNTS, "layers")
    asked = {key: record.method.asked[key] for key in keys if record.method.asked.get(key) is not None}
    return bool(canonical(_by_content(asked)) == canonical(_by_content(wanted)))


def _by_content(amount: dict[str, Any]) -> dict[str, Any]:
    """With what a schedule of this project does instead of its name: equal ones are run and recorded once."""
    name = amount.get("schedule")
    if not isinstance(name, str) or not name.startswith(MADE) or is_missing(name):
        return amount
    return amount | {"schedule": _content(name)}


@functools.cache
def _content(schedule: str) -> tuple[Mapping[str, Any], tuple[float, ...] | None]:
    found = find_schedule(schedule)
    return found.options(), found.ratio


def _look_up(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
