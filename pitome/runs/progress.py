"""How far a sweep is, while it runs: a line that stays on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from pitome.records.sweeps import ENDED, JobState, Sweep, SweepProgress, progress, read_job
from pitome.report.status import duration

_REFRESH_SECONDS = 1.0
_FIRST_SECONDS, _NEXT_SECONDS = 30.0, 60.0  # where there is no terminal: of a line, and between lines

_shown = False


def row() -> int:
    """Where a run's own bar stands on the terminal, in rows below the line of its sweep."""
    return int(_shown)


@contextmanager
def shown_progress(sweep: Sweep) -> Iterator[None]:
    """Within it the progress of a sweep is shown."""
    global _shown
    stop = threading.Event()
    terminal = sys.stderr.isatty()
    thread = threading.Thread(target=_on_terminal if terminal else _in_lines, args=(sweep, stop), daemon=True)
    _shown = terminal
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _shown = False


def text(far: SweepProgress) -> str:
    """`3 of 12 done, 2 running, 1 failed, about 4 min 10 s left`."""
    parts = [f"{far.done} of {far.points} done"]
    parts += [f"{far.running} running"] if far.running else []
    parts += [f"{far.failed} failed"] if far.failed else []
    if far.seconds is not None and far.ended < far.points:
        parts.append(f"about {duration(far.seconds)} left")
    return ", ".join(parts)


class Watch:
    """Reads how far a sweep is; jobs that ended are read once."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.jobs: list[JobState | None] = [None] * len(sweep.points)

    def look(self) -> SweepProgress:
        for number, job in enumerate(self.jobs):
            if job is None or job.state != ENDED:
                self.jobs[number] = read_job(self.sweep, number)
        return progress(self.sweep, self.jobs)


def _on_terminal(sweep: Sweep, stop: threading.Event) -> None:
    watch = Watch(sweep)
    with tqdm(bar_format="{desc}", file=sys.stderr, position=0, leave=True) as line:
        while True:
            line.set_description_str(f"sweep: {text(watch.look())}")
            if stop.wait(_REFRESH_SECONDS):
                line.set_description_str(f"sweep: {text(watch.look())}")
                return


def _in_lines(sweep: Sweep, stop: threading.Event) -> None:
    watch, said, due = Watch(sweep), "", time.monotonic() + _FIRST_SECONDS
    while not stop.wait(_REFRESH_SECONDS):
        if time.monotonic() < due:
            continue
        due = time.monotonic() + _NEXT_SECONDS
        far = text(watch.look())
        if far != said:
            print(f"sweep: {far}", file=sys.stderr, flush=True)
        said = far
