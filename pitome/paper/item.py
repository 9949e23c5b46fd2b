"""Step 2: a file of experiments/ as a typed item of the paper.

Each check of a single part stands in the class of that part, and raises ValueError with one line. What
the runs of an item may be is checked in checks.py. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pitome.config import Config
from pitome.errors import nearest
from pitome.fields import decode, number
from pitome.paper.metrics import METRICS

RUNS, THEOREM, PICTURES = "runs", "theorem", "pictures"
CASE, QUOTED, METRIC = "case", "quoted", "metric"  # keys of rows and columns that are not overrides
_THEOREM_KEYS = ("task", "data", "merge", "ratio", "noise")


Numbers = float | list[float | None] | None
"""A number, or one per column; null where there is none."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to be there to run an item."""

    checkpoints: list[str] = field(default_factory=list)  # in words
    data: list[str] = field(default_factory=list)  # in words
    gpu_hours: float = number(0.0, least=0)  # of one recent accelerator, about, without training
    gpu_hours_training: float = number(0.0, least=0)  # those of training, on top
    disk_gb: float = number(0.0, least=0)  # of checkpoints and data

    def in_words(self) -> str:
        """All of it, in one line."""
        parts = [*(f"checkpoint {name}" for name in self.checkpoints), *self.data]
        parts += [f"about {self.gpu_hours:g} GPU hours"] if self.gpu_hours else []
        parts += [f"{self.gpu_hours_training:g} more to train"] if self.gpu_hours_training else []
        parts += [f"{self.disk_gb:g} GB of disk"] if self.disk_gb else []
        return "; ".join(parts) or "nothing"


@dataclass(frozen=True, kw_only=True)
class MetricRule:
    """How the values of one metric are judged; without a tolerance they are shown and not judged."""

    better: Literal["higher", "lower"]
    tolerance: float | None = number(None, above=0)  # in the metric's unit
    relative: float | None = number(None, above=0)  # a tolerance as a share of the printed value
    why: str = ""  # why there is no tolerance
    cause: str = ""  # of values outside the tolerance, in a few words

    def check(self, where: str) -> None:
        """Raises ValueError unless there is one tolerance, or a reason for none."""
        if self.tolerance is not None and self.relative is not None:
            raise ValueError(f"{where} has a tolerance and a relative one, expected one")
        if self.tolerance is self.relative is None and not self.why:
            raise ValueError(f"{where} has no tolerance and no `why`")

    def tolerance_of(self, target: float) -> float | None:
        """The tolerance of a printed value, in its unit. A relative one adds half a unit of the value's
        last printed digit."""
        if self.relative is None:
            return self.tolerance
        decimals = len(f"{target:g}".partition(".")[2])
        return self.relative * abs(target) + 0.5 * 10.0**-decimals


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of an item's values: one line per row, one number per column."""

    at: dict[str, Any] = field(default_factory=dict)  # overrides of all its runs
    # The key that the rows differ in: an override (`merge`), `case` for those named in `cases`, or
    # `quoted` for other works' numbers, which have no run.
    by: str = "merge"
    # The key that the columns differ in, and its values; `metric` for several metrics.
    along: dict[str, list[Any]] = field(default_factory=dict)
    metric: str | None = None  # of all numbers, where each column is not a metric of its own
    variant: str = ""  # of the runs, in words
    printed: dict[str, Numbers] = field(default_factory=dict)  # row -> what the paper prints
    logged: dict[str, Numbers] = field(default_factory=dict)  # row -> what its authors' files say
    source: str = ""  # where the printed numbers stand
    logged_source: str = ""  # where the logged numbers stand
    blocked: str | None = None  # why these cannot be run here
    note: str = ""  # shown beside each value
    causes: dict[str, str] = field(default_factory=dict)  # metric -> as `cause`, where these differ from it
    above: float | None = None  # where the paper prints no number, but states that it exceeds this one

    def check(self, where: str) -> None:
        """Raises ValueError for rows and columns that do not fit together."""
        if not self.rows:
            raise ValueError(f"{where} has neither printed nor logged numbers")
        if self.by in (QUOTED, CASE):
            for row in self.rows:
                if not isinstance(row, str):
                    raise ValueError(f"{where}: the row {row} is not text; put it in quotes")
        if self.by in self.along:
            raise ValueError(f"{where}: both rows and columns differ in {self.by}")
        for key in self.along:
            if key in self.at:
                raise ValueError(f"{where}: both at and along say {key}")
        for name in self.along.get(METRIC, []):
            if not isinstance(name, str):
                raise ValueError(f"{where}.along.metric has {name!r}, expected the name of a metric")
        if len(self.along) > 1:
            raise ValueError(f"{where}.along has {len(self.along)} keys, expected one")
        if (METRIC in self.along) is (self.metric is not None):
            raise ValueError(f"{where} needs either metric or along: {{metric: [...]}}")
        for name in self.causes:
            if name not in self.metrics:
                raise ValueError(
                    f"{where}.causes: {name} is not among its metrics, {', '.join(self.metrics)}"
                )
        for name, numbers in (("printed", self.printed), ("logged", self.logged)):
            for row, given in numbers.items():
                count = len(given) if isinstance(given, list) else 1
                if given is not None and count != self._width:
                    raise ValueError(f"{where}.{name}.{row} has {count} numbers for {self._width} columns")

    @property
    def rows(self) -> list[str]:
        """The names of its rows."""
        return list(dict.fromkeys([*self.printed, *self.logged]))

    @property
    def metrics(self) -> list[str]:
        """The metrics of its numbers."""
        return [self.metric] if self.metric is not None else self.along[METRIC]

    @property
    def _width(self) -> int:
        return max([1, *(len(columns) for columns in self.along.values())])

    def cells(self) -> Iterator[tuple[str, dict[str, Any], float | None, float | None]]:
        """Row, column as an override (or a metric), printed and logged number of each cell."""
        columns = [{key: value} for key, values in self.along.items() for value in values] or [{}]
        for row in self.rows:
            printed = _numbers(self.printed.get(row), len(columns))
            logged = _numbers(self.logged.get(row), len(columns))
            for column, *numbers in zip(columns, printed, logged, strict=True):
                if numbers != [None, None] or self.above is not None:
                    yield row, column, numbers[0], numbers[1]


