"""The logger of a run: Weights & Biases (offline unless logged in), CSV or none."""

from __future__ import annotations

import hashlib
import io
import json
import netrc
import os
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from PIL import Image

from pitome.config import LoggerConfig


def open_logger(
    config: LoggerConfig, name: str, settings: dict[str, Any], folder: Path, key: str | None = None
) -> Logger | None:
    """A logger for one run that holds `settings` as its configuration; None for logger=none.

    key: names the run in W&B, so that one that is made again or goes on is no second one there; derived
    from the name and the settings if None.
    """
    if config.name == "none":
        return None
    if config.name == "csv":
        logger: Logger = CSVLogger(folder / "csv", name=name)
        logger.log_hyperparams(settings)
        return logger
    return WandbLogger(experiment=start(config, name, settings, folder, key or logger_key(name, settings)))


def close_logger(
    logger: Logger | None,
    metrics: dict[str, float | None],
    picture: bytes | None = None,
    *,
    failed: bool = False,
) -> None:
    """Log the run's final numbers and end it, so that the next run is one of its own. picture: a PNG of
    its tokens, which W&B alone keeps."""
    if logger is None:
        return
    logger.log_metrics({key: value for key, value in metrics.items() if value is not None})
    if picture is not None and isinstance(logger, WandbLogger):
        logger.log_image("tokens", [Image.open(io.BytesIO(picture))])
    logger.finalize("failed" if failed else "success")
    if isinstance(logger, WandbLogger):
        import wandb

        wandb.finish(exit_code=int(failed))


def start(
    config: LoggerConfig,
    name: str,
    settings: dict[str, Any],
    folder: Path,
    key: str,
    kind: str | None = None,
) -> Any:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=config.project,
        name=name,
        id=key,
        resume="allow",
        group=config.group,
        job_type=kind,
        config=settings,
        dir=folder,
        mode=_mode(),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True),
    )


def logger_key(name: str, settings: object) -> str:
    """16 hexadecimal digits, equal for equal runs whatever logs them."""
    if isinstance(settings, dict):
        settings = {key: value for key, value in settings.items() if key not in ("logger", "rerun", "device")}
    text = json.dumps([name, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
