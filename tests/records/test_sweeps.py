"""What a sweep leaves in its folders, and how far it is by that."""

from __future__ import annotations

import dataclasses
import os
import pty
import sys
import termios
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitome.records.schema import RecordError
from pitome.records.store import Store
from pitome.records.sweeps import (
    ENDED,
    RUNNING,
    JobRun,
    JobState,
    Sweep,
    new_folder,
    progress,
    read_job,
    write,
)
from pitome.report.status import of_sweeps
from pitome.runs import progress as shown
from pitome.runs.progress import text
from tests.test_conf import config_of


def test_sweeps_that_end_in_the_same_second_keep_their_own_tables(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path / "sweeps") for _ in range(3)]
    assert len({folder.name for folder in folders}) == 3
    assert all(folder.is_dir() for folder in folders)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweeps").write_text("a file")
    with pytest.raises(RecordError, match="cannot write to"):
        new_folder(tmp_path / "sweeps")


def sweep_of(folder: Path, points: int, **changes: Any) -> Sweep:
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat()
    names = [f"merge=tome ratio=0.{i}" for i in range(points)]
    values: dict[str, Any] = {
        "id": since,
        "name": "tome",
        "points": names,
        "folder": str(folder),
        "results": "",
    }
    return Sweep(**values | changes)


def ended(exit_code: int = 0, repeated: bool = True, seconds: float = 60.0) -> JobState:
    run = JobRun(record={}, repeated=repeated, exit_code=exit_code)
    return JobState(sweep="", state=ENDED, started=0.0, seconds=seconds, runs=[run])


def under_way(spent: float, **changes: Any) -> JobState:
    return JobState(sweep="", state=RUNNING, started=-spent, **changes)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([None, None], "0 of 2 done"),
        ([under_way(5), None], "0 of 2 done, 1 running"),
        ([ended(), None, None], "1 of 3 done, about 2 min 00 s left"),
        ([ended(), under_way(20), None, None], "1 of 4 done, 1 running, about 2 min 40 s left"),
        ([ended(), under_way(20), under_way(20), None], "1 of 4 done, 2 running, about 1 min 10 s left"),
        (
            [ended(), under_way(900), None],
            "1 of 3 done, 1 running, about 1 min 00 s left",
        ),  # longer than the mean
        ([ended(exit_code=1), ended(), None], "1 of 3 done, 1 failed, about 1 min 00 s left"),
        (
            [ended(repeated=False, seconds=0.1), None],
            "1 of 2 done",
        ),  # recorded before: says nothing of the rest
        ([under_way(20, pid=2**22 + 1), None], "0 of 2 done"),  # its process is gone
        ([ended(), ended(exit_code=2)], "1 of 2 done, 1 failed"),
    ],
)
def test_progress(jobs: list[JobState | None], expected: str) -> None:
    now = [job and dataclasses.replace(job, started=time.time() + job.started) for job in jobs]
    assert text(progress(sweep_of(Path(), len(jobs)), now)) == expected


def test_a_job_of_an_earlier_sweep_in_the_same_folder_is_none_of_this_one(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, 2)
    write(tmp_path / "0", dataclasses.replace(ended(), sweep=sweep.id))
    write(tmp_path / "1", dataclasses.replace(ended(), sweep="another"))
    assert read_job(sweep, 0) is not None and read_job(sweep, 1) is None
    (tmp_path / "0" / "job.json").write_text('{"state": ')
    assert read_job(sweep, 0) is None


def test_status_shows_sweeps_from_their_folders(tmp_path: Path) -> None:
    """Those under way, and of the others the latest."""
    store = Store(tmp_path / "runs")
    assert of_sweeps(store) == []
    for number, changes in enumerate([{"ended": True}, {}, {"ended": True}, {"pid": 2**22 + 1}]):
        sweep = sweep_of(tmp_path / str(number), 3, name=f"s{number}", **changes)
        sweep = dataclasses.replace(sweep, id=sweep.id.replace("05+", f"{10 + number}+"))
        write(tmp_path / "sweeps" / f"2026-{number}", sweep)
        write(tmp_path / str(number) / "0", dataclasses.replace(ended(), sweep=sweep.id))
        job = dataclasses.replace(under_way(20), sweep=sweep.id, started=time.time() - 20)
        write(tmp_path / str(number) / "2", job)
    (table,) = of_sweeps(store, latest=2)
    shown = {row[0]: [*row[2:-1], row[-1].split()[0]] for row in table.rows}
    assert shown == {
        "s1": ["3", "1", "0", "1", "1 min 40 s", "process"],
        "s2": ["3", "1", "0", "-", "-", "ended"],
        "s3": ["3", "1", "0", "-", "-", "stopped"],
    }


def test_progress_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line now and then, and none that repeats what the last one says."""
    for name in ("_REFRESH_SECONDS", "_FIRST_SECONDS", "_NEXT_SECONDS"):
        monkeypatch.setattr(shown, name, 0.01)
    sweep = sweep_of(tmp_path, 2)
    write(tmp_path / "0", dataclasses.replace(ended(), sweep=sweep.id))
    with shown.shown_progress(sweep):
        time.sleep(0.2)
    assert capsys.readouterr().err == "sweep: 1 of 2 done, about 1 min 00 s left\n"


def test_progress_on_a_terminal_is_one_line_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "_REFRESH_SECONDS", 0.02)
    sweep = sweep_of(tmp_path, 2)
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with shown.shown_progress(sweep):
            assert shown.row() == 1  # where the bar of a run stands, below it
            for number in range(2):
                time.sleep(0.2)
                write(tmp_path / str(number), dataclasses.replace(ended(), sweep=sweep.id))
    seen: list[str] = []
    while not seen or "\n" not in seen[-1]:  # the line ends once
        seen.append(os.read(master, 1 << 16).decode())
    monkeypatch.undo()
    text = "".join(seen)
    os.close(master)
    seen = [line.strip() for line in text.split("\r") if line.strip()]
    assert "sweep: 0 of 2 done" in seen and any("1 of 2 done, about 1 min 00 s left" in line for line in seen)
    assert text.count("\n") == 1 and "sweep: 2 of 2 done" in seen[-1] and shown.row() == 0


def test_what_will_run_is_one_line() -> None:
    configs = [
        config_of(f"merge={name}", f"ratio={ratio}") for name in ("tome", "none") for ratio in (0.9, 0.8)
    ]
    assert shown.announcement(configs) == (
        "4 runs: merge=tome,none model=vit_fmnist data=fashion_mnist ratio=0.9,0.8; "
        "records go to results/runs"
    )
    assert shown.announcement(configs[:1]).startswith("1 run: merge=tome model=")
    many = [config_of(f"ratio=0.{i}") for i in range(11, 31)]
    assert "ratio=(20 values);" in shown.announcement(many)
