"""A sweep that does not run is one line and no measurement."""

from __future__ import annotations

import math
import subprocess

import pytest

from scripts.bench import sweep as module
from scripts.bench.record import Record


@pytest.mark.parametrize(
    ("said", "shown"), [("first\nno such data\n", "no such data"), ("", "it ended with -9 and said nothing")]
)
def test_a_child_that_fails(said, shown, tmp_path, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], -9, "", said)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    record = Record(tmp_path / "a.json", {})
    assert not module.sweep(record, math.inf)
    assert capsys.readouterr().err == f"sweep not measured: {shown}\n" and not record.part("sweep")
