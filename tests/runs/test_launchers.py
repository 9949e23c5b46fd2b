"""Sweeps in several processes: whichever launcher runs them, they end as in one process."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hydra_plugins.pitome_points import CheckedSweeper
from pitome.cli import main as command_line
from pitome.cli.main import main
from pitome.config import CONF
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.runs import compose, launchers, sweep
from scripts.report import main as report
from tests import ROOT

Run = Callable[..., int]

DIES = """
import os
import signal

import pitome

@pitome.register("dies")
def dies(tokens, remove, options):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def words_of(name: str) -> list[str]:
    """The launcher, with two jobs at a time."""
    if importlib.util.find_spec(name.partition("_")[0]) is None:
        pytest.skip(f"{name} is not installed")
    two = "hydra.launcher.init.num_cpus=2" if name == "ray" else "hydra.launcher.n_jobs=2"
    return [f"hydra/launcher={name}", two]


def timeless(record: Record) -> Record:
    return dataclasses.replace(record, started="", seconds=0.0, environment=None, peak_memory_bytes=None)


def outcomes(store: Store, method: str) -> tuple[Record, dict[str, list[float]] | None]:
    """The record of a method without times and memory, and its outcomes per sample."""
    (record,) = (record for record in store.all() if record.method.name == method)
    columns = store.outcomes(record)
    return timeless(record), columns and {name: column.tolist() for name, column in columns.items()}


def rows(folder: Path) -> list[str]:
    """Those of the table of a folder's only sweep that hold a run that did not fail, without the column of
    errors, which is there where one did."""
    (tables,) = (folder / "sweeps").iterdir()
    lines = (tables / "table.md").read_text().splitlines()
    return [re.sub(" +", " ", line).rstrip("| ") for line in lines if line.startswith(("| none", "| tome"))]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_is_killed_costs_its_job_alone(jobs: int, tmp_path: Path) -> None:
    """Of jobs that import nothing; below those of a sweep."""
    pytest.importorskip("joblib")
    killed = functools.partial(signal.raise_signal, signal.SIGKILL)
    made = [functools.partial(os.mkdir, tmp_path / name) for name in "ab"]
    first, died, last = launchers.Joblib(n_jobs=jobs, threads=1).run([made[0], killed, made[1]])  # type: ignore[list-item]
    assert first is None and last is None and sweep._reason(died) == "killed by SIGKILL"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.nightly  # each process has torch to import
@pytest.mark.parametrize("engine", ["joblib", "submitit_local", "ray"])
def test_it_ends_as_in_one_process_and_a_job_that_is_killed_costs_itself_alone(
    engine: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fatal.py").write_text(DIES)
    one, many = tmp_path / "one", tmp_path / "many"
    words = ["-m", "imports=[fatal]", "ratio=0.9", "measure=none", "logger.group=sweep"]
    assert run(*words, "merge=none,tome", f"results={one}/runs") == 0
    capsys.readouterr()
    assert run(*words, *words_of(engine), "merge=dies,none,tome", f"results={many}/runs") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and re.search(r"its process .*merge=dies", lines[0]), lines
    serial, parallel = Store(one / "runs"), Store(many / "runs")
    assert {r.method.name: r.status for r in parallel.all()} == {
        "dies": "failed",
        "none": "done",
        "tome": "done",
    }
    for method in ("none", "tome"):
        assert outcomes(parallel, method) == outcomes(serial, method)
    assert len(rows(one)) == 2 and rows(many) == rows(one)


def test_a_launcher_that_is_not_installed_names_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("joblib", "submitit_local", "submitit_slurm", "ray"):
        assert main(["-m", f"hydra/launcher={name}"]) == 2
        extra = name.partition("_")[0]
        error = f"error: hydra/launcher={name} needs {extra}: pip install 'pitome[{extra}]'\n"
        assert capsys.readouterr().err == error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=joblib"], "is for sweeps; add -m"),
        (["-m", "hydra/launcher=jobib"], "did you mean joblib?"),
        (["-m", "hydra/launcher=joblib,basic"], "all runs of a sweep share it, give one"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.jobs=2"], "did you mean hydra.launcher.n_jobs"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "n_jobs=0 is not a whole number >= 1"),
        (["-m", "hydra/launcher=joblib", "hydra.launcher.threads=x"], "threads=x is not a whole number"),
        (["-m", "hydra.sweep.folder=x"], "hydra.sweep.folder=x cannot be used"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


SBATCH = """#!/bin/bash
cp "$1" {folder}/script.sh
echo "Submitted batch job 7"
"""


def test_slurm_is_given_an_array_of_jobs_with_a_gpu_each(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of("submitit_slurm")[:1]
    for name, text in (
        ("sbatch", SBATCH.format(folder=tmp_path)),
        ("srun", "#!/bin/bash\n"),
        ("sacct", "#!/bin/bash\necho 'JobID|State|NodeList'\nfor i in 0 1; do echo \"7_$i|FAILED|\"; done\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)  # nothing will come
    options = ["hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90"]
    assert run("-m", *words, *options, "merge=tome,tofu", "ratio=0.9") == 2
    assert "no job could be started" in capsys.readouterr().err
    script = (tmp_path / "script.sh").read_text()
    for line in (
        "array=0-1%2",
        "gpus-per-node=1",
        "cpus-per-task=8",
        "mem=32GB",
        "partition=gpu",
        "time=90",
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "submitit.core._submit" in script


def test_each_job_at_a_time_has_its_gpu_and_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(launchers, "_gpus", lambda: ["2", "5"])
    slots = launchers._slots(None, None, points=9)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["2", "5"]
    assert [slot["OMP_NUM_THREADS"] for slot in slots] == ["4", "4"]
    monkeypatch.setattr(launchers, "_gpus", list)
    assert [slot["OMP_NUM_THREADS"] for slot in launchers._slots(None, None, points=9)] == ["1"] * 8
    assert launchers._slots(4, 3, points=2) == [{"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}] * 2


def test_whatever_a_launcher_raises_is_said_of_its_jobs() -> None:
    class Launcher:
        def launch(self, jobs: object, initial_job_idx: int) -> object:
            raise RuntimeError("the cluster is down")

    sweeper = CheckedSweeper.__new__(CheckedSweeper)
    sweeper.launcher = Launcher()  # type: ignore[assignment]
    problems = sweeper._launch([["a=1"], ["a=2"]], first=4)
    assert {number: str(problem) for number, problem in problems.items()} == {
        4: "the cluster is down",
        5: "the cluster is down",
    }


PAGE = (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = [
    line.partition("#")[0].split()
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_commands_of_the_page_are_understood(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(compose, "check_places", lambda configs: None)
    monkeypatch.setattr(command_line, "_run", lambda *given: started.append(given) or 0)
    words = [word for word in command[2:] if not word.startswith("data.root=")]
    words = [word if not word.startswith("weights=") else "weights=random" for word in words]
    if command[1] == "run.py":
        assert main(words) == 0, capsys.readouterr().err
        assert started
    else:
        assert report(words, tmp_path) == 0, capsys.readouterr().err


def test_the_page_and_the_help_name_every_launcher(capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml")}
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("hydra/launcher=\n")[2].partition("\n\n")[0]
    assert {line.split()[0] for line in listed.splitlines()} == names
    assert set(re.findall(r"`hydra/launcher=(\w+)`", PAGE)) == names
