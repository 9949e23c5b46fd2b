"""The requested reduction of a run: as text, as a key, and for sorting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pitome.records.identity import CONTROLS, RESIZE, UNMERGED, canonical
from pitome.records.schema import Record

_TRAINED_UNMERGED = "trained without merging"
_AMOUNTS = ("ratio", "r", "inflection", "flops", "schedule")  # in a run's configuration


def setting(record: Record) -> str:
    """The requested reduction as the user wrote it: `0.925`, `r 16`, `FLOPs 0.8`, ...

    A ratio has no name. A ratio that was derived from the request is added.
    """
    if record.method.name in (UNMERGED, RESIZE):
        return training(record) or "-"
    words = _asked(record)
    ratio = record.method.ratio
    if ratio is not None and "flops" in record.method.asked:
        words.insert(1, f"ratio {ratio:.4g}")
    elif ratio is not None and record.method.asked.get("ratio", ratio) not in (ratio, None):
        words.insert(1, f"applied {ratio:g}")
    return ", ".join([*words, *filter(None, [training(record)])])


def training(record: Record) -> str:
    """With which method the weights were trained, where this was asked for: `trained with tome`; for the
    unmerged model, which has no amount of its own, `trained with tome at 0.9`. Else empty."""
    name = record.config.get("trained_with")
    if name is None:
        return ""
    if name == UNMERGED:
        return _TRAINED_UNMERGED
    if record.method.name != UNMERGED:
        return f"trained with {name}"
    asked = {key: value for key in _AMOUNTS if (value := record.config.get(key)) is not None}
    return f"trained with {name}" + (f" at {', '.join(_words(asked))}" if asked else "")


def point(record: Record) -> str:
    """Key shared by comparable runs with the same requested reduction and training; empty for the unmerged
    model and for the control `resize`, whose setting depends on the other runs. A method's own schedule
    is part of the key."""
    method = record.method
    if method.name in (UNMERGED, RESIZE):
        return ""
    scheduled = not {"ratio", "r", "flops", "keep"} & set(method.asked)
    own = {"schedule": method.schedule} if scheduled else {}
    trained = {"trained": words} if (words := training(record)) else {}
    return word_of(method.asked | own | trained)


def family(record: Record) -> str:
    """Key shared by runs that differ in the amount alone, so that a line may join them in a plot: the same
    layers, the same training, and a share, a fixed number (with its slope) or a schedule of its own."""
    asked = record.method.asked
    kind = "r" if "r" in asked else "share" if {"ratio", "flops"} & set(asked) else "schedule"
    kind = "keep" if "keep" in asked else kind
    same = {key: asked.get(key) for key in ("layers", "inflection", "tower")}
    return word_of({"kind": kind, "trained": training(record)} | same)


def point_name(record: Record) -> str:
    """Text for all runs of one `point`: `0.925`, `r 16`, `FLOPs 0.8`, ..."""
    return ", ".join([*_asked(record), *filter(None, [training(record)])]) if point(record) else "-"


def order(record: Record) -> tuple[Any, ...]:
    """Sorts runs: unmerged, ratios from high to low, removals from few to many, shares of FLOPs and image
    tokens kept from high to low, everything else by its cost; within each, methods by name, then the
    controls."""
    method = record.method
    asked = method.asked
    ratio, r, flops, keep = (asked.get(key) for key in ("ratio", "r", "flops", "keep"))
    if method.name == UNMERGED:
        place: tuple[int, float] = (0, 0.0)
    elif isinstance(ratio, int | float):
        place = (1, -ratio)
    elif isinstance(r, int | float):
        place = (2, r)
    elif isinstance(flops, int | float):
        place = (3, -flops)
    elif isinstance(keep, int | float):
        place = (4, -keep)
    else:
        place = (5, -record.cost.share if record.cost else 0.0)
    control = CONTROLS.index(method.name) if method.name in CONTROLS else -1
    trained = (training(record) not in ("", _TRAINED_UNMERGED), training(record))
    return (*place, *trained, point(record), control, method.name, word_of(method.options), record.seed)


def word(value: Any) -> str:
    """A value as the user would write it."""
    if isinstance(value, list):
        return "[...]" if len(value) > 4 else "[" + ", ".join(map(word, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def word_of(values: dict[str, Any]) -> str:
    """A text that is equal for equal values, however they are written."""
    return json.dumps(canonical(values), sort_keys=True)


def _asked(record: Record) -> list[str]:
    return _words(record.method.asked)


def _words(given: Mapping[str, Any]) -> list[str]:
    asked, parts = dict(given), []
    if (ratio := asked.pop("ratio", None)) is not None:
        parts.append("per layer" if isinstance(ratio, list) else f"{ratio:g}")
    if (r := asked.pop("r", None)) is not None:
        parts.append("r per layer" if isinstance(r, list) else f"r {r}")
    if (flops := asked.pop("flops", None)) is not None:
        parts.append(f"FLOPs {flops:g}")
    if (keep := asked.pop("keep", None)) is not None:
        parts.append(f"keep {keep:g}")
    if (schedule := asked.pop("schedule", None)) is not None:
        parts.append(f"schedule {word(schedule)}")
    if not parts:
        parts.append("own schedule")
    return parts + [f"{key} {word(value)}" for key, value in asked.items() if value is not None]
