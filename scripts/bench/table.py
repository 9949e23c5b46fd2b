"""The tables of a record, in Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pitome.records.markdown import markdown_table
from scripts.bench import targets
from scripts.bench.groups import RATIO
from scripts.bench.record import cells as every_cell
from scripts.bench.record import short
from scripts.bench.results import Result, exponent, interval, results
from scripts.bench.targets import percent, times

HEAD = """<!-- Written by python -m scripts.bench; change that, not this. -->
# Speed

Both sides run alternately in one process; medians of the rounds' ratios with 95 % intervals from order
statistics. **Predicted**: the speed-up that FLOPs predict, unmerged / merged. **Saved**: the share of the
predicted time saving that is reached, (1 - 1/speed-up) / (1 - 1/predicted); 100 % is the limit that FLOPs
set. **Of cut**: the share of the time that the same model saves when it slices off as many tokens, without
plan, merge or bias; 100 % is the limit of the machine. Clock `cpu`: CPU time of the process on one thread;
`wall`: wall time on all threads. Weights and inputs are random.
"""


def markdown(conditions: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page of a record."""
    named = "; ".join(f"{name} {value}" for name, value in {**conditions, **_of_cells(parts)}.items())
    text = [HEAD, f"Conditions: {named}.\n"]
    timed = results(parts.get("speed", {}))
    sections = (
        ("Targets", targets_table(conditions, parts)),
        ("Speed", _speed(timed)),
        ("Per layer", _layers(parts.get("layers", {}))),
        ("Scaling", _scaling(timed, targets.clock_of(conditions))),
        ("Export", _export(parts.get("export", {}))),
        ("LLaVA: tower, prefill, decoding", _rows(parts.get("llava", {}))),
        ("The authors' implementation", _rows(parts.get("reference", {}))),
        ("On a GPU", _rows({f"{part}: {key}": cell for part, key, cell in every_cell(_of_pack(parts))})),
        ("Start and sweep", _rows({**parts.get("startup", {}), **parts.get("sweep", {})})),
        ("Revisions", _revisions(parts)),
    )
    text += [f"## {title}\n\n{body}\n" for title, body in sections if body]
    return "\n".join(text)


