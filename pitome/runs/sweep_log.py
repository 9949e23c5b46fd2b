"""The tables of a sweep in W&B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pitome.config import LoggerConfig
from pitome.report.cells import NOTHING
from pitome.report.rendering import Table
from pitome.tasks.loggers import logger_key, start, tolerated


def log_sweep(config: LoggerConfig, tables: Sequence[Table], picture: Path | None, folder: Path) -> None:
    """The tables of a sweep and the PNG of its methods side by side, as one W&B run in the sweep's group.
    Other loggers keep none."""
    if config.name != "wandb" or config.group is None:
        return
    with tolerated(config.name):
        _log(config, config.group, tables, picture, folder)


def _log(
    config: LoggerConfig, group: str, tables: Sequence[Table], picture: Path | None, folder: Path
) -> None:
    import wandb

    run = start(config, group, {}, folder, logger_key("comparison", group), kind="comparison")
    logged: dict[str, Any] = {
        table.title: wandb.Table(columns=list(table.header), data=_values(table.rows), allow_mixed_types=True)
        for table in tables
    }
    if picture is not None:
        logged["tokens"] = wandb.Image(str(picture))
    run.log(logged)
    wandb.finish()


def _values(rows: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Columns of numbers as numbers, so that W&B can sort and plot them."""
    columns = []
    for column in zip(*rows, strict=True):
        try:
            columns.append([None if cell == NOTHING else float(cell) for cell in column])
        except ValueError:
            columns.append(list(column))
    return [list(row) for row in zip(*columns, strict=True)]
