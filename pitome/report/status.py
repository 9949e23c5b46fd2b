"""How far a sweep is: what is done, failed, running and pending, and how long the rest will take."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pitome.errors import UsageError
from pitome.paper import matching
from pitome.paper.loading import choose, words
from pitome.paper.outcome import nothing_to_run, run_command
from pitome.paper.schema import RUNS
from pitome.records.claims import running
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report.rendering import Table


@dataclass(frozen=True)
class Progress:
    """Points of an experiment, as commands. done: recorded; failed: command -> reason, tried again by
    the next start; seconds: wall time left for everything that is not done, by the mean of the runs that
    are; None where none is."""

    word: str
    done: list[str]
    failed: dict[str, str]
    pending: list[str]
    seconds: float | None

    @property
    def points(self) -> int:
        return len(self.done) + len(self.failed) + len(self.pending)


def progress(word: str, records: Sequence[Record], processes: int = 1) -> Progress:
    """How far the experiment `word` is with these records. processes: that share what is left.

    Raises UsageError for an unknown experiment, and one that is no sweep.
    """
    chosen = choose(word)
    if chosen.experiment.kind != RUNS:
        raise UsageError(f"{word} is no sweep; it runs as a whole: {run_command(chosen)}")
    if not chosen.points:
        raise UsageError(f"{word} {nothing_to_run(chosen)}")
    done, failed, pending, seconds = [], {}, [], []
    for point in chosen.points:
        command = matching.command(point)
        if runs := matching.runs(point, records):
            done.append(command)
            seconds += [run.seconds for run in runs]
        elif (reason := matching.failure(point, records)) is not None:
            failed[command] = reason
        else:
            pending.append(command)
    left = statistics.fmean(seconds) * (len(failed) + len(pending)) / max(processes, 1) if seconds else None
    return Progress(word, done, failed, pending, left)


def sweeps() -> list[str]:
    """Every experiment that has points to run."""
    found = []
    for word in words(sound=True):
        with contextlib.suppress(UsageError):  # an item without points of this kind
            chosen = choose(word)
            found += [word] if chosen.experiment.kind == RUNS and chosen.points else []
    return found


def to_table(names: Sequence[str], store: Store) -> Table:
    """Status of these experiments in a folder of runs. Raises UsageError for an unknown experiment."""
    at_work = running(store.folder)
    records = store.all()
    found = [progress(name, records, len(at_work)) for name in names]
    notes = [f"running: {key} ({owner})" for key, owner in sorted(at_work.items())]
    notes += [f"failed: {command}: {reason}" for one in found for command, reason in one.failed.items()]
    if len(found) == 1:
        notes += [f"pending: {command}" for command in found[0].pending]
    notes.append(
        f"Runs under way in {store.folder.name}: {len(at_work)}. A start of the same command does the failed "
        "and the pending ones and leaves out what is done or under way. Time left: at the mean duration of "
        "the experiment's finished runs, shared among the processes at work."
    )
    return Table(
        title="Status",
        caption=[],
        header=["Experiment", "Points", "Done", "Failed", "Pending", "Time left"],
        rows=[
            [
                one.word,
                *(str(n) for n in (one.points, len(one.done), len(one.failed), len(one.pending))),
                duration(one.seconds) if one.points > len(one.done) else "-",
            ]
            for one in found
        ],
        notes=notes,
    )


def duration(seconds: float | None) -> str:
    """`2 h 05 min`, `3 min 20 s`, `45 s`; `unknown` where nothing tells."""
    if seconds is None:
        return "unknown"
    whole = max(round(seconds), 1)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
