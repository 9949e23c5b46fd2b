"""A search that is killed with SIGKILL at any moment goes on and ends as an undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pitome.search import study
from tests import ROOT


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = ["mode=search", "merge=tome", "flops=0.7", "model=vit_fmnist", "limit=8", "search.trials=24"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "run.py", *words, f"search.folder={folder}"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def done(folder: Path) -> int:
    """Trials that are finished."""
    try:
        return len(study.read(folder))
    except Exception:  # no study yet
        return 0


@pytest.mark.nightly
def test_killed_twice(tmp_path: Path) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for least in (3, 14):
        process = start(killed)
        while done(killed) < least and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -9
    assert least <= done(killed) < 24
    assert start(killed).wait() == start(undisturbed).wait() == 0
    assert [t.amount for t in study.read(killed)] == [t.amount for t in study.read(undisturbed)]
    texts = [(folder / "tome_flops0.7.yaml").read_text() for folder in (killed, undisturbed)]
    assert texts[0] == texts[1]
