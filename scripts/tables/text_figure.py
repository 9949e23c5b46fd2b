"""The figure of docs/text_flops.md: share of the unmerged cost against sentence length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from pitome.report import figures, style
from scripts.tables.text_flops import authors, lengths, ours, printed, speedups

_LINES = {"SST-2": (0, (1, 1.5)), "IMDb": (0, (6, 1.5, 1, 1.5))}
_MODELS = {"bert_base": "BERT-base", "distilbert": "DistilBERT"}
_LENGTHS = range(8, 513)
_GAP = 1.9  # percentage points between two labels


def write(path: Path) -> Path:
    """Draw the figure into `path`, which is returned."""
    return figures.save(draw(), path)


def draw() -> Figure:
    """A panel per model: PiToMe's curves in both counts, the printed values as horizontal lines, and the
    middle nine tenths of the sentences of Rotten Tomatoes as a band."""
    figure = figures.new_figure(11.5, 6.2)
    panels = figure.subplots(1, len(_MODELS), sharey=True)
    colours = {ratio: style.PALETTE[i][0] for i, ratio in enumerate(printed()["ratios"])}
    for axes, (model, title) in zip(panels, _MODELS.items(), strict=True):
        axes.axvspan(*_middle(lengths(), 0.9), color="0.5", alpha=0.13, linewidth=0)
        for ratio, colour in colours.items():
            for count, alpha in ((authors, 1.0), (ours, 0.4)):
                curve = speedups(count(model, "PiToMe", ratio), _LENGTHS)
                axes.plot(
                    _LENGTHS, [100 / x for x in curve.values()], color=colour, linewidth=1.3, alpha=alpha
                )
        _printed_lines(axes, model, list(colours.values()))
        axes.set_xscale("log", base=2)
        axes.set_xlim(_LENGTHS[0], _LENGTHS[-1])
        axes.xaxis.set_major_locator(FixedLocator([8, 16, 32, 64, 128, 256, 512]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("sentence length, tokens")
        axes.set_title(title, fontsize=12)
        figures.dress(axes, grid="x")
    panels[0].set_ylabel("FLOPs, % of the unmerged model")
    handles = [Line2D([], [], color=colour, linewidth=4, label=f"ratio {q}") for q, colour in colours.items()]
    handles += [
        Line2D([], [], color="0.88", linewidth=8, label="Rotten Tomatoes, middle 90 %"),
        Line2D([], [], color="0.1", linewidth=1.4, label="PiToMe, authors' count"),
        Line2D([], [], color="0.65", linewidth=1.4, label="PiToMe, our count"),
    ]
    handles += [
        Line2D([], [], color="0.2", linestyle=line, linewidth=1.4, label=f"printed, {data}")
        for data, line in _LINES.items()
    ]
    figures.legend_beside(figure, handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _printed_lines(axes: Axes, model: str, colours: list[str]) -> None:
    """PiToMe's printed values as horizontal lines, labelled to the right."""
    labels = []
    for block in printed()["table_10"]:
        if block["model"] == model:
            for value, colour in zip(block["rows"]["PiToMe"], colours, strict=True):
                share = 100 / float(value)
                axes.axhline(share, color=colour, linestyle=_LINES[block["data"]], linewidth=1.2)
                labels.append((share, f"{block['data']} x{value}", colour))
    heights = _apart([share for share, _, _ in sorted(labels)])
    for height, (_, text, colour) in zip(heights, sorted(labels), strict=True):
        axes.annotate(
            text,
            (1.01, height),
            xycoords=("axes fraction", "data"),
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _middle(counts: Mapping[int, int], share: float) -> tuple[float, float]:
    """The lengths between which the middle `share` of the sentences lies. counts: tokens -> sentences."""
    every = np.repeat(list(counts), list(counts.values()))
    low, high = np.quantile(every, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _apart(heights: list[float]) -> list[float]:
    """Ascending heights, moved so that labels do not overlap."""
    moved = list(heights)
    for _ in range(100):
        for i in range(1, len(moved)):
            if (lack := _GAP - (moved[i] - moved[i - 1])) > 0:
                moved[i - 1] -= lack / 2
                moved[i] += lack / 2
    return moved
