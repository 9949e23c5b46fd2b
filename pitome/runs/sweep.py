"""Points through Hydra: one run, or a sweep by whichever launcher is configured. What a job gave is read
from its folder, so that every launcher ends alike."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pitome.config import CODE, Config
from pitome.errors import PitomeError, UsageError, one_line, redact
from pitome.records.schema import from_json, to_json
from pitome.records.store import Store
from pitome.records.sweeps import (
    ELSEWHERE,
    ENDED,
    OUTPUT,
    RUNNING,
    JobRun,
    JobState,
    Sweep,
    job_folder,
    new_folder,
    read_job,
    write,
)
from pitome.runs.compose import in_group, to_config
from pitome.runs.paths import shown
from pitome.runs.points import hydra_of_conf
from pitome.runs.progress import shown_progress

if TYPE_CHECKING:
    from pitome.runs.job import Finished


@dataclass(frozen=True)
class Done:
    """A point of a sweep and what came of it."""

    config: Config
    finished: Finished
    note: str = ""  # which point it is and where its output stands, for what is said of a failure


@dataclass(frozen=True)
class Work:
    """What a launcher calls for each point, perhaps in another process."""

    since: datetime  # when the command began
    group: str | None  # of the sweep's runs in W&B; None: a single run
    results: str  # folder of the records

    def __call__(self, raw: DictConfig) -> Finished | None:
        """One point. In a sweep what comes of it is left in the job's folder; None: another process works
        on it."""
        words = HydraConfig.get().overrides.task
        folder, started = Path(HydraConfig.get().runtime.output_dir), time.time()
        for path in (*folder.glob(".hydra/*.yaml"), folder.parent / "multirun.yaml"):
            _hide_passwords(path)
        if self.group is None:
            return _run(to_config(raw), words, self.since, wait=False)
        sweep = self.since.isoformat()
        write(folder, JobState(sweep=sweep, state=RUNNING, started=started))
        finished = _run(to_config(raw, self.group), words, self.since, wait=False)
        _leave(folder, sweep, started, finished)
        return None

    @contextmanager
    def sweeping(self, folder: Path, points: Sequence[Sequence[str]]) -> Iterator[tuple[Sweep, Path]]:
        """Within it a sweep is under way: what it is stands where its tables will, and how far it is in the
        terminal. Raises RecordError."""
        tables = new_folder(Path(self.results).parent / "sweeps")
        sweep = Sweep(
            id=self.since.isoformat(),
            name=self.group or "",
            points=_told_apart(points),
            folder=str(folder.resolve()),
            results=self.results,
        )
        write(tables, sweep)
        with shown_progress(sweep):
            yield sweep, tables


def _told_apart(points: Sequence[Sequence[str]]) -> list[str]:
    """Of each point the words that not all points share; all where that leaves none."""
    shared = set.intersection(*map(set, points))
    return [" ".join([word for word in words if word not in shared] or words) for words in points]


def launch(
    overrides: Sequence[str],
    configs: Sequence[Config],
    *,
    multirun: bool,
    group: str | None,
    since: datetime,
) -> tuple[list[Done], Path | None]:
    """Run every point of `overrides`; those that another process works on come last. Gives them in order,
    and the folder for the sweep's tables.

    configs: of the points. group: of the sweep's runs in W&B. since: when the command began.
    """
    work = Work(since, group, configs[0].results)
    # A launcher's processes may start in another folder.
    paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    with _blames_words(overrides), hydra_of_conf() as hydra:
        if not multirun:
            ran = hydra.run("config", work, list(overrides))
            return [
                Done(configs[0], ran.return_value or wait_for(configs[0], ran.overrides or (), since))
            ], None
        swept = hydra.multirun("config", work, list(overrides))
    sweep, problems = swept.sweep, swept.problems
    jobs = [read_job(sweep, number) for number in range(len(sweep.points))]
    if problems and not any(jobs):
        problem = next(iter(problems.values()))
        raise UsageError(f"no job could be started: {_reason(problem) or one_line(problem)}")
    missing = sum(job is not None and job.state == ELSEWHERE for job in jobs)
    if missing:
        print(f"waiting for {missing} runs that another process works on")
    done = []
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True)):
        config = in_group(config, group)
        if job is not None and job.state == ENDED:
            finished = _read(job, config)
        else:
            started = time.time() if job is None else job.started
            if job is not None and job.state == ELSEWHERE:
                finished = wait_for(config, swept.points[number], since)
            else:
                finished = _lost(config, job, problems.get(number), since)
            _leave(job_folder(sweep, number), sweep.id, started, finished)
        done.append(Done(config, finished, _note(sweep, number)))
    write(swept.tables, dataclasses.replace(sweep, ended=True))
    return done, swept.tables


@contextmanager
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


def _hide_passwords(path: Path) -> None:
    """Hydra writes down what it was given."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8")
        if (hidden := redact(text)) != text:
            path.write_text(hidden, encoding="utf-8")


def wait_for(config: Config, words: Sequence[str], since: datetime) -> Finished:
    """The run that another process works on: its record, or made here where that process was stopped."""
    finished = _run(config, words, since, wait=True)
    assert finished is not None
    return finished


def _run(config: Config, words: Sequence[str], since: datetime, *, wait: bool) -> Finished | None:
    from pitome.runs import job
    from pitome.runs.quiet import quiet_libraries
    from pitome.runs.stopping import finish_or_stop

    quiet_libraries()
    with finish_or_stop():
        return job.run(config, since=since, wait=wait, command=job.command_of(words))


def _leave(folder: Path, sweep: str, started: float, finished: Finished | None) -> None:
    """Write what came of a job; None: another process works on it."""
    runs = [
        JobRun(record=json.loads(to_json(run.record)), repeated=run.repeated, exit_code=run.exit_code)
        for run in (finished.runs if finished is not None else [])
    ]
    state, seconds = ELSEWHERE if finished is None else ENDED, time.time() - started
    write(folder, JobState(sweep=sweep, state=state, started=started, seconds=seconds, runs=runs))


def _read(left: JobState, config: Config) -> Finished:
    """What came of a job, from its file."""
    from pitome.runs.job import Finished

    finished = None
    for run in reversed(left.runs):  # the control stands last
        record = from_json(json.dumps(run.record), "a job's record")
        finished = Finished(record, Store(config.results), run.repeated, run.exit_code, finished)
    assert finished is not None
    return finished


def _lost(config: Config, left: JobState | None, problem: BaseException | None, since: datetime) -> Finished:
    """A job that came to no end, recorded as failed."""
    from pitome.runs import job

    what = "its process ended without a result" if left is not None else "it could not be started"
    reason = _reason(problem)
    return job.lost(config, f"{what}: {reason}" if reason else what, since)


def _reason(problem: BaseException | None) -> str:
    """What a job's process died of, from what its launcher says of it; empty where that says nothing."""
    text = str(problem or "").strip()
    if isinstance(problem, PitomeError):
        return text
    if signal := re.search(r"\bSIG[A-Z]+", text):
        return f"killed by {signal.group()}"
    lines = re.findall(r"^[\w.]*(?:Error|Exception): .+$", text, re.MULTILINE)  # of a traceback
    return one_line(lines[-1] if lines else text) if lines or "\n" not in text else ""


def _note(sweep: Sweep, number: int) -> str:
    output = job_folder(sweep, number) / OUTPUT
    words = sweep.points[number]
    return f"{words}; its output: {shown(output)}" if output.exists() else words