@dataclass(frozen=True, kw_only=True)
class Offline:
    """The same points on a model that comes with this project."""

    replace: dict[str, Any] = field(default_factory=dict)  # overrides that take the place of the item's
    drop: list[str] = field(default_factory=list)  # keys of the item's points that do not apply
    also: list[dict[str, Any]] = field(default_factory=list)  # more points: controls, equal FLOPs
    points: list[dict[str, Any]] = field(default_factory=list)  # points that take the place of the item's
    # Points that train the model and test it, also with other methods than it was trained with.
    trained: list[dict[str, Any]] = field(default_factory=list)
    # What is compared with this project's published records -> its tolerance, in the metric's unit.
    metrics: dict[str, float] = number(dict, above=0)

    def check(self, kind: str) -> None:
        """Raises ValueError for metrics that no run has. kind: of the item."""
        if kind == RUNS and not self.metrics:
            raise ValueError("offline.metrics is empty")
        measured = [name for name, metric in METRICS.items() if metric.read is not None]
        for name in self.metrics:
            if name not in measured:
                known = nearest(str(name), measured)
                raise ValueError(f"offline.metrics: {name} is not measured by a run; {known}")


@dataclass(frozen=True, kw_only=True)
class PaperItem:
    """A table, a figure or a theorem of the paper, as its file has it."""

    name: str  # of the file
    item: str  # as the paper counts it: `Table 5`
    paper: str = "arXiv 2405.16148"  # that it is of
    title: str
    expect: str  # what comes out, in words
    needs: Needs
    # What carries it out: runs of run.py, the check of the theorem, or the drawing of pictures.
    kind: Literal["runs", "theorem", "pictures"] = "runs"
    base: dict[str, Any] = field(default_factory=dict)  # overrides of every point
    metrics: dict[str, MetricRule] = field(default_factory=dict)  # how each metric is judged
    # Methods as published that run beside the authors' code of them: `pitome` beside each `pitome_repo`.
    also: list[str] = field(default_factory=list)
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> overrides, for `by: case`
    # Runs without a value in the paper; where a key has a list, every combination is a run.
    points: list[dict[str, Any]] = field(default_factory=list)
    values: list[Block] = field(default_factory=list)  # the numbers of the paper and of its authors' logs
    offline: Offline | None = None
    picture: dict[str, Any] = field(default_factory=dict)  # arguments of show_tokens

    def check(self) -> None:
        """Raises ValueError, one line, for the first mistake in what its parts say of one another."""
        if bool(self.picture) is not (self.kind == PICTURES):
            raise ValueError(f"kind: {PICTURES} and `picture` go together")
        for name, rule in self.metrics.items():
            if name not in METRICS:
                raise ValueError(f"metrics: {name} is not a metric; {nearest(str(name), METRICS)}")
            rule.check(f"metrics.{name}")
        for where, keys in self._overrides():
            for key in keys:
                _check_key(self.kind, str(key), where)
        for i, block in enumerate(self.values):
            self._check_block(block, f"values[{i}]")
        if not self.values and self.kind == RUNS and not (self.offline and self.offline.points):
            raise ValueError("values is empty")
        if self.offline is not None:
            self.offline.check(self.kind)

    def _check_block(self, block: Block, where: str) -> None:
        block.check(where)
        for row in block.rows if block.by == CASE else ():
            if row not in self.cases:
                raise ValueError(f"{where}: {row!r} is not among cases")
        for metric in block.metrics:
            if metric not in METRICS:
                raise ValueError(f"{where}: {metric} is not a metric; known: {', '.join(METRICS)}")
            if metric not in self.metrics:
                raise ValueError(f"{where}: metrics.{metric} is missing; say how it is judged")

    def _overrides(self) -> Iterator[tuple[str, Collection[str]]]:
        """Every place with overrides of a run, and their keys. Raises ValueError for an empty list."""
        yield "base", self.base
        for name, overrides in self.cases.items():
            yield f"cases.{name}", overrides
        for i, block in enumerate(self.values):
            yield f"values[{i}].at", block.at
            yield f"values[{i}].by", [] if block.by in (QUOTED, CASE) else [block.by]
            yield f"values[{i}].along", _grid_keys(block.along, f"values[{i}].along")
        grids = {"points": self.points}
        if self.offline is not None:
            yield "offline.replace", self.offline.replace
            yield "offline.drop", self.offline.drop
            grids |= {
                f"offline.{name}": getattr(self.offline, name) for name in ("points", "also", "trained")
            }
        for name, members in grids.items():
            for i, grid in enumerate(members):
                yield f"{name}[{i}]", _grid_keys(grid, f"{name}[{i}]")


