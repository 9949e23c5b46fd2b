"""How far a sweep is: what is done, failed, running and pending, and how long the rest will take."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pitome.errors import UsageError
from pitome.paper.experiments import choose, experiment_names
from pitome.paper.matching import failure, finished_runs
from pitome.paper.points import command
from pitome.records import sweeps as recorded
from pitome.records.claims import running
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report.rendering import Table


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is. Points are given as their commands."""

    name: str  # of the experiment
    done: list[str]  # recorded
    failed: dict[str, str]  # command -> reason; the next start tries them again
    pending: list[str]
    # Wall time left for all that is not done, from the mean of the finished runs; None without any.
    seconds: float | None

    @property
    def points(self) -> int:
        return len(self.done) + len(self.failed) + len(self.pending)


def sweep_status(name: str, records: Sequence[Record], processes: int = 1) -> SweepStatus:
    """How far an experiment is with these records. processes: how many share what is left.

    Raises UsageError for an unknown experiment, and one that is not a sweep.
    """
    experiment = choose(name)
    if not experiment.sweeps:
        raise UsageError(f"{name} is not a sweep; it runs as a whole: {experiment.command}")
    if not experiment.points:
        raise UsageError(f"{name} {experiment.why_no_points}")
    done, failed, pending, seconds = [], {}, [], []
    for point in experiment.points:
        if runs := finished_runs(point, records):
            done.append(command(point))
            seconds += [run.seconds for run in runs]
        elif (reason := failure(point, records)) is not None:
            failed[command(point)] = reason
        else:
            pending.append(command(point))
    left = statistics.fmean(seconds) * (len(failed) + len(pending)) / max(processes, 1) if seconds else None
    return SweepStatus(name, done, failed, pending, left)


def sweeps() -> list[str]:
    """Every experiment that has points to run."""
    names = []
    for name in experiment_names(skip_broken=True):
        with contextlib.suppress(UsageError):  # an item without points of this kind
            names += [name] if choose(name).points else []
    return names


def to_table(names: Sequence[str], store: Store) -> Table:
    """Status of these experiments in a folder of runs. Raises UsageError for an unknown experiment."""
    at_work = running(store.folder)
    records = store.all()
    statuses = [sweep_status(name, records, len(at_work)) for name in names]
    notes = [f"running: {run_id} ({owner})" for run_id, owner in sorted(at_work.items())]
    notes += [f"failed: {point}: {reason}" for sweep in statuses for point, reason in sweep.failed.items()]
    if len(statuses) == 1:
        notes += [f"pending: {point}" for point in statuses[0].pending]
    notes.append(
        f"Runs in progress in {store.folder.name}: {len(at_work)}. Starting the same command again runs the "
        "failed and the pending points and skips those done or in progress. Time left: estimated from the "
        "mean duration of the experiment's finished runs, divided by the number of processes."
    )
    return Table(
        title="Status",
        caption=[],
        header=["Experiment", "Points", "Done", "Failed", "Pending", "Time left"],
        rows=[
            [
                sweep.name,
                *(str(n) for n in (sweep.points, len(sweep.done), len(sweep.failed), len(sweep.pending))),
                duration(sweep.seconds) if sweep.points > len(sweep.done) else "-",
            ]
            for sweep in statuses
        ],
        notes=notes,
    )


def of_sweeps(store: Store, latest: int = 5) -> list[Table]:
    """The sweeps that are under way in a folder of runs, whichever launcher runs them, and the latest of
    the others; none where there was none."""
    found = [sweep for _, sweep in recorded.sweeps(store.folder.parent / "sweeps")]
    under_way = [sweep.id for sweep in found if sweep.is_running]
    found = [sweep for i, sweep in enumerate(found) if sweep.id in under_way or i >= len(found) - latest]
    rows = []
    for sweep in found:
        far = recorded.progress(sweep, [recorded.read_job(sweep, i) for i in range(len(sweep.points))])
        running, left = ("-", "-")
        state = "ended" if sweep.ended else "stopped"
        if sweep.id in under_way:
            running, left, state = (
                str(far.running),
                duration(far.seconds),
                f"process {sweep.pid} on {sweep.host}",
            )
        begun = datetime.fromisoformat(sweep.id).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        rows.append(
            [sweep.name, begun, str(far.points), str(far.done), str(far.failed), running, left, state]
        )
    header = ["Sweep", "Begun", "Points", "Done", "Failed", "Running", "Time left", "State"]
    notes = ["Starting a stopped sweep's command again continues it."] if rows else []
    return [Table("Sweeps", [], header, rows, notes)] if rows else []


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `3 min 20 s`, `45 s`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    whole = max(round(seconds), 1)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
