"""What a sweep leaves: a file beside its tables that says what it is, and one per job that says how far it
is. From these, and the records, its outcome and its progress are known whichever launcher runs it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pitome.errors import redacted
from pitome.fields import decode
from pitome.records.claims import is_dead
from pitome.records.files import write_atomically, write_error

T = TypeVar("T")

SWEEP, JOB, OUTPUT = "sweep.json", "job.json", "output.txt"
RUNNING, ENDED, ELSEWHERE = "running", "ended", "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep, in results/sweeps/<time>/sweep.json."""

    id: str  # when its command began
    name: str  # its experiments, or what it asks for
    points: list[str]  # the words of each job, in order
    folder: str  # in which each job has a folder, named after its number
    results: str  # folder of the records
    ended: bool = False
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @property
    def is_running(self) -> bool:
        """Whether its process is at work; of one on another machine that is taken for granted."""
        return not self.ended and not is_dead(self.pid, self.host)


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A run of a job: the one that was asked for, or its control."""

    record: dict[str, Any]  # as its file has it
    repeated: bool  # False where it was recorded before
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job of a sweep, in <its folder>/job.json."""

    sweep: str  # id of its sweep: folders can be used twice
    state: str  # running; ended; elsewhere: another process works on the run
    started: float  # seconds since the epoch
    seconds: float = 0.0  # that it took
    runs: list[JobRun] = field(default_factory=list)  # once it has ended
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """How far a sweep is, in jobs."""

    points: int
    done: int
    failed: int
    running: int
    seconds: float | None  # wall time left; None until a job that was not recorded before has ended

    @property
    def ended(self) -> int:
        return self.done + self.failed


def write(folder: Path, state: Sweep | JobState) -> None:
    """Write the file of a sweep or of a job. Raises RecordError."""
    name = SWEEP if isinstance(state, Sweep) else JOB
    write_atomically(folder / name, json.dumps(redacted(dataclasses.asdict(state))).encode())


def read_job(sweep: Sweep, number: int) -> JobState | None:
    """What a job has left so far; None of one that has not started."""
    job = _read(job_folder(sweep, number) / JOB, JobState)
    return job if job is not None and job.sweep == sweep.id else None


def job_folder(sweep: Sweep, number: int) -> Path:
    """The folder of a job."""
    return Path(sweep.folder) / str(number)


def sweeps(folder: Path) -> list[tuple[Path, Sweep]]:
    """The sweeps whose tables are in `folder`, oldest first, and where."""
    found = [(path.parent, _read(path, Sweep)) for path in sorted(folder.glob(f"*/{SWEEP}"))]
    return [(path, sweep) for path, sweep in found if sweep is not None]


def progress(sweep: Sweep, jobs: list[JobState | None]) -> SweepProgress:
    """How far a sweep is with these jobs, one for each point. The time left is that of the jobs that were
    not recorded before, shared by those that run."""
    ended = [job for job in jobs if job is not None and job.state == ENDED]
    failed = [job for job in ended if any(run.exit_code for run in job.runs)]
    running = [job for job in jobs if job is not None and job.state == RUNNING and is_alive(job)]
    spent = [job.seconds for job in ended if any(run.repeated for run in job.runs)]
    seconds = None
    if len(ended) == len(jobs):
        seconds = 0.0
    elif spent:
        mean = sum(spent) / len(spent)
        under_way = sum(min(time.time() - job.started, mean) for job in running)
        seconds = max(mean * (len(jobs) - len(ended)) - under_way, 0.0) / max(len(running), 1)
    return SweepProgress(
        points=len(jobs),
        done=len(ended) - len(failed),
        failed=len(failed),
        running=len(running),
        seconds=seconds,
    )


def is_alive(job: JobState) -> bool:
    """Whether a job's process is there; of one on another machine that is taken for granted."""
    return not is_dead(job.pid, job.host)


def new_folder(parent: Path) -> Path:
    """A new folder named after the time, or, where another sweep has that name, with `-2`, ... after it.
    Raises RecordError."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as problem:
            raise write_error(folder, problem) from None
    raise AssertionError("unreachable")


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return decode(kind, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):  # it is not there, or no file of ours
        return None
