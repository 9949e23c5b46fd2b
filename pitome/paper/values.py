"""From an experiment's blocks to single values, and to the points that are run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pitome.config import DEFAULT_RATIO
from pitome.paper.metrics import METRICS
from pitome.paper.schema import Block, Experiment, Value

Point = dict[str, Any]

REPO = "_repo"
AMOUNTS = ("ratio", "r", "inflection", "flops")
_METHOD = "merge.options."


def values(experiment: Experiment) -> list[Value]:
    """All numbers of the item, in its order. Raises ValueError for a block that does not fit."""
    return [value for i, block in enumerate(experiment.values) for value in _flat(experiment, block, i)]


def points(experiment: Experiment) -> list[Point]:
    """What the sweep of this item runs, each once: a point for each value that a run can give, the same
    of the methods in `also`, and `points`."""
    return _with_own(experiment, [v.point for v in _run(experiment) if "mode" not in v.point])


def training_points(experiment: Experiment) -> list[Point]:
    """What `experiment=<name>_trained` runs: the points that train."""
    wanted = [v.point for v in _run(experiment) if v.point.get("mode") == "train"]
    return _once([*wanted, *_published(wanted, experiment.also)])


def offline_points(experiment: Experiment) -> list[Point]:
    """The same points on the offline model, each once."""
    offline = experiment.offline
    if offline is None:
        return []
    base = _without(experiment.base, offline.drop) | offline.replace
    extra = [base | point for point in expand([*offline.points, *offline.also])]
    if offline.points:
        return _once(extra)
    wanted = [
        v.point for v in values(experiment) if not v.quoted and "mode" not in _without(v.point, offline.drop)
    ]
    found = [_without(point, offline.drop) | offline.replace for point in _with_own(experiment, wanted)]
    return _once([*map(_told, found), *extra])


def _told(point: Point) -> Point:
    """A point that says how much it merges, or merges nothing."""
    if point.get("merge") == "none":
        return _without(point, AMOUNTS)
    return point if set(AMOUNTS) & set(point) else point | {"ratio": DEFAULT_RATIO}


def _without(point: Mapping[str, Any], keys: Collection[str]) -> Point:
    return {key: value for key, value in point.items() if key not in keys}


def expand(grids: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Every combination where a key has a list; a list in a list is one value."""
    out = []
    for grid in grids:
        choices = [value if isinstance(value, list) else [value] for value in grid.values()]
        out += [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*choices)]
    return out


def picture(experiment: Experiment, *, offline: bool) -> Point:
    """Arguments of show_tokens for an experiment of kind `pictures`."""
    if not offline or experiment.offline is None:
        return experiment.picture
    kept = {key: value for key, value in experiment.picture.items() if key not in experiment.offline.drop}
    return kept | experiment.offline.replace


SELECTING = ("model", "data")


def selected(
    found: Sequence[Point], given: Mapping[str, Sequence[str]]
) -> tuple[list[Point], frozenset[str]]:
    """The points with the model and the data of a command line, and which of these keys it chose by: not
    those of which no point has any of the values, which then take the place of the points' own.

    Raises ValueError if some of the values of a key are those of points and others are not.
    """
    chosen = set()
    for key in SELECTING:
        known = {str(point[key]) for point in found if key in point}
        if not known & set(given.get(key, ())):
            continue
        if unknown := [value for value in given[key] if value not in known]:
            raise ValueError(f"no point with {key}={unknown[0]}; it has {', '.join(sorted(known))}")
        found = [point for point in found if str(point.get(key)) in given[key]]
        chosen.add(key)
    return list(found), frozenset(chosen)


def reduced(point: Mapping[str, Any], given: Collection[str]) -> Point | None:
    """What is left of a point where a command line gives some keys itself; None where it goes altogether.

    Who gives an amount replaces every kind of amount. Who gives methods replaces those of the experiment:
    its unmerged points and those with options of a method go.
    """
    options = any(key.startswith(_METHOD) for key in point)
    if "merge" in given and (point.get("merge") == "none" or options):
        return None
    gone = {*given, *(AMOUNTS if set(AMOUNTS) & set(given) else ())}
    return {key: value for key, value in point.items() if key not in gone}


