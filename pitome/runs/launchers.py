"""Launchers for the points of a sweep: processes of this machine (joblib), submitit (local, SLURM) and Ray.

Hydra's own plugins for these engines lose every job of a sweep when the process of one is killed. Here a
job that dies costs itself alone. What a job gave stands in its folder; a launcher gives only what went wrong.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from pitome.errors import UsageError
from pitome.records.sweeps import OUTPUT, Sweep

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Swept:
    """What is left of a sweep besides its files."""

    sweep: Sweep  # what its file says
    tables: Path  # where its tables go
    points: list[list[str]]  # the overrides of each job
    problems: dict[int, BaseException]  # by job, what the launcher says went wrong


class Handle(Protocol):
    """A job at work: a future of loky or of Ray, a job of submitit."""

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None: ...


@dataclass(frozen=True)
class PointJob:
    """One job, as the process that does it gets it."""

    number: int  # in the sweep
    words: list[str]  # overrides
    config: DictConfig  # of the sweep
    context: HydraContext
    work: TaskFunction
    state: dict[Any, Any]  # Hydra's singletons
    environment: dict[str, str]  # variables to set before torch is imported
    cwd: str = field(default_factory=os.getcwd)

    def __call__(self) -> None:
        os.environ.update(self.environment)
        os.chdir(self.cwd)
        setup_globals()
        Singleton.set_state(self.state)
        loader: ConfigLoader = self.context.config_loader
        config = loader.load_sweep_config(self.config, self.words)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = self.number
        _print_to(Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir / OUTPUT)
        run_job(
            hydra_context=self.context,
            task_function=self.work,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


class Engine(Launcher):
    """What the launchers share: at most `n_jobs` jobs at a time, each in a slot with its own GPU."""

    def __init__(self, n_jobs: int | None = None, threads: int | None = None, **options: Any) -> None:
        """n_jobs: at a time; None: one per GPU, or one per CPU core where there is no GPU. threads: of a
        job; None: an equal share of the cores. options: of the engine."""
        for name, value in (("n_jobs", n_jobs), ("threads", threads)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"hydra.launcher.{name}={value} is not a whole number >= 1")
        self.n_jobs, self.threads = n_jobs, threads
        self.options: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.work, self.config = hydra_context, task_function, config

    def launch(  # type: ignore[override]
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[BaseException | None]:
        """Run the jobs. Returns for each what its process died of, None for one that came to its end."""
        state = Singleton.get_state()
        points = [
            PointJob(number, list(words), self.config, self.context, self.work, state, {})
            for number, words in enumerate(job_overrides, initial_job_idx)
        ]
        return self.run(points)

    def run(self, points: Sequence[PointJob]) -> Sequence[BaseException | None]:
        slots = _slots(self.n_jobs, self.threads, len(points))
        waiting, free = deque(enumerate(points)), deque(slots)
        running: dict[int, tuple[dict[str, str], Handle]] = {}
        problems: dict[int, BaseException | None] = {}
        with self.engine() as start:
            while waiting or running:
                while waiting and free:
                    place, point = waiting.popleft()
                    slot = free.popleft()
                    running[place] = slot, start(point, slot)
                for place, (slot, handle) in list(running.items()):
                    if handle.done():
                        problems[place] = handle.exception()
                        free.append(slot)
                        del running[place]
                time.sleep(_POLL_SECONDS)
        return [problems[place] for place in range(len(points))]

    def engine(self) -> contextlib.AbstractContextManager[Callable[[PointJob, dict[str, str]], Handle]]:
        """Gives what starts a point with these environment variables, and ends all jobs at exit."""
        raise NotImplementedError


class Joblib(Engine):
    """Processes of this machine that are kept for the next job; each is a pool of its own, so that one
    that dies takes no other along."""

    @contextlib.contextmanager
    def engine(self) -> Iterator[Callable[[PointJob, dict[str, str]], Handle]]:
        from joblib.externals.loky import ProcessPoolExecutor

        pools: dict[int, ProcessPoolExecutor] = {}  # by slot

        def start(point: PointJob, slot: dict[str, str]) -> Handle:
            key = id(slot)
            if key not in pools or pools[key]._flags.broken is not None:
                pools[key] = ProcessPoolExecutor(1, env=slot, timeout=300)
            handle: Handle = pools[key].submit(point)
            return handle

        ended = False
        try:
            yield start
            ended = True
        finally:
            for pool in pools.values():
                pool.shutdown(kill_workers=not ended)


class SubmititLocal(Engine):
    """submitit on this machine: a new process for each job."""

    @contextlib.contextmanager
    def engine(self) -> Iterator[Callable[[PointJob, dict[str, str]], Handle]]:
        with _submitting("local", self.options) as submit:
            yield submit


class SubmititSlurm(Engine):
    """submitit on SLURM: the jobs are one array, and SLURM gives each its GPU and its cores."""

    def run(self, points: Sequence[PointJob]) -> Sequence[BaseException | None]:
        environment = _threads(self.threads or self.options["cpus_per_task"] or 1)
        with _submitting("slurm", self.options) as submit:
            with submit.executor.batch():
                jobs = [submit(point, environment) for point in points]
            return [_problem(job) for job in jobs]


class Ray(Engine):
    """Ray, started here, or the cluster at `init.address`; it says when a job starts, and where."""

    def run(self, points: Sequence[PointJob]) -> Sequence[BaseException | None]:
        import ray

        init = {key: value for key, value in self.options["init"].items() if value is not None}
        variables = {"PYTHONPATH": os.environ["PYTHONPATH"]}
        ray.init(**init, runtime_env={"env_vars": variables})
        try:
            remote = dict(self.options["remote"])
            if remote["num_gpus"] is None:
                remote["num_gpus"] = int(ray.cluster_resources().get("GPU", 0) > 0)
            environment = _threads(self.threads or max(int(remote["num_cpus"]), 1))
            # A job whose process died is not started again, only to die again.
            task = ray.remote(max_retries=0, **remote)(_call)
            jobs = [task.remote(replace(point, environment=environment)).future() for point in points]
            return [_problem(job) for job in jobs]
        finally:
            ray.shutdown()


class _Submit:
    """Submits points to submitit, and cancels them."""

    def __init__(self, cluster: str, options: Mapping[str, Any]) -> None:
        import submitit

        given = {key: value for key, value in options.items() if value is not None}
        self.executor = submitit.AutoExecutor(given.pop("folder"), cluster=cluster)
        self.executor.update_parameters(
            **{key if key in _ANY_CLUSTER else f"{cluster}_{key}": value for key, value in given.items()}
        )
        self.jobs: list[Any] = []

    def __call__(self, point: PointJob, environment: dict[str, str]) -> Any:
        self.jobs.append(self.executor.submit(replace(point, environment=environment)))
        return self.jobs[-1]


_ANY_CLUSTER = ("cpus_per_task", "gpus_per_node", "mem_gb", "name", "timeout_min")
"""Parameters that submitit knows for every cluster; the others are those of one."""


@contextlib.contextmanager
def _submitting(cluster: str, options: Mapping[str, Any]) -> Iterator[_Submit]:
    submit = _Submit(cluster, options)
    try:
        yield submit
    except BaseException:
        for job in submit.jobs:
            job.cancel(check=False)
        raise


def _call(point: PointJob) -> None:
    point()


def _problem(handle: Handle) -> BaseException | None:
    try:
        return handle.exception()
    except Exception as problem:  # as submitit does for a job without a result
        return problem


def _slots(n_jobs: int | None, threads: int | None, points: int) -> list[dict[str, str]]:
    """The environment variables of each of the jobs at a time: its GPU and its threads."""
    gpus = _gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(n_jobs or len(gpus) or cores, points)
    given = os.environ.get("OMP_NUM_THREADS", "")
    variables = _threads(threads or (int(given) if given.isdecimal() else max(cores // count, 1)))
    gpu = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(count)]
    return [{**variables, **own} for own in gpu]


def _gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if shutil.which("nvidia-smi") is None:  # spares the import of torch
        return []
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return visible[:count] if visible else [str(i) for i in range(count)]


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _print_to(path: Path) -> None:
    """From now on all that this process prints goes to a file: bars of several jobs make no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with open(path, "ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
