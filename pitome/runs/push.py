"""Records that were logged offline, or not at all, as runs of W&B: nothing is run again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pitome.config import LoggerConfig
from pitome.errors import UsageError
from pitome.fields import decode
from pitome.records.store import Store
from pitome.runs.job import lower_is_better, numbers, run_name
from pitome.sources.hub import say
from pitome.tasks.loggers import close_logger, logger_key, open_logger, start, tolerated, wandb_mode


def push(store: Store, page: Path) -> int:
    """Send the finished runs of `store` and the page of results. Returns how many runs; one that is there
    already is no second one. Raises UsageError where W&B is offline."""
    if wandb_mode() == "offline":
        raise UsageError("W&B is offline; run `wandb login` (or unset WANDB_MODE), then the same command")
    sent, config = 0, LoggerConfig(name="wandb")
    for record in (record for record in store.all() if record.done):
        known = record.config.get("logger", {})
        config = decode(LoggerConfig, known | {"name": "wandb"})
        name = run_name(record.model.name, record.method)
        logger = open_logger(config, name, record.config, store.folder.parent, record.run_id)
        close_logger(logger, numbers(record), outcomes=store.outcomes(record), lower=lower_is_better(record))
        sent += logger is not None
    say(f"{sent} runs are sent; now the page {page}")
    with tolerated(config.name):
        _push_page(dataclasses.replace(config, group=None), page)
    return sent


def _push_page(config: LoggerConfig, page: Path) -> None:
    import wandb

    run = start(config, "page of results", {}, page.parent, logger_key("page", str(page.name)), kind="page")
    artifact = wandb.Artifact("page", type="page")
    artifact.add_file(str(page))
    run.log_artifact(artifact)
    wandb.finish()
