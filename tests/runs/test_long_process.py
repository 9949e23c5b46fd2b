"""Many runs in one process: memory, open files and the time of a run stay as they are."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pitome.runs import job

RUNS = int(os.environ.get("SOAK_RUNS", "10"))
"""`make soak` asks for 500, and then judges memory and time as well, which need many."""
MANY = 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says of a process")
def test_a_long_sweep_holds_no_more_at_its_end(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = job.run
    seconds: list[float] = []  # of CPU time
    memory: list[float] = []  # in MiB
    files: list[int] = []
    threads: list[int] = []

    def watched(*arguments: Any, **more: Any) -> Any:
        started = time.process_time()
        finished = original(*arguments, **more)
        seconds.append(time.process_time() - started)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        files.append(len(os.listdir("/proc/self/fd")))
        threads.append(threading.active_count())
        return finished

    monkeypatch.setattr(job, "run", watched)
    words = ("-m", "merge=tome", "ratio=0.9", "limit=20", f"seed=range(0,{RUNS})", "logger=csv")
    assert run(*words, small=("model.args.depth=2", "model.args.embed_dim=16")) == 0
    assert len(seconds) == RUNS
    tenth = RUNS // 10  # whose runs fill caches

    def ends(values: list[float]) -> tuple[float, float]:
        return statistics.median(values[tenth : 2 * tenth]), statistics.median(values[-tenth:])

    with capsys.disabled():
        print(
            f"{RUNS} runs: memory {ends(memory)[0]:.0f} to {ends(memory)[1]:.0f} MiB, "
            f"open files {files[tenth]} to {files[-1]}, threads {threads[tenth]} to {threads[-1]}, "
            f"CPU time of a run {ends(seconds)[0]:.3f} to {ends(seconds)[1]:.3f} s"
        )
    assert files[-1] <= files[tenth] and threads[-1] <= threads[tenth]
    if RUNS >= MANY:
        assert ends(memory)[1] <= 1.05 * ends(memory)[0]
        assert ends(seconds)[1] <= 1.25 * ends(seconds)[0]
