"""The logger of a run: Weights & Biases (offline unless logged in), CSV or none."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from pitome.config import LoggerConfig


def open_logger(config: LoggerConfig, name: str, settings: dict[str, Any], folder: Path) -> Logger | None:
    """A logger for one run that holds `settings` as its configuration; None for logger=none."""
    if config.name == "none":
        return None
    if config.name == "csv":
        logger: Logger = CSVLogger(folder / "csv", name=name)
        logger.log_hyperparams(settings)
        return logger
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=config.project,
        name=name,
        config=settings,
        dir=folder,
        mode=_mode(),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True),
    )
    return WandbLogger(experiment=run)


def close_logger(logger: Logger | None, metrics: dict[str, float | None]) -> None:
    """Log the run's final numbers and end it, so that the next run is one of its own."""
    if logger is None:
        return
    logger.log_metrics({key: value for key, value in metrics.items() if value is not None})
    logger.finalize("success")
    if isinstance(logger, WandbLogger):
        import wandb

        wandb.finish()


def log_picture(config: LoggerConfig, picture: Path, settings: dict[str, Any], folder: Path) -> None:
    """A PNG of a whole sweep as a W&B run of its own; other loggers keep no pictures."""
    if config.name != "wandb":
        return
    logger = open_logger(config, picture.stem, settings, folder)
    assert isinstance(logger, WandbLogger)
    logger.log_image(picture.stem, [str(picture)])
    close_logger(logger, {})


def _mode() -> Literal["online", "offline", "disabled", "shared"] | None:
    """What WANDB_MODE says, else offline unless the user is logged in. Said at every start: wandb
    reads its environment only once per process."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode  # type: ignore[return-value]
    if os.environ.get("WANDB_API_KEY"):
        return None
    try:
        return None if netrc.netrc().authenticators("api.wandb.ai") else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"
