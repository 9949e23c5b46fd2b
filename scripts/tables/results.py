"""docs/results.md: the published scores of this project's own models, and what merging speeds up."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pitome.config import CONF
from pitome.paper.matching import matches
from pitome.paper.points import Point
from pitome.records.markdown import markdown_table
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report.items import PUBLISHED
from scripts.bench.groups import RATIO
from scripts.bench.results import Result, results

METHODS = ("pitome", "pitome_repo", "tome", "diffrate", "tofu", "stride", "random", "resize")
AMOUNTS = {  # part -> model, key of the amount, amounts
    "images": ("vit_fmnist", "flops", (0.9, 0.8, 0.7, 0.6, 0.5)),
    "text": ("minilm", "ratio", (0.9, 0.8, 0.7, 0.6)),
    "retrieval": ("clip_scenes", "ratio", (0.975, 0.95, 0.925, 0.9)),
    "questions": ("llava_easyvqa", "ratio", (0.975, 0.95, 0.925, 0.9)),
}
BENCH = CONF.parent / "results" / "bench" / "cpu-float32-torch2.15.0-batch16-threads2.json"
TIMED = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")


def tables() -> dict[str, str]:
    """A table per model: score and, in brackets, cost; and one of speed-ups."""
    records = [record for record in Store(PUBLISHED).all() if record.done]
    return {part: _quality(part, records) for part in AMOUNTS} | {"speed": _speed()}


def _quality(part: str, records: Sequence[Record]) -> str:
    model, key, amounts = AMOUNTS[part]
    runs = [record for record in records if record.model.name == model]
    known = {
        (amount, method): text
        for amount in amounts
        for method in METHODS
        if (text := cell(runs, key, amount, method)) is not None
    }
    methods = [method for method in METHODS if any((amount, method) in known for amount in amounts)]
    rows = [[f"{amount:g}", *(known.get((amount, method), "-") for method in methods)] for amount in amounts]
    return markdown_table(["cost" if key == "flops" else "ratio", *methods], rows, right=set())


def cell(runs: Sequence[Record], key: str, amount: float, method: str) -> str | None:
    """The newest run; of smaller images the largest whose cost is within the amount. None without a run."""
    if method == "resize":
        members = [r for r in runs if (s := r.method.asked.get("shares")) and s[0] <= amount < s[1]]
    else:
        point: Point = {"merge": method, key: amount}
        members = [r for r in runs if r.method.asked.get(key) == amount and matches(_layers(point, r), r)]
    if not members:
        return None
    newest = max(members, key=lambda record: record.started)
    assert newest.score is not None and newest.cost is not None
    shown = key == "ratio" or method == "resize"
    return f"{100 * newest.score:.2f}" + (f" ({100 * newest.cost.share:.0f} %)" if shown else "")


def _layers(point: Point, record: Record) -> Point:
    """The point in the layers that the run merged in, where these are the task's usual ones."""
    layers = record.method.asked.get("layers")
    return point | {"layers": layers} if layers in (None, "first3") else point


def _speed() -> str:
    """Speed-up, and the share of the time saving that FLOPs predict."""
    record = json.loads(BENCH.read_text(encoding="utf-8"))
    timed = [result for result in results(record["parts"]["speed"]) if result.complete]
    methods = ("pitome", "tome", "tofu", "diffrate")
    rows = []
    for model in TIMED:
        for mode, clock in (("eager", "cpu"), ("compile", "wall")):
            at = {"model": model, "size": 224, "batch": 16, "ratio": RATIO, "mode": mode, "clock": clock}
            here = {r.method: r for r in timed if at.items() <= r.group.items()}
            cells = [_speed_up(here[method]) for method in methods]
            rows.append([f"`{model}`" + (", compiled" if mode == "compile" else ""), *cells])
    return markdown_table(["model", *methods], rows, right=set())


def _speed_up(result: Result) -> str:
    assert result.saved is not None
    return f"{result.speedup.value:.2f} ({100 * result.saved.value:.0f} %)"
