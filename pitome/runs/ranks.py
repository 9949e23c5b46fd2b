"""The processes of a run on several devices.

They are spawned rather than started as the same command again, which is what Lightning does by itself: that
would compose, check and claim every point of a sweep once per process, while here the job alone, which a
command, a launcher of Hydra's or a test started, decides what is computed and records it.
"""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from pitome.errors import PitomeError, RankError

Returned = TypeVar("Returned")

_FOREVER = datetime.timedelta(days=30)  # that a rank waits for others: one that dies ends all of them


def launch(work: Callable[..., Returned], count: int, device: torch.device, *arguments: object) -> Returned:
    """What `work(device, *arguments)` returns in the first of `count` new processes, each with a device of
    its own and connected to the others. `work` is a function of a module, arguments and result are pickled.

    Raises what the first of them raised, and RankError where one was killed; the others are ended then.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of them: no advice of DDP's
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="pitome-") as folder:
        threads = max(torch.get_num_threads() // count, 1)
        processes: list[BaseProcess] = [
            context.Process(target=_rank, args=(number, count, device.type, threads, folder, work, arguments))
            for number in range(count)
        ]
        try:
            for process in processes:
                process.start()
            _wait(processes, Path(folder))
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()  # what waits for a dead rank hears nothing else
                    process.join()
        result: Returned = _outcome(Path(folder), 0)
    return result


def _wait(processes: Sequence[BaseProcess], folder: Path) -> None:
    """Until all have ended well, or the first has not."""
    running = list(processes)
    while running:
        connection.wait([process.sentinel for process in running])
        for process in running:
            process.join(0)
        if any(process.exitcode for process in running):
            raise _reason(processes, folder)
        running = [process for process in running if process.exitcode is None]


def _reason(processes: Sequence[BaseProcess], folder: Path) -> Exception:
    """Why it ended: others fail as well once they miss the first one."""
    failed = sorted(folder.glob("*.failed"), key=lambda path: path.stat().st_mtime_ns)
    reasons: list[tuple[Exception, str]] = [pickle.loads(path.read_bytes()) for path in failed]
    for problem, _ in reasons:
        if isinstance(problem, PitomeError):
            return problem
    for number, process in enumerate(processes):
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            return RankError(
                f"process {number + 1} of {len(processes)} (devices={len(processes)}) was killed by {name}, "
                "perhaps for want of memory; the same command tries it again"
            )
    if not reasons:
        return RankError(f"one of the processes of devices={len(processes)} ended without a reason")
    problem, text = reasons[0]
    print(text, file=sys.stderr)
    return problem


def _outcome(folder: Path, number: int) -> Any:
    return pickle.loads((folder / f"{number}.done").read_bytes())


def _rank(
    number: int,
    count: int,
    kind: str,
    threads: int,
    folder: str,
    work: Callable[..., object],
    arguments: Sequence[object],
) -> None:
    """One process: connect, work, leave the result or the error in `folder`."""
    import torch.distributed as dist

    from pitome.runs.quiet import quiet_libraries

    os.setpgrp()  # Ctrl-C is for the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)  # that process has said it
    quiet_libraries()
    torch.set_num_threads(threads)
    device = torch.device(kind, number) if kind == "cuda" else torch.device(kind)
    os.environ["LOCAL_RANK"] = str(number)  # tells Lightning that its processes run already
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
    path = Path(folder) / str(number)
    try:
        if kind == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
            init_method=f"file://{folder}/group",
            rank=number,
            world_size=count,
            timeout=_FOREVER,
        )
        result = work(device, *arguments)
        _write(path.with_suffix(".done"), result if number == 0 else None)
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException as problem:
        _write(path.with_suffix(".failed"), (_portable(problem), traceback.format_exc()))
        os._exit(1)  # others may wait for this one in vain, and it for them


def _write(path: Path, value: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(value))
    partial.replace(path)


def _portable(problem: BaseException) -> Exception:
    """An error that can be read by the process that waits."""
    try:
        copy = pickle.loads(pickle.dumps(problem))
        return copy if isinstance(copy, Exception) else RankError(f"{type(problem).__name__}: {problem}")
    except Exception:
        return RuntimeError(f"{type(problem).__name__}: {problem}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
