"""What all figures of matplotlib share: how they are made, dressed and written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pitome.records.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for one another."""
    # Figure itself, not pyplot: no display is looked for and no figure is kept in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A faint grid below the data and no frame above and to the right."""
    axes.grid(True, axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_beside(figure: Figure, handles: Sequence[Any] | None = None, **options: Any) -> None:
    """A legend to the right of the axes, of `handles` or of all that has a label."""
    chosen = options if handles is None else options | {"handles": handles}
    figure.legend(**{"loc": "outside right center", "frameon": False} | chosen)


def png(figure: Figure) -> bytes:
    """The bytes of a PNG; equal for equal figures. Names are shown as they are: a $ begins no formula."""
    import matplotlib
    from matplotlib.text import Text

    content = io.BytesIO()
    for words in figure.findobj(lambda artist: isinstance(artist, Text)):
        words.set_parse_math(False)  # type: ignore[attr-defined]
    with matplotlib.rc_context({"text.parse_math": False}):  # for those that drawing makes
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG, as a whole or not at all; returns `path`. Raises RecordError."""
    write_atomically(path, png(figure))
    return path
