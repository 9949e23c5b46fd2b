"""How far a sweep is, while it runs: a line that stays on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from pitome.config import Config
from pitome.merge.schedule import AMOUNTS
from pitome.records.sweeps import ENDED, JobState, Sweep, SweepProgress, progress, read_job
from pitome.report.status import duration

_REFRESH_SECONDS = 1.0
_SAID = ("merge", "model", "data")
_MOST = 8  # values that are listed
_FIRST_SECONDS, _NEXT_SECONDS = 30.0, 60.0  # where there is no terminal: of a line, and between lines

_shown = False


def row() -> int:
    """Where a run's own bar stands on the terminal, in rows below the line of its sweep."""
    return int(_shown)


def announcement(configs: Sequence[Config]) -> str:
    """What is about to run, in one line, said before anything slow is imported."""
    parts = []
    for key in (*_SAID, *AMOUNTS, "limit"):
        values = [getattr(config, key) for config in configs]
        names = dict.fromkeys(str(getattr(value, "name", value)) for value in values if value is not None)
        if names:
            parts.append(f"{key}={','.join(names) if len(names) <= _MOST else f'({len(names)} values)'}")
    runs = f"{len(configs):,} runs" if len(configs) > 1 else "1 run"
    return f"{runs}: {' '.join(parts)}; records go to {configs[0].results}"


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
