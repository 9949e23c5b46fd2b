"""The views of speed records: the tables that benchmarks leave beside their times (docs/speed.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from pitome.report.page.figures import Trace, figure, hover
from pitome.report.page.view import Column, Plot, TableCell, TableLine, View

_NUMBER = re.compile(r"-?[\d.]+")
_INTERVAL = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")
_WORDS = ("Model", "Mode", "Clock", "Method")


def views(folder: Path) -> list[View]:
    """One view for each set of conditions."""
    return [view for path in sorted(folder.glob("*.md")) if (view := _view(path)) is not None]


def _view(path: Path) -> View | None:
    text = path.read_text(encoding="utf-8")
    table = re.search(r"^## Speed\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    if table is None:
        return None
    header, _, *rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[1].splitlines()
    ]
    found = [dict(zip(header, row, strict=True)) for row in rows]
    conditions = re.search(r"^Conditions: (.+)$", text, re.MULTILINE)
    facts = {"Conditions": conditions[1]} if conditions else {}
    return View(
        key=f"speed-{path.stem}",
        kind="speed",
        item="Speed",
        title=f"Measured speed: {path.stem.replace('-', ', ')}",
        facts=facts | {"Command": "make bench"},
        columns=[Column(name, name not in _WORDS) for name in header],
        lines=[_line(row, header) for row in found],
        plots=_plots(found),
        findings=_findings(found),
        notes=[
            "Merged and unmerged model run in turn in one process; medians with 95 % intervals. Predicted: "
            "by FLOPs. Saved: the share of the predicted time saving that is reached."
        ],
    )


def _line(row: dict[str, str], header: list[str]) -> TableLine:
    method = row["Method"]
    return TableLine(
        cells=[_cell(row.get(name, ""), name) for name in header],
        model=row["Model"],
        method=method.removesuffix("_repo"),
        variant=f"{row.get('Mode', '')}, {row.get('Clock', '')}",
        verdict="",
        command="",
        setting=row.get("Ratio", ""),
    )


def _cell(text: str, name: str) -> TableCell:
    value = _NUMBER.match(text)
    if name in _WORDS or value is None:
        return TableCell(text, text or None, strong=name == "Method")
    return TableCell(text, float(value[0]))


def _plots(rows: list[dict[str, str]]) -> list[Plot]:
    """Measured speed-ups with their intervals, one panel for each mode and clock."""
    panels: dict[str, dict[str, list[tuple[str, float, float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        if (measured := _INTERVAL.match(row["Speed-up"])) is not None:
            value, low, high = map(float, measured.groups())
            place = f"{row['Model']} {row['Ratio']}"
            panels[f"{row['Mode']}, {row['Clock']} time"][row["Method"]].append((place, value, low, high))
    order = list(dict.fromkeys(row["Method"] for row in rows))
    drawn = {
        name: figure(
            [_trace(method, points) for method, points in here.items()], "Measured speed-up", "", order
        )
        for name, here in panels.items()
    }
    return (
        [Plot("Measured speed-up", drawn, "Over the unmerged model, with 95 % intervals.")] if drawn else []
    )


def _trace(method: str, points: list[tuple[str, float, float, float]]) -> Trace:
    return Trace(
        name=method,
        x=[value for _, value, _, _ in points],
        y=[place for place, *_ in points],
        text=[
            hover(method, {"model, ratio": place, "speed-up": f"{value:g}"}) for place, value, *_ in points
        ],
        series=method,
        low=[low for _, _, low, _ in points],
        high=[high for _, _, _, high in points],
        joined=False,
    )


def _findings(rows: list[dict[str, str]]) -> list[str]:
    """The range of measured speed-ups of each model at its most measured ratio."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["Ratio"] == "0.925" and (measured := _INTERVAL.match(row["Speed-up"])) is not None:
            found[row["Model"], f"{row['Mode']}, {row['Clock']} time"].append(float(measured[1]))
    modes = list(dict.fromkeys(mode for _, mode in found))
    out = []
    for mode in modes:
        parts = [
            f"{model} {min(values):.2f} to {max(values):.2f}"
            for (model, its_mode), values in found.items()
            if its_mode == mode and len(values) > 1
        ]
        if parts:
            out.append(
                f"With 92.5 % of the tokens kept per layer ({mode}), times as fast: {', '.join(parts)}."
            )
    return out
