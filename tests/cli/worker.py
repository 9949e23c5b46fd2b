"""Command lines one after the other in one process, up to the import of torch, where the work would begin.

As a program: a JSON list of a command and its words per line in, what came of it out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = {
    "run": "pitome.cli.main",
    "report": "scripts.report",
    "show_tokens": "pitome.runs.show_tokens",
    "bench": "scripts.bench.command",
}
SECONDS = 5  # of CPU time, after which a line is stopped
_HUNG = 60  # seconds on the clock, after which the process is ended
_MEMORY = 3 << 30
ACCEPTED = "accepted"


@dataclass
class Answer:
    """What came of a command line."""

    code: int | str | None  # ACCEPTED where it came to torch; None: see `trace`
    out: str
    err: str
    seconds: float  # of CPU time
    trace: str  # what it raised

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None where the line was accepted, or refused in one line with code 2."""
        if self.trace:
            return self.trace
        if self.code in (0, ACCEPTED):
            return None
        lines = self.err.splitlines()
        if self.code != 2 or len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) > 1500:
            return f"code {self.code}, {len(lines)} lines: {self.err}"
        return None


class Worker:
    """Sends command lines to such a process; a new one takes over where it died or hung."""

    def __init__(self, folder: Path) -> None:
        """folder: the current directory and the home of the process."""
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, command: str, words: list[str]) -> Answer:
        process = self.process
        if process is None or process.poll() is not None:
            with (self.folder / "worker.err").open("w") as err:
                self.process = process = subprocess.Popen(
                    [sys.executable, "-m", "tests.cli.worker"],
                    cwd=self.folder,
                    env=environment(self.folder),
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=err,
                )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([command, words]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline() if select.select([process.stdout], [], [], _HUNG)[0] else ""
        if answer:
            return Answer(**json.loads(answer))
        self.close()
        end = (self.folder / "worker.err").read_text()[-500:]
        return Answer(None, "", "", _HUNG, f"the process ended ({process.returncode}): {end}")

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def environment(folder: Path) -> dict[str, str]:
    """Of commands that find no hub and no cache."""
    root = str(Path(__file__).parents[2])
    places = {"HOME": folder, "HF_HOME": folder / "hub", "PITOME_CACHE": folder / "cache"}
    return (
        os.environ
        | {key: str(place) for key, place in places.items()}
        | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    )


class _Accepted(BaseException):
    """Torch is imported: all that text and paths decide has been checked."""


class _TooSlow(BaseException):
    pass


class _NoTorch:
    def find_spec(self, name: str, *_: object) -> None:
        if name in ("torch", "lightning"):
            raise _Accepted


def _run(command: str, words: list[str]) -> dict[str, Any]:
    out, err, trace, code = io.StringIO(), io.StringIO(), "", None
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        main = importlib.import_module(COMMANDS[command]).main
        main = functools.partial(main, results=Path("results")) if command == "report" else main
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except _Accepted:
        code = ACCEPTED
    except SystemExit as stop:  # argparse's --help
        code = stop.code or 0
    except BaseException:
        trace = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - started
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": seconds, "trace": trace}


def _stop(*_: object) -> None:
    raise _TooSlow


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGPROF, _stop)
    sys.meta_path.insert(0, _NoTorch())  # type: ignore[arg-type]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints past sys.stdout
    for line in sys.stdin:
        print(json.dumps(_run(*json.loads(line))), file=answers, flush=True)
