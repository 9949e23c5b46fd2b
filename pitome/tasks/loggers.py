"""The logger of a run: Weights & Biases (offline unless logged in), CSV or none."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import netrc
import os
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from PIL import Image

from pitome.config import Config, LoggerConfig, portable
from pitome.errors import as_typed, nearest, one_line
from pitome.sources.hub import say

OpenLogger = Callable[[], Logger | None]
Mode = Literal["online", "offline", "disabled", "shared"]
_MOST_SAMPLES = 10_000  # of a run that W&B gets
_SECONDS = 20.0  # that W&B may take to answer


def open_logger(
    config: LoggerConfig, name: str, settings: dict[str, Any], folder: Path, key: str | None = None
) -> Logger | None:
    """A logger for one run that holds `settings` as its configuration; None for logger=none, and for one
    that cannot be opened, which is one line: a result does not depend on who logs it.

    key: names the run in W&B, so that one that is made again or goes on is no second one there; derived
    from the name and the settings if None.
    """
    if config.name == "none":
        return None
    with tolerated(config.name):
        if config.name == "csv":
            logger: Logger = CSVLogger(folder / "csv", name=name)
            logger.log_hyperparams(settings)
            return logger
        key = key or logger_key(name, settings)
        return WandbLogger(experiment=start(config, name, settings, folder, key))
    return None


def open_training(config: Config) -> Logger | None:
    """The logger of a training and of the test of its weights: one run for both."""
    name = f"train {config.model.name} {config.data.name} {config.trained_with or config.merge.name}"
    return open_logger(
        config.logger, name, portable(config), Path(config.results).parent, training_key(config)
    )


def training_key(config: Config) -> str:
    """Names that run in W&B."""
    return logger_key("train", portable(config))


def close_logger(
    logger: Logger | None,
    metrics: dict[str, float | None],
    picture: bytes | None = None,
    *,
    outcomes: Mapping[str, Any] | None = None,
    lower: Container[str] = (),
    failed: bool = False,
) -> None:
    """Log the run's final numbers and end it, so that the next run is one of its own.

    picture: a PNG of its tokens. outcomes: columns of equal length, one entry per sample. lower: metrics that
    are better the lower they are. All three are for W&B alone.
    """
    if logger is None:
        return
    with tolerated(type(logger).__name__):
        if isinstance(logger, WandbLogger):
            for key in metrics:  # in tables of runs the best value stands
                logger.experiment.define_metric(key, summary="min" if key in lower else "max")
        logger.log_metrics({key: value for key, value in metrics.items() if value is not None})
        if picture is not None and isinstance(logger, WandbLogger):
            logger.log_image("tokens", [Image.open(io.BytesIO(picture))])
        if outcomes is not None and isinstance(logger, WandbLogger):
            _log_samples(logger.experiment, outcomes)
        logger.finalize("failed" if failed else "success")
    if isinstance(logger, WandbLogger):
        with tolerated("wandb"):
            import wandb

            wandb.finish(exit_code=int(failed))


def _log_samples(run: Any, outcomes: Mapping[str, Any]) -> None:
    """The outcomes of single samples as a table that W&B shows, in an artifact of the run."""
    import wandb

    columns = [np.asarray(values[:_MOST_SAMPLES]).tolist() for values in outcomes.values()]
    table = wandb.Table(columns=list(outcomes), data=[list(row) for row in zip(*columns, strict=True)])
    artifact = wandb.Artifact(f"samples-{run.id}", type="samples")
    artifact.add(table, "samples")
    run.log_artifact(artifact)


@contextlib.contextmanager
def tolerated(name: str) -> Iterator[None]:
    """Within it, whatever goes wrong in a logger is one line and no more."""
    try:
        yield
    except Exception as problem:  # of W&B's service, of the disk
        say(f"logger={name} failed ({one_line(problem)[:200]}); results are recorded all the same")


def start(
    config: LoggerConfig,
    name: str,
    settings: dict[str, Any],
    folder: Path,
    key: str,
    kind: str | None = None,
) -> Any:
    """A run of W&B; offline where its service cannot be reached, which is one line."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    mode = wandb_mode()
    if "WANDB_SWEEP_ID" in os.environ:  # an agent of a sweep of W&B has named the run
        key = os.environ.get("WANDB_RUN_ID", key)

    def init(mode: Mode) -> Any:
        return wandb.init(
            project=config.project,
            entity=config.entity,
            tags=config.tags or None,
            name=name,
            id=key,
            resume="allow",
            group=config.group,
            job_type=kind,
            config=settings,
            dir=folder,
            mode=mode,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, init_timeout=_SECONDS),
        )

    if mode == "offline":
        return init(mode)
    try:
        return init(mode)
    except Exception as problem:  # no network, a wrong key, a service that is down
        say(f"W&B cannot be used ({one_line(problem)[:200]}); logging offline, `wandb sync` sends it later")
        wandb.teardown()  # or it holds the id of the run that did not begin
        os.environ["WANDB_MODE"] = "offline"  # the other runs of a sweep do not wait for it again
        return init("offline")


def offline_hint() -> str | None:
    """How what W&B logged offline is sent, where it is offline."""
    if wandb_mode() != "offline":
        return None
    return as_typed("W&B logged offline; after `wandb login`, python scripts/report.py --push sends all runs")


def logger_key(name: str, settings: object) -> str:
    """16 hexadecimal digits, equal for equal runs whatever logs them."""
    if isinstance(settings, dict):
        settings = {
            key: value
            for key, value in settings.items()
            if key not in ("logger", "overwrite", "device", "devices")
        }
    text = json.dumps([name, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def wandb_mode() -> Mode:
    """What WANDB_MODE says, else offline unless the user is logged in. Said at every start: wandb
    reads its environment only once per process."""
    if (mode := os.environ.get("WANDB_MODE")) in get_args(Mode):
        return mode  # type: ignore[return-value]
    if mode:
        os.environ["WANDB_MODE"] = "offline"  # wandb itself would stop at it
        say(f"WANDB_MODE={mode} is not known, logging offline; {nearest(mode, get_args(Mode))}")
        return "offline"
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        return "online" if netrc.netrc().authenticators("api.wandb.ai") else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"
