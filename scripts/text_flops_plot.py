"""The figure of docs/text_flops.md: share of the unmerged cost against sentence length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

if TYPE_CHECKING:
    from scripts.text_flops import Costs

_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito 2008
_STYLES = {"SST-2": (0, (1, 1.5)), "IMDb": (0, (6, 1.5, 1, 1.5))}
_MODELS = {"bert_base": "BERT-base", "distilbert": "DistilBERT"}
_LENGTHS = range(8, 513)
_GAP = 1.9  # percentage points between two labels


def draw(table: dict[str, Any], costs: Costs, lengths: Mapping[int, int]) -> Figure:
    """A panel per model: PiToMe's curves in both counts, the printed values as horizontal lines,
    and the middle nine tenths of `lengths` (tokens -> sentences) as a band."""
    figure = Figure(figsize=(11.5, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_MODELS), sharey=True)
    for axes, (model, title) in zip(panels, _MODELS.items(), strict=True):
        axes.axvspan(*_middle(lengths, 0.9), color="0.5", alpha=0.13, linewidth=0)
        labels = []
        for i, ratio in enumerate(table["ratios"]):
            for pair, alpha in (
                (costs.authors(model, "PiToMe", ratio), 1.0),
                (costs.ours(model, "PiToMe", ratio), 0.4),
            ):
                merged, unmerged = pair
                share = [100 * merged(n) / unmerged(n) for n in _LENGTHS]
                axes.plot(_LENGTHS, share, color=_COLOURS[i], linewidth=1.3, alpha=alpha)
            for block in table["table_10"]:
                if block["model"] == model:
                    printed = block["rows"]["PiToMe"][i]
                    share = 100 / float(printed)
                    axes.axhline(share, color=_COLOURS[i], linestyle=_STYLES[block["data"]], linewidth=1.2)
                    labels.append((share, f"{block['data']} x{printed}", _COLOURS[i]))
        for height, (_, text, colour) in zip(
            _apart([x for x, _, _ in sorted(labels)]), sorted(labels), strict=True
        ):
            axes.annotate(
                text,
                (1.01, height),
                xycoords=("axes fraction", "data"),
                color=colour,
                fontsize=9,
                va="center",
                annotation_clip=False,
            )
        axes.set_xscale("log", base=2)
        axes.set_xlim(_LENGTHS[0], _LENGTHS[-1])
        axes.xaxis.set_major_locator(FixedLocator([8, 16, 32, 64, 128, 256, 512]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("sentence length, tokens")
        axes.set_title(title, fontsize=12)
        axes.grid(True, axis="x", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("FLOPs, % of the unmerged model")
    figure.legend(
        handles=_legend(table["ratios"]), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return figure


def _middle(lengths: Mapping[int, int], share: float) -> tuple[int, int]:
    """The lengths between which the middle `share` of the sentences lies."""
    total, seen, inside = sum(lengths.values()), 0, []
    for tokens in sorted(lengths):
        seen += lengths[tokens]
        if (1 - share) / 2 <= seen / total <= (1 + share) / 2:
            inside.append(tokens)
    return inside[0], inside[-1]


def _apart(heights: list[float]) -> list[float]:
    """Ascending heights, moved so that labels do not overlap."""
    moved = list(heights)
    for _ in range(100):
        for i in range(1, len(moved)):
            if (lack := _GAP - (moved[i] - moved[i - 1])) > 0:
                moved[i - 1] -= lack / 2
                moved[i] += lack / 2
    return moved


def _legend(ratios: list[float]) -> list[Line2D]:
    def line(label: str, colour: str, style: Any, width: float = 1.4) -> Line2D:
        return Line2D([], [], color=colour, linestyle=style, linewidth=width, label=label)

    return [
        *(line(f"ratio {q}", colour, "-", 4) for q, colour in zip(ratios, _COLOURS, strict=True)),
        line("Rotten Tomatoes, middle 90 %", "0.88", "-", 8),
        line("PiToMe, authors' count", "0.1", "-"),
        line("PiToMe, our count", "0.65", "-"),
        line("printed, SST-2", "0.2", _STYLES["SST-2"]),
        line("printed, IMDb", "0.2", _STYLES["IMDb"]),
    ]
