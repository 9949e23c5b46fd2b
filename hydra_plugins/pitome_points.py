"""Hydra's way in for plugins: a sweeper for points that were composed and checked before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from pitome.errors import PitomeError
from pitome.runs.launchers import Swept


class CheckedSweeper(BasicSweeper):
    """Hands the points to whichever launcher is configured. What a job gave is read from its folder, so a
    launcher may give back nothing, or fail."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.work = task_function

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None and self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        # Hydra's own launcher keeps the configuration of every job until its batch ends
        size = 1 if isinstance(self.launcher, BasicLauncher) else self.max_batch_size
        batches = self.split_arguments(OverridesParser.create().parse_overrides(arguments), size)
        points = [words for batch in batches for words in batch]
        problems: dict[int, BaseException] = {}
        with self.work.sweeping(folder, points) as (sweep, tables):  # type: ignore[attr-defined]
            first = 0
            for batch in batches:
                problems |= self._launch(batch, first)
                first += len(batch)
        return Swept(sweep, tables, points, problems)

    def _launch(self, batch: list[list[str]], first: int) -> dict[int, BaseException]:
        """By job, what the launcher says went wrong."""
        given: Sequence[object]
        try:
            given = self.launcher.launch(batch, initial_job_idx=first)
        except PitomeError:
            raise
        except Exception as problem:
            given = [problem] * len(batch)
        values = [
            job._return_value if isinstance(job, JobReturn) and job.status is JobStatus.FAILED else job
            for job in given
        ]
        return {i: value for i, value in enumerate(values, first) if isinstance(value, BaseException)}
