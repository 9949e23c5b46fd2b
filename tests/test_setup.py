"""make and scripts/setup.sh, as far as they can be tried without installing anything."""

import os
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import pitome
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


def test_the_oldest_versions_are_those_that_are_allowed() -> None:
    """constraints-oldest.txt, with which the workflow tests, names the floor of every dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["experiments"]]
    floors = {r.name.replace("-", "_"): str(r.specifier).removeprefix(">=") for r in map(Requirement, wanted)}
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(text) for name, text in floors.items()} == {
        name.replace("-", "_"): Version(text) for name, text in oldest.items()
    }


def test_the_version_stands_once() -> None:
    """CITATION.cff, which is read where nothing is installed, has the version of the package."""
    assert f"\nversion: {pitome.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"\n## {pitome.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
