"""control=resize: the unmerged model on a smaller image, at no more cost than a merged run.

Whoever wants a cheaper model can also give it fewer pixels; a merge method is worth its code where
it loses less than that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from pitome.config import Config, MergeConfig
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.copies import meta_copy
from pitome.merge.costs import closed_form
from pitome.records.identity import RESIZE, UNMERGED
from pitome.records.schema import MethodInfo, Record
from pitome.tasks.base import Task
from pitome.tasks.measuring import architecture_of


@dataclass(frozen=True)
class Fit:
    """An image within a budget of cost, the largest that fits."""

    height: int  # pixels
    width: int  # pixels
    share: float  # its cost, of the cost at the model's own size
    larger: float  # that of the next larger image, which is above the budget


def budget(config: Config, record: Record) -> float | None:
    """What the control of a merged run may cost, as a share of the unmerged model: the share that was
    asked, or else the share that the run costs. None where there is nothing to control."""
    if config.control is None or not record.done or record.method.name == UNMERGED:
        return None
    share = record.method.asked.get("flops", record.cost.share if record.cost else None)
    return share if share is not None and share < 1 else None


def configuration(config: Config) -> Config:
    """Of the control of a merged run: nothing merges."""
    return dataclasses.replace(
        config, merge=MergeConfig(name=RESIZE), control=None,
        ratio=None, r=None, inflection=None, flops=None, layers=None,
    )  # fmt: skip


def check_resizable(model: nn.Module) -> None:
    """Raise UnsupportedModelError for a model that cannot take images of another size."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or not callable(getattr(model, "set_input_size", None)):
        raise UnsupportedModelError(
            f"control=resize: {type(model).__name__} cannot take images of another size (looked for timm's "
            "set_input_size and patch_embed.grid_size); leave control out"
        )


def shrink(task: Task, share: float) -> MethodInfo:
    """Give the task's model the largest image that costs at most `share` of its own, and say which.

    The identity of such a run depends on the size alone, so that runs of equal cost share it.
    Raises UnsupportedModelError, UsageError.
    """
    fitting = fit(task.model, share)
    task.resize(fitting.height, fitting.width)
    return MethodInfo(
        name=RESIZE,
        options={"size": [fitting.height, fitting.width]},
        asked={"shares": [fitting.share, fitting.larger]},
    )


def fit(model: nn.Module, share: float) -> Fit:
    """The largest near-square grid of patches whose closed-form cost is at most `share` of the cost at
    the model's own size. `model` is not patched, and is left as it is.

    Raises UnsupportedModelError for a model of one size, UsageError if a single patch is too expensive.
    """
    check_resizable(model)
    twin: Any = meta_copy(model)  # shapes are enough
    rows, columns = twin.patch_embed.grid_size
    patch_height, patch_width = twin.patch_embed.patch_size
    whole = closed_form(architecture_of(twin)).macs
    larger = 1.0
    for rows, columns in grids(rows, columns):  # noqa: B020 - from the model's own grid downwards
        twin.set_input_size(img_size=(rows * patch_height, columns * patch_width))
        cost = closed_form(architecture_of(twin)).macs / whole
        if cost <= share:
            return Fit(rows * patch_height, columns * patch_width, cost, larger)
        larger = cost
    raise UsageError(f"control=resize: an image of one patch costs more than {share:.4f} of the model's own")


def grids(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Ever smaller grids, one row or column less at a time, as near to the shape of the first as can
    be: of 14 x 14 come 14 x 13, 13 x 13, 13 x 12, ..."""
    shape = math.log(rows / columns)
    while (rows, columns) != (1, 1):
        fewer = [(r, c) for r, c in ((rows, columns - 1), (rows - 1, columns)) if r and c]
        rows, columns = min(fewer, key=lambda grid: round(abs(math.log(grid[0] / grid[1]) - shape), 9))
        yield rows, columns
