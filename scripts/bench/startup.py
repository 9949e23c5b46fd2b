"""What the command line costs before any work is done."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pitome.errors import PitomeError
from scripts.bench.record import Record

ROOT = Path(__file__).parents[2]
PART = "startup"
ANSWERS = (
    ("--help",),
    ("merge=pitom",),
    ("ratio=1.5",),
    ("model=deit",),
    ("weights=/no/such/file",),
    ("data.root=/no/such/folder",),
)
POINTS = ("-m", "merge=pitome,tome,tofu,random,stride", "ratio=range(0.7,1,0.01)", "results=/proc/none")
"""150 points, refused once all of them are composed and checked."""
_IMPORTS = "import torch, timm, lightning"


class CommandError(PitomeError):
    """A command that is to be timed does not do what it should."""


def startup(record: Record, deadline: float, repeats: int = 3) -> bool:
    """Time `run.py` on questions that words alone decide, and a run on as little data as can be against
    the imports that it cannot do without. CPU time of the process and its children; each the median of
    `repeats`. Returns whether all of it was done before `deadline`."""
    for words in (*ANSWERS, POINTS):
        name = f"run.py {' '.join(words)}"
        if record.find(PART, name) is not None:
            continue
        if time.monotonic() > deadline:
            return False
        code = 0 if words == ("--help",) else 2
        taken = [cpu_seconds([sys.executable, "run.py", *words], code) for _ in range(repeats)]
        kind = "points" if words == POINTS else "answer"
        cell = {"kind": kind, "seconds": statistics.median(taken), "repeats": repeats}
        record.keep(PART, name, cell)
    name = "run.py weights=random limit=2"
    if record.find(PART, name) is None:
        if time.monotonic() > deadline:
            return False
        record.keep(PART, name, _fixed(repeats))
    return True


def _fixed(repeats: int) -> dict[str, Any]:
    """A run of two images beside the imports, in turn."""
    runs, imports = [], []
    for _ in range(repeats + 1):
        imports.append(cpu_seconds([sys.executable, "-c", _IMPORTS]))
        with tempfile.TemporaryDirectory() as folder:
            words = ["weights=random", "limit=2", "logger=none", f"results={folder}", "measure=none"]
            runs.append(cpu_seconds([sys.executable, "run.py", *words]))
    runs, imports = runs[1:], imports[1:]  # the first of each compiles its modules
    ratios = [run / alone for run, alone in zip(runs, imports, strict=True)]
    return {
        "kind": "fixed",
        "seconds": statistics.median(runs),
        "imports": statistics.median(imports),
        "ratio": statistics.median(ratios),
        "repeats": repeats,
    }


def cpu_seconds(command: list[str], code: int = 0) -> float:
    """CPU time (user and system) of `command`, its children included, run in the project's folder.

    Python keeps what it compiles, as it does where nobody forbids it: else modules would be compiled at
    every start. Raises CommandError where the command ends with another exit code than `code`.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        words = " ".join(command[1:])
        raise CommandError(f"`{words}` ended with {process.returncode} instead of {code}; see what it says")
    return usage.ru_utime + usage.ru_stime
