"""FLOPs of the paper's points, computed from the real architectures and kept as data.

`scripts/experiment_costs.py` computes them; here they are only looked up, without torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.merge.schedule import AMOUNTS
from pitome.paper.points import OPTIONS, Point
from pitome.records.identity import UNMERGED, canonical

FILE = Path(__file__).parent / "costs.json"


@dataclass(frozen=True)
class PointCost:
    """A computed cost of a point."""

    value: float  # by the authors' count, which is what the paper prints
    note: str  # our count, and what was counted


def key(point: Point) -> str:
    """What a cost depends on, as text: the model, the method with its options, the amount and the layers;
    for texts the data set, which decides their lengths."""
    kept = {k: v for k, v in point.items() if k in ("model", "merge", "layers", *AMOUNTS)}
    kept |= {k: v for k, v in point.items() if k.startswith((OPTIONS, "model."))}
    if point.get("task") == "text":
        kept["data"] = point.get("data")
    if point.get("merge") == UNMERGED:
        kept = {k: v for k, v in kept.items() if k not in ("layers", *AMOUNTS)}
    return json.dumps(canonical(kept), sort_keys=True)


def find(point: Point, metric: str) -> PointCost | None:
    """The computed cost of a point, as the metric `gmacs` or `flops_x`; None where there is none."""
    entry = table().get(key(point), {}).get(metric)
    return None if entry is None else PointCost(entry["value"], entry["note"])


def gmacs_of(points: Iterable[Point]) -> list[float] | None:
    """The GMACs of each point by the authors' count; None unless all are known."""
    costs = [find(point, "gmacs") for point in points]
    values = [cost.value for cost in costs if cost is not None]
    return values if len(values) == len(costs) else None


@functools.cache
def table() -> dict[str, dict[str, dict[str, Any]]]:
    """Everything computed: key of a point -> metric -> value and note."""
    entries: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return entries
