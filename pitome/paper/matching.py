"""Which records are runs of a point. Overrides are compared with what a record says it was asked."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pitome.config import CONF, DEFAULT_RATIO, find_choice
from pitome.paper.loading import read_yaml
from pitome.paper.values import AMOUNTS
from pitome.records.identity import UNMERGED, canonical
from pitome.records.schema import Record

_OPTIONS = "merge.options."
_GROUPS = ("task", "model", "data", "merge")
_HOW = ("mode", "layers", "weights", "control", *AMOUNTS)  # compared by rules of their own


def runs(point: Mapping[str, Any], records: Iterable[Record]) -> list[Record]:
    """Finished runs of the point, the newest of each seed, in the order of seeds: on the whole test split,
    or on the part that the point itself asks for."""
    found: dict[int, Record] = {}
    for record in sorted(records, key=lambda one: one.started):
        if record.done and record.data.limit == point.get("limit") and matches(point, record):
            found[record.seed] = record
    return [found[seed] for seed in sorted(found)]


def unfinished(point: Mapping[str, Any], records: Iterable[Record]) -> str | None:
    """Why the newest run of the point does not count: it failed, or saw a part of the data; None if there
    is none such."""
    for record in sorted(records, key=lambda one: one.started, reverse=True):
        if not matches(point, record):
            continue
        if not record.done:
            return f"failed: {record.error}"
        if record.data.limit is not None and record.data.limit != point.get("limit"):
            return f"run on {record.data.limit:,} samples alone (limit={record.data.limit})"
    return None


def failure(point: Mapping[str, Any], records: Iterable[Record]) -> str | None:
    """Why the newest run of the point failed; None if it did not."""
    runs = [record for record in records if matches(point, record)]
    newest = max(runs, key=lambda one: one.started, default=None)
    return None if newest is None or newest.done else newest.error


def matches(point: Mapping[str, Any], record: Record) -> bool:
    """Whether the run was asked for what the point says, and nothing else of what changes a result but
    its seed, precision and the file that its weights came from."""
    config = record.config
    return (
        not record.weights.random
        and record.mode == point.get("mode", "test")
        and record.task == point.get("task", record.task)
        and _model(point, record)
        and record.data.name == point.get("data", record.data.name)
        and record.method.name == point.get("merge", "pitome")
        and (record.method.name == UNMERGED or (_options(point, record) and _amount(point, record)))
        and all(
            canonical(_look_up(config, key)) == canonical(value)
            for key, value in point.items()
            if key not in _GROUPS and key not in _HOW and not key.startswith(_OPTIONS)
        )
    )


def command(point: Mapping[str, Any]) -> str:
    """The command that runs a point."""
    return " ".join(["python run.py", *(f"{key}={word(value)}" for key, value in point.items())])


def _model(point: Mapping[str, Any], record: Record) -> bool:
    name = point.get("model")
    if name is None:
        return True
    own = record.config.get("model", {})
    path = find_choice("model", str(name))
    wanted = point.get("model.checkpoint", own.get("checkpoint") if path is None else _checkpoint(path))
    if own.get("checkpoint") != wanted:
        return False  # fine-tuned for other data, under the same name
    changed = any(key.startswith("model.") for key in point)
    return own.get("name") == name if changed else record.model.name == name


def _options(point: Mapping[str, Any], record: Record) -> bool:
    """Compared as they were asked: of a `_repo` preset null stands for what its family has."""
    given = {key.removeprefix(_OPTIONS): value for key, value in point.items() if key.startswith(_OPTIONS)}
    asked = dict(record.config.get("merge", {}).get("options", {}))
    asked.pop("seed", None)  # of a control, and the run's
    return canonical(asked) == canonical(_defaults(record.method.name) | given)


def _amount(point: Mapping[str, Any], record: Record) -> bool:
    wanted = {key: point[key] for key in AMOUNTS if point.get(key) is not None}
    if not wanted and not any(key.startswith(_OPTIONS) for key in point):
        wanted = {"ratio": DEFAULT_RATIO}
    layers = point.get("layers", "first3" if record.task == "text" else None)
    wanted |= {"layers": layers} if layers is not None else {}
    keys = (*AMOUNTS, "layers")
    asked = {key: record.method.asked[key] for key in keys if record.method.asked.get(key) is not None}
    return bool(canonical(asked) == canonical(wanted))


@functools.cache
def _checkpoint(path: Path) -> Any:
    return (read_yaml(path) or {}).get("checkpoint")


@functools.cache
def _defaults(method: str) -> dict[str, Any]:
    path = CONF / "merge" / f"{method}.yaml"
    if not path.is_file():
        return {}
    options = dict(read_yaml(path)["options"])
    options.pop("seed", None)
    return options


def _look_up(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def word(value: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, list):
        return "[" + ",".join(map(word, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