def _of_pack(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What `gpu.py` alone measures: correctness, choices between two ways, a profile in microseconds."""
    return {name: parts[name] for name in ("golden", "agreement", "decisions", "profile") if name in parts}


def revisions(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """What measured the cells: the one revision, or that there are several."""
    names = list(dict.fromkeys(short(cell.get("measured", {})) for _, _, cell in every_cell(parts)))
    return names[0] if len(names) == 1 else f"{len(names)} revisions"


def _of_cells(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The conditions that cells keep of their own, in one line."""
    measured = [cell.get("measured", {}) for _, _, cell in every_cell(parts)]
    conditions: dict[str, str] = {}
    for name in ("git_revision", "git_dirty"):
        values = list(dict.fromkeys(str(cell.get(name)) for cell in measured))
        conditions |= {name: values[0] if len(values) == 1 else " and ".join(values) + ", see Revisions"}
    loads = sorted(cell["load"] for cell in measured if cell.get("load") is not None)
    conditions |= {"load": f"{loads[0]} to {loads[-1]}"} if loads else {}
    kernels = sorted({cell["kernel"] for cell in measured if cell.get("kernel")})
    conditions |= {"kernel": " and ".join(kernels)} if kernels else {}
    return conditions if measured else {}


def _revisions(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Which cells were measured at which revision; empty where it is the same for all."""
    cells_at: dict[tuple[str, str, str], list[str]] = {}
    for part, key, cell in every_cell(parts):
        measured = cell.get("measured", {})
        at = (str(measured.get("git_revision")), str(measured.get("git_dirty")), part)
        cells_at.setdefault(at, []).append(key)
    if len({at[:2] for at in cells_at}) < 2:
        return ""
    rows = [[*at, "; ".join(keys)] for at, keys in sorted(cells_at.items())]
    return markdown_table(["git_revision", "git_dirty", "Part", "Cells"], rows)


def targets_table(conditions: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Every target with what was found and its verdict."""
    timed = results(parts.get("speed", {}))
    judged = targets.judge(parts, timed) if conditions["device"] == "cpu" else targets.judge_gpu(parts, timed)
    rows = [[target.name, target.wanted, target.found, target.verdict] for target in judged]
    return markdown_table(["Target", "Wanted", "Found", "Verdict"], rows)


def _speed(timed: Sequence[Result]) -> str:
    rows = [
        [
            result.group["model"],
            str(result.group["size"]),
            str(result.group["batch"]),
            f"{result.group['ratio']} {result.group['layers'] or ''}".strip(),
            result.group["mode"],
            result.group["clock"],
            result.method,
            f"{result.predicted:.3f}",
            interval(result.speedup, times),
            "" if result.saved is None else interval(result.saved, percent),
            "" if result.of_cut is None else interval(result.of_cut, percent),
            f"{1e3 * result.seconds:.1f} / {1e3 * result.seconds_unmerged:.1f}",
            "" if result.memory is None else f"{result.memory[0] / 1e6:.0f} / {result.memory[1] / 1e6:.0f}",
            str(result.rounds) if result.complete else f"{result.rounds} of {result.group['pairs']}",
        ]
        for result in timed
    ]
    head = ["Model", "Size", "Batch", "Ratio", "Mode", "Clock", "Method", "Predicted", "Speed-up"]
    return markdown_table(
        [*head, "Saved", "Of cut", "ms merged / unmerged", "MB merged / unmerged", "Pairs"], rows
    )


def _layers(cells: Mapping[str, Any]) -> str:
    rows = []
    for cell in cells.values():
        method = cell["method"]
        if (ratio := cell.get("ratio", RATIO)) not in (1.0, RATIO):
            method += f", ratio {ratio}"
        parts = ("attention", "plan", "merge", "mlp")
        whole = sum(layer[part] for layer in cell["layers"] for part in parts)
        for number, layer in enumerate(cell["layers"]):
            seconds = sum(layer[part] for part in parts)
            rows.append(
                [cell["model"], str(cell["size"]), method, str(number), str(layer["tokens"])]
                + [f"{1e3 * layer[part]:.2f} ({percent(layer[part] / seconds)})" for part in parts]
            )
        shares = [percent(sum(layer[part] for layer in cell["layers"]) / whole) for part in parts]
        rows.append([cell["model"], str(cell["size"]), method, "all", "", *shares])
    return markdown_table(
        ["Model", "Size", "Method", "Layer", "Tokens", "Attention, ms", "Plan", "Merge", "MLP"], rows
    )


def _scaling(timed: Sequence[Result], clock: str) -> str:
    """Seconds and memory against the number of tokens and the batch, with the fitted exponents."""
    lines = []
    ratios = sorted({result.group["ratio"] for result in timed}, reverse=True)
    for ratio, (against, fixed) in itertools.product(ratios, (("size", "batch"), ("batch", "size"))):
        points = targets.series(timed, against, fixed, clock, ratio)
        if len(points) < 3:
            continue
        x = [p.group[against] ** 2 if against == "size" else p.group[against] for p in points]
        what = "tokens (pixels squared)" if against == "size" else "batch"
        merged, plain = (
            exponent(x, [getattr(p, s) for p in points]) for s in ("seconds", "seconds_unmerged")
        )
        clocked = "CPU" if clock == "cpu" else "Wall"
        lines.append(
            f"{clocked} time of {points[0].group['model']} grows as {what} to the power "
            f"{merged:.2f} with {points[0].method} at ratio {ratio}, {plain:.2f} unmerged ({against} "
            f"{points[0].group[against]} to {points[-1].group[against]}, {fixed} {points[0].group[fixed]})."
        )
        held = [p for p in points if p.memory is not None and min(p.memory) > 0]
        if len(held) == len(points):
            merged, plain = (exponent(x, [p.memory[i] for p in held if p.memory]) for i in (0, 1))
            lines.append(f"Its memory beside the weights: {merged:.2f} and {plain:.2f}.")
    return "\n".join(lines)


def _export(cells: Mapping[str, Any]) -> str:
    rows = [[key, f"{cell['torch_export']:.1e}", f"{cell['onnxruntime']:.1e}"] for key, cell in cells.items()]
    return markdown_table(["Model and method", "torch.export: largest difference", "onnxruntime"], rows)


def _rows(cells: Mapping[str, Any]) -> str:
    """Cells that are one flat row each, by the names of their fields, without lists and `measured`."""
    lines = []
    for key, cell in cells.items():
        shown = [
            f"{name} {_shown(value)}" for name, value in cell.items() if not isinstance(value, list | dict)
        ]
        lines.append(f"- {key}: {', '.join(shown)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