def parse_item(content: Mapping[str, Any]) -> PaperItem:
    """The item of a file's content. Raises ValueError, one line, for the first mistake in it."""
    item = decode(PaperItem, content)
    item.check()
    return item


def _grid_keys(grid: Mapping[str, Any], where: str) -> list[str]:
    for key, values in grid.items():
        if values == []:
            raise ValueError(f"{where}.{key} is an empty list")
    return [key for key in grid if key != METRIC]


def _check_key(kind: str, key: str, where: str) -> None:
    known = _THEOREM_KEYS if kind == THEOREM else [field.name for field in dataclasses.fields(Config)]
    if key not in known and (kind == THEOREM or not _is_nested(key)):
        raise ValueError(f"{where}: {key} is not a key of a run; {nearest(key, known)}")


def _is_nested(key: str) -> bool:
    """Whether a dotted key leads to something in the configuration: `model.checkpoint`, `merge.options.x`."""
    kind: Any = Config
    for part in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return any(typing.get_origin(option) is dict for option in (kind, *typing.get_args(kind)))
        fields = typing.get_type_hints(kind)
        if part not in fields:
            return False
        kind = fields[part]
    return True


def _numbers(given: Numbers, width: int) -> list[float | None]:
    numbers = given if isinstance(given, list) else [given] * width
    return [None if number is None else float(number) for number in numbers]
