"""Runs that another process is on, has finished or has failed meanwhile."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pitome.records.claims import claim
from pitome.records.schema import Record
from pitome.runs import job, stopping, sweep
from pitome.tasks.classification.module import Classification
from pitome.tasks.classification.task import TASK
from tests.conftest import SMALL
from tests.test_conf import config_of

Run = Callable[..., int]
Records = Callable[[], dict[str, Record]]


def test_ctrl_c_ends_the_sweep_and_keeps_what_is_finished(
    run: Run,
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Classification.test_step

    def interrupted(self: Classification, *arguments: Any) -> None:
        if records():
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(Classification, "test_step", interrupted)
    assert run("-m", "merge=tome,tofu,stride", "ratio=0.9", "measure=none") == 130
    assert "the same command continues from there" in capsys.readouterr().err
    assert {name: record.status for name, record in records().items()} == {
        "tome 0.9": "done",
        "tofu 0.9": "interrupted",
    }
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler  # which Lightning has changed
    assert not list((tmp_path / "results" / "runs").glob(".*"))  # no claim is left


@pytest.mark.parametrize(
    ("presses", "seconds", "status"),
    [(1, 5.0, "done"), (1, 0.2, "interrupted"), (2, 60.0, "interrupted")],
    ids=["once, short", "once, long", "twice"],
)
def test_ctrl_c_once_finishes_a_short_run_and_twice_stops_now(
    presses: int,
    seconds: float,
    status: str,
    run: Run,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, start = Classification.test_step, time.monotonic()

    def pressed(self: Classification, *arguments: Any) -> None:
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        while presses == 1 and seconds < 1 and time.monotonic() - start < 20:  # until it is stopped
            time.sleep(0.01)
        step(self, *arguments)

    monkeypatch.setattr(stopping, "SECONDS", seconds)
    monkeypatch.setattr(Classification, "test_step", pressed)
    assert run("-m", "merge=tome,tofu", "ratio=0.9", "measure=none") == 130
    assert {name: record.status for name, record in records().items()} == {"tome 0.9": status}
    assert time.monotonic() - start < 20
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_of_another_process_comes_last(
    killed: bool,
    run: Run,
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its record is taken where it was finished, and made here where its owner is gone."""
    assert run("merge=tome", "ratio=0.9", "measure=none") == 0
    first = records()["tome 0.9"]
    path = tmp_path / "results" / "runs" / f"{first.run_id}.json"
    content = path.read_bytes()
    path.unlink()
    other = contextlib.ExitStack()
    other.enter_context(claim(path.parent, first.run_id))
    original = sweep.wait_for

    def meanwhile(*arguments: Any) -> Any:
        assert [name for name, record in records().items() if record.done] == ["tofu 0.9"]
        if not killed:
            path.write_bytes(content)
        other.close()
        return original(*arguments)

    monkeypatch.setattr(sweep, "wait_for", meanwhile)
    assert run("-m", "merge=tome,tofu", "ratio=0.9", "measure=none") == 0
    assert (records()["tome 0.9"] == first) is not killed
    assert records()["tome 0.9"].metrics == first.metrics
    said = capsys.readouterr().out
    assert "waiting for 1 runs" in said and "| tome" not in said
    assert not list(path.parent.glob(".*"))


def test_a_failure_of_another_process_is_not_repeated_by_this_command(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command tries it again."""
    words = (
        f"data.root={images}",
        "weights=random",
        "logger=none",
        "measure=none",
        "merge=tome",
        "ratio=0.9",
    )
    config = config_of(*SMALL, *words, f"results={tmp_path}")

    def fail(*arguments: object) -> None:
        raise RuntimeError("out of\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(TASK, "evaluate", fail)
        failed = job.run(config)
    assert failed is not None and (failed.exit_code, failed.repeated) == (1, True)
    before = datetime.now(UTC) - timedelta(minutes=1)
    taken = job.run(config, since=before)
    assert taken is not None and (taken.exit_code, taken.repeated) == (2, False)
    assert taken.record.error == "RuntimeError: out of memory"
    again = job.run(config, since=datetime.now(UTC) + timedelta(minutes=1))
    assert again is not None and again.record.done and again.exit_code == 0


def test_sigterm_leaves_an_interrupted_record_and_the_shells_exit_code(
    run: Run,
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A scheduler that ends a job must not book success; the same command continues from there."""
    step = Classification.test_step

    def ended(self: Classification, *arguments: Any) -> None:
        if records():
            signal.raise_signal(signal.SIGTERM)
        step(self, *arguments)

    handler = signal.getsignal(signal.SIGTERM)
    words = ("-m", "merge=tome,tofu", "ratio=0.9", "measure=none")
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "test_step", ended)
        assert run(*words) == 143
    assert "the same command continues from there" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == handler
    assert records()["tome 0.9"].done
    stopped = records()["tofu 0.9"]
    assert (stopped.status, stopped.done) == ("interrupted", False) and "SIGTERM" in str(stopped.error)
    assert not list((tmp_path / "results" / "runs").glob(".*"))  # no claim is left
    assert run(*words) == 0
    assert records()["tofu 0.9"].done
