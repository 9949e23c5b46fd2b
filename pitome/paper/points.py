"""Step 3: the values of an item, one by one, and the points that its sweep runs. Imports no torch.

A point is the overrides of one run: `{"model": "deit_s", "merge": "tome_repo", "ratio": 0.925}`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitome.config import DEFAULT_RATIO
from pitome.merge.schedule import AMOUNTS
from pitome.paper.item import CASE, METRIC, QUOTED, Block, PaperItem
from pitome.paper.metrics import METRICS
from pitome.records.identity import UNMERGED

Point = dict[str, Any]

REPO = "_repo"  # ends the name of a preset: what the authors' code runs under the name before it
OPTIONS = "merge.options."
TRAINED_WITH = "trained_with"


@dataclass(frozen=True, kw_only=True)
class PaperValue:
    """One number of an item."""

    point: Point
    metric: str
    block: Block  # that it stands in: its sources, its note, why it is blocked
    case: str = ""  # the row's name where it is none of method, model or data
    printed: float | None = None
    logged: float | None = None

    @property
    def quoted(self) -> bool:
        """Whether it is another work's number, which has no run."""
        return self.block.by == QUOTED


def paper_values(item: PaperItem) -> list[PaperValue]:
    """All numbers of the item, in its order."""
    return [value for block in item.values for value in _values_of(item, block)]


def sweep_points(item: PaperItem) -> list[Point]:
    """What the sweep of an item runs, each point once: those of the values that a run can give, the same
    with the methods in `also`, and `points`."""
    return _complete(item, [point for point in _measurable(item) if "mode" not in point])


def training_points(item: PaperItem) -> list[Point]:
    """What `experiment=<name>_trained` runs: the points that train."""
    points = [point for point in _measurable(item) if point.get("mode") == "train"]
    return _unique([*points, *_as_published(item, points)])


def offline_points(item: PaperItem) -> list[Point]:
    """The points of an item on its offline model, each once."""
    offline = item.offline
    if offline is None:
        return []

    def moved(point: Mapping[str, Any]) -> Point:
        return _without(point, offline.drop) | offline.replace

    extra = [moved(item.base) | point for point in expand([*offline.points, *offline.also])]
    if offline.points:
        return _unique(extra)
    points = [value.point for value in paper_values(item) if not value.quoted]
    points = [point for point in points if "mode" not in _without(point, offline.drop)]
    return _unique([*(_with_amount(moved(point)) for point in _complete(item, points)), *extra])


def trained_offline_points(item: PaperItem) -> list[Point]:
    """What `experiment=<name>_trained_offline` trains and tests on the offline model, each point once, seed
    by seed."""
    offline = item.offline
    if offline is None:
        return []
    base = _without(item.base, offline.drop) | offline.replace
    points = _unique(_with_amount(base | point) for point in expand(offline.trained))
    return sorted(points, key=lambda point: int(point.get("seed", 0)))


def picture_arguments(item: PaperItem, *, offline: bool) -> Point:
    """Arguments of show_tokens for an item of kind `pictures`."""
    if not offline or item.offline is None:
        return item.picture
    return _without(item.picture, item.offline.drop) | item.offline.replace


def expand(grids: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Every combination where a key has a list; a list in a list is one value."""
    points = []
    for grid in grids:
        choices = [value if isinstance(value, list) else [value] for value in grid.values()]
        points += [dict(zip(grid, values, strict=True)) for values in itertools.product(*choices)]
    return points


def published_name(point: Mapping[str, Any]) -> str | None:
    """`tome` where a point runs the preset `tome_repo` without options; None for other points."""
    name = str(point.get("merge", ""))
    return None if not name.endswith(REPO) or has_options(point) else name.removesuffix(REPO)


def has_options(point: Mapping[str, Any]) -> bool:
    """Whether a point sets options of its method."""
    return any(key.startswith(OPTIONS) for key in point)


def command(point: Mapping[str, Any]) -> str:
    """The command that runs a point."""
    return " ".join(["python run.py", *(f"{key}={argument(value)}" for key, value in point.items())])


def argument(value: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, list):
        return "[" + ",".join(map(argument, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values_of(item: PaperItem, block: Block) -> Iterator[PaperValue]:
    for row, column, printed, logged in block.cells():
        if block.by == QUOTED:
            point = item.base | block.at
        else:
            point = item.base | block.at | (item.cases[row] if block.by == CASE else {block.by: row})
        yield PaperValue(
            point=point | {key: value for key, value in column.items() if key != METRIC},
            metric=str(column.get(METRIC, block.metric)),
            block=block,
            case=row if block.by in (QUOTED, CASE) else "",
            printed=printed,
            logged=logged,
        )


def _measurable(item: PaperItem) -> list[Point]:
    """The points of the values that a run gives."""
    return [
        value.point
        for value in paper_values(item)
        if not value.quoted and not value.block.blocked and not METRICS[value.metric].computed
    ]


def _complete(item: PaperItem, points: Sequence[Point]) -> list[Point]:
    return _unique(
        [*points, *_as_published(item, points), *(item.base | point for point in expand(item.points))]
    )


def _as_published(item: PaperItem, points: Iterable[Point]) -> list[Point]:
    """The points of presets with the methods as published, where the item has these in `also`."""
    return [point | {"merge": name} for point in points if (name := published_name(point)) in item.also]


def _with_amount(point: Point) -> Point:
    """A point that says how much it merges, or merges nothing."""
    if point.get("merge") == UNMERGED and point.get(TRAINED_WITH, UNMERGED) == UNMERGED:
        return _without(point, AMOUNTS)
    return point if set(AMOUNTS) & set(point) else point | {"ratio": DEFAULT_RATIO}


def _without(point: Mapping[str, Any], keys: Collection[str]) -> Point:
    return {key: value for key, value in point.items() if key not in keys}


def _unique(points: Iterable[Point]) -> list[Point]:
    unique: list[Point] = []
    for point in points:
        if point not in unique:
            unique.append(point)
    return unique