def _run(experiment: Experiment) -> list[Value]:
    """The values that a run gives."""
    return [
        value
        for value in values(experiment)
        if not value.quoted and not value.blocked and not METRICS[value.metric].computed
    ]


def _with_own(experiment: Experiment, wanted: Sequence[Point]) -> list[Point]:
    return _once(
        [
            *wanted,
            *_published(wanted, experiment.also),
            *(experiment.base | p for p in expand(experiment.points)),
        ]
    )


def _published(wanted: Iterable[Point], methods: Sequence[str]) -> list[Point]:
    """The points of `_repo` presets with the methods as published, where they have no options."""
    return [
        point | {"merge": bare}
        for point in wanted
        if (bare := bare_name(point)) in methods and not any(key.startswith(_METHOD) for key in point)
    ]


def bare_name(point: Mapping[str, Any]) -> str | None:
    """`tome` where a point runs `tome_repo`; None where it runs none of the authors' presets."""
    name = str(point.get("merge", ""))
    return name.removesuffix(REPO) if name.endswith(REPO) else None


def _once(found: Iterable[Point]) -> list[Point]:
    out: list[Point] = []
    for point in found:
        if point not in out:
            out.append(point)
    return out


def _flat(experiment: Experiment, block: Block, number: int) -> list[Value]:
    where = f"values[{number}]"
    if len(block.along) > 1:
        raise ValueError(f"{where}.along has {len(block.along)} keys, expected one")
    key, columns = next(iter(block.along.items()), (None, [None]))
    if (key == "metric") is (block.metric is not None):
        raise ValueError(f"{where} needs either metric or along: {{metric: [...]}}")
    out = []
    for row in dict.fromkeys([*block.printed, *block.logged]):
        case, own = _row(experiment, block, row, where)
        at = experiment.base | own
        printed = _numbers(block.printed.get(row), columns, key, f"{where}.printed.{row}")
        logged = _numbers(block.logged.get(row), columns, key, f"{where}.logged.{row}")
        for column, one, other in zip(columns, printed, logged, strict=True):
            if one is None and other is None and block.above is None:
                continue
            metric = column if key == "metric" else block.metric
            if metric not in METRICS:
                raise ValueError(f"{where}: {metric} is no metric; known: {', '.join(METRICS)}")
            if metric not in experiment.metrics:
                raise ValueError(f"{where}: metrics.{metric} is missing; say how it is judged")
            point = at | ({} if key in (None, "metric") else {key: column})
            out.append(
                Value(
                    point=point,
                    quoted=block.by == "quoted",
                    metric=metric,
                    variant=block.variant,
                    case=case,
                    printed=one,
                    logged=other,
                    source=block.source,
                    logged_source=block.logged_source,
                    blocked=block.blocked,
                    note=block.note,
                    above=block.above,
                )
            )
    return out


def _row(experiment: Experiment, block: Block, row: str, where: str) -> tuple[str, Point]:
    """The name of a row where it has one of its own, and its overrides."""
    if block.by == "quoted":
        return row, dict(block.at)
    if block.by != "case":
        return "", block.at | {block.by: row}
    if row not in experiment.cases:
        raise ValueError(f"{where}: {row!r} is not among cases")
    return row, block.at | experiment.cases[row]


def _numbers(given: Any, columns: Sequence[Any], key: str | None, where: str) -> list[float | None]:
    """One number per column."""
    if given is None:
        return [None] * len(columns)
    numbers = given if isinstance(given, list) else [given] * len(columns) if key is None else [given]
    if len(numbers) != len(columns):
        raise ValueError(f"{where} has {len(numbers)} numbers for {len(columns)} columns")
    for number in numbers:
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{where} is {number!r}, expected a number")
    return [None if number is None else float(number) for number in numbers]
