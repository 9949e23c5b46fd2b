"""What is asked of the fast path, and whether a record shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scripts.bench.groups import (
    ALONE,
    BASE,
    BERT,
    HUGE,
    LARGE,
    METHODS,
    RATIO,
    SMALL,
)
from scripts.bench.results import Interval, Result, Target, at_least, at_most, estimate

_TEXT = {"ratio": 0.8, "layers": "first3", "batch": 4}
# Of the time that `cut` saves: model, bound, methods, and the conditions.
_OF_CUT: tuple[tuple[str, float, Sequence[str], Mapping[str, Any]], ...] = (
    *((model, 0.97, METHODS, {"clock": "cpu"}) for model in (SMALL, BASE, LARGE)),
    *((model, 0.97, METHODS, {"mode": "compile", "clock": "wall"}) for model in (SMALL, BASE, LARGE)),
    *((BERT, 0.97, ("pitome", "tome"), {"size": size, "clock": "cpu", **_TEXT}) for size in (128, 512)),
    *(
        (model, bound, methods, {"mode": mode, "clock": clock, "batch": 1})
        for model, bound in ((SMALL, 0.85), (BASE, 0.90))
        for mode, clock, methods in ALONE
    ),
)
_OF_CUT_GPU = {BASE: 0.90, LARGE: 0.95, HUGE: 0.95}
_PLAN_SHARE = 0.03  # plan and merge of a block's time, ViT-B
_PLAN_SHARE_LONG = 0.05  # the plan of the forward, at 4,097 tokens
_REFERENCE, _REFERENCE_GPU = 1.1, 2.0  # times the authors' implementation
_ANSWER, _POINTS, _FIXED, _SWEEP = 0.6, 5, 1.15, 1.1


def clock_of(conditions: Mapping[str, Any]) -> str:
    """The clock that counts on the device of a record."""
    return "cpu" if conditions["device"] == "cpu" else "wall"


def judge(parts: Mapping[str, Mapping[str, Any]], timed: Sequence[Result]) -> list[Target]:
    """Every target with its verdict, those not measured yet included."""
    rows = [
        _of_cut(timed, bound, method, {"model": model, "batch": 16, "mode": "eager", **at})
        for model, bound, methods, at in _OF_CUT
        for method in methods
    ]
    rows += [_plan_share(parts.get("layers", {}), method) for method in METHODS]
    rows.append(_long_plan(parts.get("layers", {})))
    rows.append(_memory(timed))
    rows += [_reference(parts.get("reference", {}), name, _REFERENCE) for name in METHODS]
    rows += _commands(parts)
    return rows


def judge_gpu(parts: Mapping[str, Mapping[str, Any]], timed: Sequence[Result]) -> list[Target]:
    """The targets on a GPU, for the batches that were measured."""
    batches = sorted(
        {timing.group["batch"] for timing in timed if timing.group["model"] in _OF_CUT_GPU} - {1}
    ) or [64]
    rows = [
        _of_cut(timed, bound, method, {"model": model, "mode": mode, "clock": "wall", "batch": batch})
        for batch in batches
        for model, bound in _OF_CUT_GPU.items()
        for mode in ("eager", "compile")
        for method in METHODS
    ]
    for model in _OF_CUT_GPU:
        for method in METHODS:
            at = {"model": model, "mode": "graphs", "clock": "wall", "batch": 1}
            timing = _find(timed, method, at)
            name = f"times as fast as unmerged at batch 1, {model}, {method}, CUDA graphs"
            rows.append(at_least(name, 1.0, timing.speedup if timing else None, times))
    rows += [_plan_share(parts.get("layers", {}), method) for method in METHODS]
    rows += [_long_plan(parts.get("layers", {})), _memory(timed)]
    return rows + [_reference(parts.get("reference", {}), name, _REFERENCE_GPU) for name in METHODS]


def _of_cut(timed: Sequence[Result], bound: float, method: str, at: dict[str, Any]) -> Target:
    timing = _find(timed, method, at)
    size = f" at {at['size']} tokens" if "size" in at else ""
    name = f"of cut, {at['model']}{size}, {method}, batch {at['batch']}, {at['mode']}, {at['clock']}"
    return at_least(name, bound, timing.of_cut if timing else None, percent)


def _find(timed: Sequence[Result], method: str, at: dict[str, Any]) -> Result | None:
    """The complete result of `method` under the conditions `at`, at the ratio and size of the targets."""
    wanted = {"ratio": RATIO, "size": 224} | at
    fitting = (r for r in timed if r.method == method and wanted.items() <= r.group.items() and r.complete)
    return next(fitting, None)


def _plan_share(cells: Mapping[str, Any], method: str) -> Target:
    shares = [
        _share(c, "plan", "merge") for c in _at_ratio(cells) if (c["model"], c["method"]) == (BASE, method)
    ]
    return at_most(
        f"plan and merge of a block's time, {BASE}, {method}", _PLAN_SHARE, _first(shares), percent
    )


def _long_plan(cells: Mapping[str, Any]) -> Target:
    long = [
        _share(c, "plan")
        for c in _at_ratio(cells)
        if c["method"] == "pitome" and c["layers"][0]["tokens"] == 4097
    ]
    return at_most("pitome's plan at 4,097 tokens", _PLAN_SHARE_LONG, _first(long), percent)


def _at_ratio(cells: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cells at the ratio of the targets, which is that of cells without one."""
    return [cell for cell in cells.values() if cell.get("ratio", RATIO) == RATIO]


