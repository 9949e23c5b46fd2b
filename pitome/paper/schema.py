"""What stands in a file of experiments/, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pitome.fields import number

RUNS, THEOREM, PICTURES = "runs", "theorem", "pictures"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """checkpoints, data: what has to be there, in words; gpu_hours: of one recent accelerator, without
    training, about; gpu_hours_training: with it; disk_gb: of checkpoints and data."""

    checkpoints: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    gpu_hours: float = number(0.0, least=0)
    gpu_hours_training: float = number(0.0, least=0)
    disk_gb: float = number(0.0, least=0)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How a metric of this item is judged. better: higher or lower; tolerance: in the metric's unit;
    relative: as a share of the printed value; neither: its values are shown and not judged."""

    better: Literal["higher", "lower"]
    tolerance: float | None = number(None, above=0)
    relative: float | None = number(None, above=0)
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of the item: one line per row, one number per column.

    at: overrides that all of it shares; by: the key that the rows differ in: an override (`merge`),
    `case` for those named in `cases`, or `quoted` for other works' numbers, which have no run;
    along: the key that the columns differ in and its values, `metric` for several metrics; printed,
    logged: row -> a number, or one per column, null where there is none. source, logged_source: where
    they stand. metric: of all numbers, if not a column each. variant: of the runs, in words. blocked:
    why these cannot be run here; note: what else is to be said. above: the paper states no number, but
    that it exceeds this one.
    """

    at: dict[str, Any] = field(default_factory=dict)
    by: str = "merge"
    along: dict[str, list[Any]] = field(default_factory=dict)
    metric: str | None = None
    variant: str = ""
    printed: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    logged_source: str = ""
    blocked: str | None = None
    note: str = ""
    above: float | None = None


@dataclass(frozen=True, kw_only=True)
class Offline:
    """The same points on a model that comes with this project. replace: key -> its value in every
    point; drop: keys that do not apply; also: points beside them (controls, equal FLOPs); points: instead
    of them; metrics: what is compared with the published records, and the tolerance in its unit."""

    replace: dict[str, Any] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    also: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = number(dict, above=0)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One item of the paper. name: of its file; kind: what carries it out, `runs` of run.py, `theorem`
    or `pictures`; base: overrides of every point; also: methods as published that run beside the
    authors' code of them (`pitome` beside each `pitome_repo`); points: runs without a value in the
    paper, lists being expanded to a product; cases: name -> overrides, for blocks `by: case`; picture:
    arguments of show_tokens.
    """

    name: str
    item: str
    title: str
    expect: str
    needs: Needs
    kind: Literal["runs", "theorem", "pictures"] = "runs"
    base: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Judged] = field(default_factory=dict)
    also: list[str] = field(default_factory=list)
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    values: list[Block] = field(default_factory=list)
    offline: Offline | None = None
    picture: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number of an item. point: overrides of its run; quoted: another work's number, which has no
    run; case: the row's name where it is none of method, model or data."""

    point: dict[str, Any]
    metric: str
    quoted: bool = False
    variant: str = ""
    case: str = ""
    printed: float | None = None
    logged: float | None = None
    source: str = ""
    logged_source: str = ""
    blocked: str | None = None
    note: str = ""
    above: float | None = None
