"""docs/spectral.md: whether the spectral distance of a merge predicts its loss (`scripts/spectral.py`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from pitome.config import CONF
from pitome.records.markdown import markdown_table
from pitome.records.store import Store
from pitome.report import figures, style
from pitome.report.items import PUBLISHED

FOLDER = CONF.parent / "results" / "spectral"
RESAMPLES = 200
_LEAST = 1e-6  # smaller losses are rounding
Row = Mapping[str, Any]


def tables() -> dict[str, str]:
    """The correlations, and the means of every method."""
    return {"correlation": _correlations(), "methods": _methods()}


@functools.cache
def measured() -> dict[str, dict[str, Any]]:
    """Model -> what was measured on it."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    return {content["model"]: content for content in contents}


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of lists [n, ...] along the first axis, ties at their mean rank; NaN where one of them
    is constant."""
    ranks = [(values[:, None] > values).sum(1) + (values[:, None] >= values).sum(1) for values in (a, b)]
    x, y = (rank - rank.mean(axis=0) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0)))


def within(rows: Sequence[Row], keys: Sequence[str]) -> list[list[int]]:
    """Places of the rows that are alike in `keys`, of groups with more than two rows."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(tuple(row[key] for key in keys), []).append(place)
    return [places for places in groups.values() if len(places) > 2]


def interval(
    distance: np.ndarray, loss: np.ndarray, groups: Sequence[Sequence[int]]
) -> tuple[float, float, float]:
    """The mean rank correlation over groups of settings, and its 95 % bootstrap interval over the images:
    distance, loss [settings, images]."""

    images = distance.shape[1]
    drawn = np.random.default_rng(0).integers(0, images, (RESAMPLES, images))
    a, b = (np.c_[values[:, drawn].mean(axis=2), values.mean(axis=1)] for values in (distance, loss))
    means = np.nanmean([spearman(a[places], b[places]) for places in groups], axis=0)
    low, high = np.quantile(means[:-1], [0.025, 0.975])
    return float(means[-1]), float(low), float(high)


def _correlations() -> str:
    lines = []
    for name, content in measured().items():
        rows = content["rows"]
        distance, loss = (np.array([row[key] for row in rows]) for key in ("distance", "loss"))
        cells = [
            _shown(interval(distance, loss, within(rows, keys)))
            for keys in ((), ("layer", "ratio"), ("method", "ratio"))
        ]
        lines.append([f"`{name}`", str(len(rows)), *cells, _scores(name, rows)])
    header = ["model", "settings", "all settings", "methods, at equal layer and ratio"]
    header += ["layers, at equal method and ratio", "published score, all layers merge"]
    return markdown_table(header, lines, right=set())


def _shown(value: tuple[float, float, float]) -> str:
    mean, low, high = value
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _scores(name: str, rows: Sequence[Row]) -> str:
    """Rank correlation of the loss of the published score, with the mean distance over single layers."""
    records = [record for record in Store(PUBLISHED).all() if record.done and record.model.name == name]
    pairs = []
    for (method, ratio), mean in _means(rows, "distance").items():
        scores = [
            record.score
            for record in records
            if record.method.name == method and record.method.asked == {"ratio": ratio} and record.score
        ]
        if scores and method != "random":  # of which there are several draws
            pairs.append((mean, -scores[-1]))
    if len(pairs) < 4:
        return "-"
    a, b = np.array(pairs).T
    return f"{spearman(a, b):.2f} (n = {len(pairs)})"


def _means(rows: Iterable[Row], key: str) -> dict[tuple[str, float], float]:
    """(method, ratio) -> mean over layers and images."""
    grouped: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        grouped.setdefault((row["method"], row["ratio"]), []).append(float(np.mean(row[key])))
    return {at: float(np.mean(values)) for at, values in grouped.items()}


def _methods() -> str:
    """Distance and loss of every method at the smallest and the largest cut."""
    lines, header = [], ["method"]
    contents = measured()
    ratios = sorted({row["ratio"] for content in contents.values() for row in content["rows"]}, reverse=True)
    columns: list[Callable[[str], str]] = []
    for name, content in contents.items():
        for ratio in (ratios[1], ratios[-1]):
            distance, loss = (_means(content["rows"], key) for key in ("distance", "loss"))
            header.append(f"`{name}`, {ratio:g}")
            columns.append(lambda m, r=ratio, d=distance, c=loss: f"{d[m, r]:.4f} / {c[m, r]:.4f}")  # type: ignore[misc]
    for method in dict.fromkeys(row["method"] for content in contents.values() for row in content["rows"]):
        lines.append([f"`{method}`", *(column(method) for column in columns)])
    return markdown_table(header, lines, right=set())


def draw() -> Figure:
    """A panel per model: loss against distance, a point per layer, ratio and method where there is a loss."""
    contents = measured()
    methods = list(dict.fromkeys(row["method"] for content in contents.values() for row in content["rows"]))
    looks = style.looks(methods)
    figure = figures.new_figure(11.5, 5.4)
    panels = figure.subplots(1, len(contents), squeeze=False)[0]
    for axes, (name, content) in zip(panels, contents.items(), strict=True):
        for method in methods:
            rows = [row for row in content["rows"] if row["method"] == method]
            points = np.array([(np.mean(row["distance"]), np.mean(row["loss"])) for row in rows])
            points, look = points[points[:, 1] > _LEAST], looks[method]
            axes.scatter(*points.T, s=16, color=look.colour, marker=look.marker, alpha=0.6)
        axes.set(xscale="log", yscale="log", xlabel="spectral distance")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(name, fontsize=12)
        figures.dress(axes)
    panels[0].set_ylabel("loss: 1 - cosine to the unmerged output")
    handles = [
        Line2D([], [], linestyle="", marker=looks[m].marker, color=looks[m].colour, label=m) for m in methods
    ]
    figures.legend_beside(figure, handles, fontsize=9)
    return figure


def write(path: Path) -> Path:
    """Draw the figure into `path`, which is returned."""
    return figures.save(draw(), path)
