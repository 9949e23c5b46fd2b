"""Speed-up against the share of FLOPs, with the limit that FLOPs set."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pitome.records.files import write_atomically
from scripts.bench.results import Result
from scripts.bench.targets import clock_of

# Okabe and Ito 2008, as in the plots of the runs.
_COLOURS = {"pitome": "#0072B2", "tome": "#D55E00", "tofu": "#009E73", "diffrate": "#CC79A7"}
_MARKERS = "os^Dv<>hp*PXd8H"
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
    # Figure itself, not pyplot: no display is looked for and no figure is kept in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    models = list(dict.fromkeys(_label(r) for r in shown))
    for one in shown:
        low, high = one.speedup.low, one.speedup.high
        middle = one.speedup.value
        place = list(_COLOURS).index(one.method) - 1.5 if one.method in _COLOURS else 0.0
        axes.errorbar(
            100 / one.promise + _APART * place,
            middle,
            yerr=None if low is None or high is None else [[middle - low], [high - middle]],
            color=_COLOURS.get(one.method, "0.4"),
            marker=_MARKERS[models.index(_label(one)) % len(_MARKERS)],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=2.5,
        )
    x = np.linspace(min(100 / r.promise for r in shown) - 3, 100, 100)
    axes.plot(x, 100 / x, color="0.25", linestyle="--", linewidth=1.2, zorder=1)
    for method in dict.fromkeys(r.method for r in shown):
        axes.plot([], [], color=_COLOURS.get(method, "0.4"), linewidth=3, label=method)
    for index, model in enumerate(models):
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot([], [], color="0.4", marker=marker, linestyle="none", label=model)
    axes.plot([], [], color="0.25", linestyle="--", label="limit set by FLOPs")
    axes.set_xlabel("FLOPs, % of the unmerged model")
    axes.set_ylabel(f"Times as fast as unmerged ({_TIMES[clock]})")
    measured = ", ".join(str(conditions[name]) for name in ("device", "dtype"))
    axes.set_title(f"{measured}, torch {conditions['torch']}, {revisions}", fontsize=9)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, content.getvalue())
    return True


def _label(one: Result) -> str:
    return (
        f"{one.group['model'].removesuffix('_patch16_224')}, {one.group['size']}, batch {one.group['batch']}"
    )
