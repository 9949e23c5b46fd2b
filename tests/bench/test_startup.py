"""What the command line costs: which commands are timed, and that a failing one is not a measurement."""

from __future__ import annotations

import math
import sys
import time

import pytest

from scripts.bench import startup as module
from scripts.bench.record import Record
from scripts.bench.startup import ANSWERS, CommandError, cpu_seconds, startup


def test_every_command_is_timed_once(tmp_path, monkeypatch):
    seen = []

    def seconds(command, code=0):
        seen.append((command, code))
        return 2.0 if command[1] == "-c" else 3.0

    monkeypatch.setattr(module, "cpu_seconds", seconds)
    record = Record(tmp_path / "a.json", {})
    assert startup(record, math.inf, repeats=1)
    cells = Record(tmp_path / "a.json", {}).part("startup")
    assert [cell["kind"] for cell in cells.values()] == [*["answer"] * len(ANSWERS), "points", "fixed"]
    assert cells["run.py weights=random limit=2"]["ratio"] == 1.5
    assert {code for command, code in seen if "--help" in command} == {0}
    assert {code for command, code in seen if "merge=pitom" in command} == {2}
    before = len(seen)
    assert startup(record, math.inf, repeats=1) and len(seen) == before


def test_nothing_is_begun_after_the_deadline(tmp_path):
    assert not startup(Record(tmp_path / "a.json", {}), time.monotonic() - 1)


def test_cpu_time_of_a_child():
    assert cpu_seconds([sys.executable, "-I", "-c", "sum(range(10**6))"]) > 0
    with pytest.raises(CommandError, match="ended with 3 instead of 0"):
        cpu_seconds([sys.executable, "-I", "-c", "raise SystemExit(3)"])
