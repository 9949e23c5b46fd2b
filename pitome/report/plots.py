"""Accuracy against computation, one figure for each group of comparable runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pitome.paper.metrics import metric_label
from pitome.records.groups import baseline, digest, group
from pitome.records.identity import CONTROLS, UNMERGED
from pitome.records.rows import rows
from pitome.records.schema import Record
from pitome.records.settings import family
from pitome.records.statistics import proportion
from pitome.report import figures, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 2  # lines; with more, the bars hide one another
_LONG = 60  # letters of a label for which there is no room beside the axes
_CONTROL_ROOM = 0.4  # of the picture's height below the methods, as a share of their range
RunPoint = tuple[float, float, int | None]
"""Share of FLOPs, score, samples."""
SettingLines = dict[str, list[RunPoint]]
"""Of one label: family of settings -> its points, which a line joins."""
_BAR_GAP = 4 / 72  # inches between the bars of two methods at equal cost


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one PNG per group of comparable runs that has points; returns what was written.

    Raises RecordError if the folder cannot be written.
    """
    written = []
    for members in group(records):
        figure = draw(members)
        if figure is None:
            continue
        written.append(figures.save(figure, folder / f"{_file_name(members[0])}.png"))
    return written


def draw(members: Sequence[Record]) -> Figure | None:
    """The figure of one group of runs; None if no merged run has both a score and a cost.

    x: FLOPs as a share of the unmerged model's, y: the headline metric, both in percent. A line per
    method (`style.looks`). Controls may leave the picture: its height is that of the methods. Bars and
    band are Wilson's 95 % intervals of each point alone (differences between methods have narrower ones:
    the samples are the same).
    """
    lines = _lines(members)
    if not lines:
        return None
    from matplotlib.transforms import ScaledTranslation

    figure = figures.new_figure(8.4, 5.0)
    axes = figure.add_subplot()
    looks = style.looks(lines)
    methods = [label for label in lines if label not in CONTROLS]
    shown = _shown(members, lines)
    for i, (label, line) in enumerate(lines.items()):
        runs = sorted(point for points in line.values() for point in points)
        look = looks[label]
        x = [100 * share for share, _, _ in runs]
        y = [100 * score for _, score, _ in runs]
        for number, points in enumerate(line.values()):
            axes.plot(
                [100 * share for share, _, _ in points],
                [100 * score for _, score, _ in points],
                label="" if number else _legend(label, y, shown),
                color=look.colour,
                marker=look.marker,
                markersize=5 if look.control else 6,
                markeredgecolor="white",
                markeredgewidth=0.6,
                linestyle=look.line,
                linewidth=1.3 if look.control else 1.6,
                zorder=2.5 if look.control else 3,
            )
        if not look.control and len(methods) <= _MOST_BARS:
            bars = [_bar(score, n) for _, score, n in runs]
            # shifted bars do not count for the axis limits by themselves
            for sign, end in ((-1, 0), (1, 1)):
                ends = [(a, b + sign * bar[end]) for a, b, bar in zip(x, y, bars, strict=True)]
                axes.update_datalim(ends)
            axes.errorbar(
                x,
                y,
                yerr=list(zip(*bars, strict=True)),
                fmt="none",
                ecolor=look.colour,
                elinewidth=0.9,
                capsize=2.5,
                alpha=0.7,
                transform=axes.transData
                + ScaledTranslation((i - (len(methods) - 1) / 2) * _BAR_GAP, 0, figure.dpi_scale_trans),
            )
    first = next(m for m in members if m.done and m.score is not None)
    unmerged = baseline(first, members)
    if unmerged is not None and unmerged.score is not None:
        score = 100 * unmerged.score
        below, above = _bar(unmerged.score, unmerged.data.n_samples)
        axes.axhline(score, color="0.25", linestyle="--", linewidth=1.2, label="unmerged", zorder=2)
        if above > 0:
            axes.axhspan(
                score - below,
                score + above,
                color="0.5",
                alpha=0.12,
                linewidth=0,
                zorder=1,
                label="95 % interval",
            )
    if shown is not None:
        axes.set_ylim(*shown)
    axes.set_xlabel("FLOPs, % of the unmerged model")
    axes.set_ylabel(f"{metric_label(first.headline.name)}, %")
    n = f", n = {first.data.n_samples:,}" if first.data.n_samples is not None else ""
    split = f" {first.data.split}" if first.data.split else ""
    axes.set_title(f"{first.model.name} on {first.data.name}{split}{n}", fontsize=12)
    figures.dress(axes)
    if max(map(len, lines)) > _LONG:
        figures.legend_beside(figure, loc="outside lower center", fontsize=6)
    else:
        figures.legend_beside(figure)
    return figure


def _lines(members: Sequence[Record]) -> dict[str, SettingLines]:
    """Label -> its runs, from cheap to expensive; controls last."""
    lines: dict[str, dict[str, set[RunPoint]]] = defaultdict(lambda: defaultdict(set))
    for row in rows(members):
        share, score = row.share, row.score
        if row.first.done and score is not None and share is not None and row.merges:
            lines[row.series][family(row.first)].add((share, score, row.first.data.n_samples))
    order = sorted(lines, key=lambda label: (label in CONTROLS, label))
    return {
        label: {kind: sorted(points, key=lambda point: point[:2]) for kind, points in lines[label].items()}
        for label in order
    }


def _shown(members: Sequence[Record], lines: dict[str, SettingLines]) -> tuple[float, float] | None:
    """Lowest and highest score of the picture, in percent, where a control would squeeze the methods
    into a corner of it; None where everything fits."""
    scores = {
        label: [100 * score for points in line.values() for _, score, _ in points]
        for label, line in lines.items()
    }
    kept = [score for label, line in scores.items() if label not in CONTROLS for score in line]
    if not kept:  # nothing but controls
        return None
    for member in members:  # the whole band: differences look as large as they are
        if member.done and member.score is not None and member.method.name == UNMERGED:
            below, above = _bar(member.score, member.data.n_samples)
            kept += [100 * member.score - below, 100 * member.score, 100 * member.score + above]
    every = [score for line in scores.values() for score in line]
    if not kept or max(kept) == min(kept):
        return None
    low, high = min(kept), max(kept + every)
    room = _CONTROL_ROOM * (max(kept) - low)
    if min(every) >= low - room:
        return None
    return low - room, high + 0.12 * (high - low)


def _legend(label: str, y: Sequence[float], shown: tuple[float, float] | None) -> str:
    """Its name, and how far down a line goes that leaves the picture."""
    return f"{label} (down to {min(y):.1f})" if shown is not None and min(y) < shown[0] else label


def _bar(score: float, n: int | None) -> tuple[float, float]:
    """Length of Wilson's interval below and above, in percentage points; 0 where unknown."""
    if not n or not 0 <= score <= 1:
        return 0.0, 0.0
    interval = proportion(score, n)
    return 100 * (score - interval.low), 100 * (interval.high - score)


def _file_name(record: Record) -> str:
    """One per group of runs: the digest stands for weights, revision, precision and version."""
    limit = "" if record.data.limit is None else str(record.data.limit)
    parts = [record.task, record.model.name[:80], record.data.name, limit, digest(record)]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(part for part in parts if part))
