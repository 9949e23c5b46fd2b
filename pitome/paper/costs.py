"""FLOPs of the paper's points, computed from the real architectures and kept as data.

`scripts/experiment_costs.py` computes them; here they are only looked up, without torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.paper.values import AMOUNTS
from pitome.records.identity import canonical

FILE = Path(__file__).parent / "costs.json"
COST_METRICS = ("gmacs", "flops_x")


@dataclass(frozen=True)
class Cost:
    """value: by the authors' count, which is what the paper prints; note: ours, and on what."""

    value: float
    note: str


def key(point: Mapping[str, Any]) -> str:
    """What a cost depends on, as text: model, method with its options, amount, layers; for texts the
    data set, which stands for its lengths."""
    kept = {k: v for k, v in point.items() if k in ("model", "merge", "layers", *AMOUNTS)}
    kept |= {k: v for k, v in point.items() if k.startswith(("merge.options.", "model."))}
    if point.get("task") == "text":
        kept["data"] = point.get("data")
    if point.get("merge") == "none":
        kept = {k: v for k, v in kept.items() if k not in ("layers", *AMOUNTS)}
    return json.dumps(canonical(kept), sort_keys=True)


def find(point: Mapping[str, Any], metric: str) -> Cost | None:
    """The computed cost of a point; None where there is none."""
    entry = table().get(key(point), {}).get(metric)
    return None if entry is None else Cost(entry["value"], entry["note"])


@functools.cache
def table() -> dict[str, dict[str, dict[str, Any]]]:
    """Everything computed: key of a point -> metric -> value and note."""
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
