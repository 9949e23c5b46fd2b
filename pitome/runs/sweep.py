"""Points through Hydra: one run, or a sweep by whichever launcher is configured."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from pitome.config import CONF, Config
from pitome.errors import PitomeError, UsageError, one_line
from pitome.runs.compose import to_config

if TYPE_CHECKING:
    from pitome.runs.job import Finished


@dataclass(frozen=True)
class Done:
    """A point of a sweep and what came of it."""

    config: Config
    finished: Finished


def launch(overrides: Sequence[str], *, multirun: bool, group: str | None, since: datetime) -> list[Done]:
    """Run every point of `overrides`, in order; those that another process works on come last.

    group: of the sweep's runs in W&B. since: when the command began.
    """
    work = functools.partial(_job, group=group, since=since)
    with (
        _blames_words(overrides),
        initialize_config_dir(str(CONF.resolve()), job_name="pitome", version_base="1.3"),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        if multirun:
            batches: list[Sequence[JobReturn]] = hydra.multirun("config", work, list(overrides))
            returns = [job for batch in batches for job in batch]
        else:
            returns = [hydra.run("config", work, list(overrides))]
    missing = sum(job.return_value is None for job in returns)
    if missing:
        print(f"waiting for {missing} runs that another process works on")
    return [_done(job, group, since) for job in returns]


@contextlib.contextmanager
def _blames_words(overrides: Sequence[str]) -> Iterator[None]:
    """A run turns its errors into records, so what Hydra raises comes of the words that it takes for itself.

    Raises UsageError that names them.
    """
    try:
        yield
    except PitomeError:
        raise
    except Exception as problem:
        words = [word for word in overrides if word.lstrip("+~").startswith("hydra")]
        if not words:
            raise
        raise UsageError(
            f"{' '.join(words)} cannot be used: {one_line(problem.__cause__ or problem)}"
        ) from None


def _job(raw: DictConfig, *, group: str | None, since: datetime) -> Finished | None:
    """One point, perhaps in a process of the launcher's. None: another process works on it."""
    return _run(raw, HydraConfig.get().overrides.task, group, since, wait=False)


def _done(job: JobReturn, group: str | None, since: datetime) -> Done:
    assert isinstance(job.cfg, DictConfig)
    finished = job.return_value or wait_for(job, group, since)
    return Done(to_config(job.cfg, group), finished)


def wait_for(job: JobReturn, group: str | None, since: datetime) -> Finished:
    """The run that another process works on: its record, or made here where that process was stopped."""
    assert isinstance(job.cfg, DictConfig)
    finished = _run(job.cfg, job.overrides or (), group, since, wait=True)
    assert finished is not None
    return finished


def _run(
    raw: DictConfig, words: Sequence[str], group: str | None, since: datetime, *, wait: bool
) -> Finished | None:
    from pitome.runs import job
    from pitome.runs.quiet import quiet_libraries
    from pitome.runs.stopping import finish_or_stop

    quiet_libraries()
    with finish_or_stop():
        return job.run(to_config(raw, group), since=since, wait=wait, command=job.command_of(words))
