"""make and scripts/setup.sh, as far as they can be tried without installing anything."""

import os
import subprocess
from pathlib import Path

from tests import ROOT

TARGETS = {"setup", "demo", "test", "lint", "bench", "report", "clean", "nightly"}


def test_make_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("  make ")}
    assert listed >= TARGETS


def test_an_old_python_is_one_line(tmp_path: Path) -> None:
    """A clone on a machine that only has an old Python."""
    clone, tools = tmp_path / "clone", tmp_path / "tools"
    (clone / "scripts").mkdir(parents=True)
    tools.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    for name in ("cat", "cksum", "dirname", "bash"):
        (tools / name).symlink_to(
            next(p for d in os.environ["PATH"].split(":") if (p := Path(d) / name).exists())
        )
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    done = subprocess.run(
        [tools / "bash", clone / "scripts" / "setup.sh"],
        capture_output=True,
        text=True,
        env={"PATH": str(tools)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11 or newer is needed") and done.stderr.count("\n") == 1


def test_constraints_are_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned and all(line.count("==") == 1 and "/" not in line for line in pinned)