def _share(cell: Mapping[str, Any], *parts: str) -> float:
    """The share of `parts` in the time of all blocks."""
    whole: float = sum(
        layer[part] for layer in cell["layers"] for part in ("attention", "plan", "merge", "mlp")
    )
    named: float = sum(layer[part] for layer in cell["layers"] for part in parts)
    return named / whole


def _memory(timed: Sequence[Result]) -> Target:
    held = [timing.memory[0] - timing.memory[1] for timing in timed if timing.memory is not None]
    worst = max(held) if held else None
    name = "peak memory above unmerged, worst of all variants, MB"
    return at_most(name, 0, worst, lambda value: f"{value / 1e6:.0f}")


def _reference(cells: Mapping[str, Any], method: str, bound: float) -> Target:
    cells_of_method = [cell for cell in _at_ratio(cells) if cell["method"] == method]
    name = f"times as fast as the authors' implementation, {method}"
    if not cells_of_method:
        return at_least(name, bound, None, times)
    cell = cells_of_method[0]
    row = at_least(name, bound, Interval(cell["speedup"], cell["low"], cell["high"]), times)
    if cell["difference"] <= cell["tolerance"]:
        return row
    return Target(name, row.wanted, f"outputs differ by {cell['difference']:.1e}", "missed")


def _commands(parts: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    startup, sweep = parts.get("startup", {}), parts.get("sweep", {})
    seconds = {
        kind: [cell["seconds"] for cell in startup.values() if cell["kind"] == kind]
        for kind in ("answer", "points")
    }
    fixed = [cell["ratio"] for cell in startup.values() if cell["kind"] == "fixed"]
    files = [cell["ratio"] for name, cell in sweep.items() if "JPEG" in name]
    package = [cell["ratio"] for name, cell in sweep.items() if "JPEG" not in name]
    shown: Any = lambda value: f"{value:.2f} s"  # noqa: E731
    answer = max(seconds["answer"], default=None)
    return [
        at_most("slowest answer of the command line (CPU time)", _ANSWER, answer, shown),
        at_most("150 points composed and checked (CPU time)", _POINTS, _first(seconds["points"]), shown),
        at_most("fixed cost of a run / importing torch, timm, lightning", _FIXED, _first(fixed), times),
        at_most("sweep of 16 points / its forwards and one start", _SWEEP, _first(package), times),
        at_most(
            "sweep of 8 points over files / its forwards, one decoding, one start",
            _SWEEP,
            _first(files),
            times,
        ),
    ]


def series(
    timed: Sequence[Result], against: str, fixed: str, clock: str, ratio: float = RATIO
) -> list[Result]:
    """The points of one curve: ViT-S with pitome, by `clock`, `against` (size or batch) rising, `fixed` at
    its value in the scaling groups."""
    at = {"batch": 1, "size": 224}[fixed]
    same = {"model": SMALL, "mode": "eager", "clock": clock, "ratio": ratio, fixed: at}
    points = [r for r in timed if r.method == "pitome" and same.items() <= r.group.items()]
    return sorted(points, key=lambda point: point.group[against])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Median of theirs / ours, pair by pair."""
    return estimate(np.array(theirs) / np.array(ours))


def _first(values: Sequence[float]) -> float | None:
    return values[0] if values else None


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def times(value: float) -> str:
    return f"{value:.3f}"
