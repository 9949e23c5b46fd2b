"""Speed-up against the share of FLOPs, with the limit that FLOPs set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pitome.report import figures, style
from scripts.bench.results import Result
from scripts.bench.targets import clock_of

_APART = 0.35
"""Per cent of FLOPs between methods on the picture, which would else hide one another."""


_TIMES = {"cpu": "CPU time, one thread", "wall": "wall time"}


def plot(timed: Sequence[Result], path: Path, conditions: Mapping[str, Any], revisions: str) -> bool:
    """Write the picture of the eager results by the clock of the device; False where there is none.

    x: FLOPs in percent of the unmerged model's, methods drawn side by side; y: speed-up with its 95 %
    interval; colour by method, marker by model.
    """
    clock = clock_of(conditions)
    shown = [r for r in timed if r.group["clock"] == clock and r.group["mode"] == "eager"]
    if not shown:
        return False
    figure = figures.new_figure(8.4, 5.0)
    axes = figure.add_subplot()
    looks = style.looks(result.method for result in shown)
    models = list(dict.fromkeys(_label(result) for result in shown))
    markers = {model: list(style.MARKERS)[i % len(style.MARKERS)] for i, model in enumerate(models)}
    for result in shown:
        value, low, high = result.speedup.value, result.speedup.low, result.speedup.high
        apart = list(looks).index(result.method) - (len(looks) - 1) / 2
        axes.errorbar(
            100 / result.predicted + _APART * apart,
            value,
            yerr=None if low is None or high is None else [[value - low], [high - value]],
            color=looks[result.method].colour,
            marker=markers[_label(result)],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=2.5,
        )
    x = np.linspace(min(100 / r.predicted for r in shown) - 3, 100, 100)
    axes.plot(x, 100 / x, color="0.25", linestyle="--", linewidth=1.2, zorder=1)
    for method, look in looks.items():
        axes.plot([], [], color=look.colour, linewidth=3, label=method)
    for model, marker in markers.items():
        axes.plot([], [], color="0.4", marker=marker, linestyle="none", label=model)
    axes.plot([], [], color="0.25", linestyle="--", label="limit set by FLOPs")
    axes.set_xlabel("FLOPs, % of the unmerged model")
    axes.set_ylabel(f"Times as fast as unmerged ({_TIMES[clock]})")
    measured = ", ".join(str(conditions[name]) for name in ("device", "dtype"))
    axes.set_title(f"{measured}, torch {conditions['torch']}, {revisions}", fontsize=9)
    figures.dress(axes)
    figures.legend_beside(figure)
    figures.save(figure, path)
    return True


def _label(result: Result) -> str:
    group = result.group
    return f"{group['model'].removesuffix('_patch16_224')}, {group['size']}, batch {group['batch']}"
