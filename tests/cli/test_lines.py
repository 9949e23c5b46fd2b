"""Random command lines: each is accepted, or refused in one line with code 2, within 5 s."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests import ROOT
from tests.cli.lines import Line, lines
from tests.cli.worker import ACCEPTED, Worker, environment

LINES = int(os.environ.get("SOAK_LINES", "80"))
"""`make soak` asks for 10,000."""

REFUSED = {
    "model=true": "model=True is not a name",
    "model=[deit_s]": "is not a name",
    "merge={x:[1]}": "is not a name",
    "data=[null]": "is not a name",
    "~task": "a run needs a task",
    "trainer=fashon_mnist": "did you mean fashion_mnist",
    "hydra=null": "hydra cannot be set",
    "hydra.sweeper.params.ratio=0.9": "give the values of a sweep as KEY=VALUE,VALUE",
    "hydra/sweeper=basic": "cannot be set",
    "--cfg job hydra/job_logging=[[]]": "is not a name, nor a list of names",
    "hydra/job_logging=7": "is not a name, nor a list of names",
    "hydra/help={a:1}": "is not a name, nor a list of names",
    "hydra.run.dir=${nonsense}": "hydra.run.dir=${nonsense} cannot be used",
    "hydra.job.name=a,b -m": "all runs of a sweep share it",
    "hydra/launcher=nonsense": "unknown hydra/launcher=nonsense",
    "layers=-inf": "layers=-inf is not text or a list of whole numbers",
    "ratio=1e400": "ratio=inf is outside (0, 1]",
    "model.args.depth=" + "9" * 5000: "a number of 5000 digits",
    "ratio=" + "9" * 299: "is outside (0, 1]",
    "=None": "sets no key",
    "data=" + "n" * 3000: "unknown data=nnn",
    "n" * 3000 + "=1": "unknown key nnn",
    "results=/proc/none": "make it a writable folder or choose another one",
    "weights=" + "n" * 3000: "error: ",
    "weights=~nobody/x": "error: ",
    "results=a\udcffb": "is not text in UTF-8",
    "-m trainer.lora=range(1,10,0)": "has no end",
    "-m data.classes=range(0,inf)": "has no end",
    "-m seed=range(0,1e12)": "has 1,000,000,000,000 values; give 1 to 10,000",
    "-m seed=shuffle(range(0,1e11)) seed=1": "has 100,000,000,000 values",
    "-m seed=range(0,200) ratio=range(0.1,0.9,0.01)": "the sweep has 16,000 points (seed 200 x ratio 80)",
    "-m ratio=range(0.9,0.1)": "has 0 values",
    "-m ratio=interval(0,1)": "an interval has no single values",
    "-m merge=glob(x*)": "has 0 values",
    "-s": "unknown flag -s",
    "--cfg": "expected one argument",
    "--info ratio=0.9": "invalid choice",
    "--cfg job --info": "Only one of",
    "--cfg job --package nonsense": "package 'nonsense' not found",
    "table5": "table5 is not KEY=VALUE; write -m experiment=table5",
    "-m tome ratio=0.9": "tome is not KEY=VALUE; write merge=tome",
    "clip_l": "write model=clip_l",
    "easy_vqa": "write data=easy_vqa or trainer=easy_vqa",
    "limit": "write limit=VALUE",
    "seed=1 report": "report is not KEY=VALUE; use python scripts/report.py",
    "help": "help is not KEY=VALUE; python run.py --help lists all choices and keys",
    "report status table99": "unknown experiment=table99",
    "report seal " + "n" * 3000: "seal takes one folder with records",
    "report results=" + "n" * 3000: "no such folder",
    "show_tokens image=" + "9" * 5000: "error: ",
    "show_tokens image=" + "n" * 3000: "error: ",
    "show_tokens after=" + "9" * 5000: "is not a list of whole numbers",
    "show_tokens ratio=interval(0,1)": "an interval has no single values",
    "bench --reference " + "9" * 300: "File name too long",
    "bench --batch": "expected one argument; --help lists all options",
    "bench --batch=x": "invalid int value: 'x'",
}
"""Kinds that once ended in a traceback, in many lines or never: words -> what is said."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("lines")
    os.mkfifo(folder / "fifo")  # a path that can be opened and never read
    made = Worker(folder)
    yield made
    made.close()


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40].encode(errors="replace").decode())
def test_refused_in_one_line(text: str, worker: Worker) -> None:
    first, *rest = text.split()
    command, words = (first, rest) if first in ("report", "show_tokens", "bench") else ("run", [first, *rest])
    answer = worker(command, words)
    assert answer.fault is None and answer.code == 2, answer
    assert REFUSED[text] in answer.err


def test_a_full_disk_is_one_line(worker: Worker) -> None:
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", sys.executable, str(ROOT / "run.py"), "weights=random"],
        cwd=worker.folder,
        env=environment(worker.folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: the disk is full"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_slow_import_is_named(worker: Worker) -> None:
    (worker.folder / "slow.py").write_text("import time\ntime.sleep(1.2)\nraise ValueError('no')\n")
    answer = worker("run", ["imports=[slow]"])
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "importing slow ...", "error: imports: slow cannot be imported (ValueError: no)"
    ]  # fmt: skip


def test_random_lines(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    codes: Counter[tuple[str, object]] = Counter()

    @settings(
        max_examples=LINES,
        deadline=None,
        database=None,
        derandomize=LINES < 1000,  # the same lines every day
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def check(line: Line) -> None:
        answer = worker(*line)
        codes[line[0], answer.code] += 1
        assert answer.fault is None, answer.fault

    check()
    counts = [f"{key[0]} {key[1]}: {count}" for key, count in sorted(codes.items(), key=str)]
    with capsys.disabled():
        print(f"{sum(codes.values())} lines, 0 tracebacks, 0 hangs:", ", ".join(counts))
    assert codes["run", ACCEPTED] > LINES / 50 and codes["run", 2] > LINES / 5


def test_the_process_answers_as_the_command_does(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes of a line does not depend on the lines before it, nor on torch being kept away."""
    seen = []

    @settings(
        max_examples=max(LINES // 50, 8),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def check(line: Line) -> None:
        command, words = line
        answer = worker(command, words)
        if command != "run" or answer.code != 2:
            return
        done = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=worker.folder,
            env=environment(worker.folder),
            capture_output=True,
            text=True,
        )
        seen.append(words)
        assert (done.returncode, done.stderr) == (2, answer.err)

    check()
    with capsys.disabled():
        print(f"{len(seen)} lines are answered equally by run.py")
