"""Claims: of several processes that share a folder of records, only one works on a run."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from pitome.records.files import TEMPORARY, write_error
from pitome.records.schema import RecordError

CLAIM = ".claim"
LEASE_SECONDS = 60.0
"""A claim that nobody has renewed for so long has expired: its owner was killed on another machine, or
has lost the folder. A dead process of this machine is known at once."""

_POLL_SECONDS = 1.0
_WRITING_SECONDS = 5.0
"""Age from which a claim without an owner's name will not get one any more."""


class Taken(RecordError):
    """Another process works on this run."""


@contextlib.contextmanager
def claim(folder: Path, key: str, *, wait: bool = False) -> Iterator[None]:
    """Own `key` (a run id) while the context is open: no other process gets it, on this machine or on
    another one with the same shared folder.

    The claim is a file beside the records that its owner renews and removes. wait: until the other
    owner is done or gone. Raises Taken without `wait`, RecordError for a folder that cannot be written.
    """
    path = path_of(folder, key)
    lease = SoftFileLease(path, lease_duration=LEASE_SECONDS)
    while True:
        try:
            _remove_unowned(path)
            lease.acquire(timeout=LEASE_SECONDS if wait else 0, poll_interval=_POLL_SECONDS)
            break
        except Timeout:
            if not wait:
                raise Taken(f"another process works on run {key}") from None
        except OSError as problem:
            raise write_error(path, problem) from None
    try:
        yield
    finally:
        lease.release()


def _remove_unowned(path: Path) -> None:
    """Remove a claim that names no owner, being empty or damaged: its process was killed while it wrote it.

    A fresh one is left alone, as its owner may be about to write its name. The file is moved away before it
    is judged, so that of two processes none removes the claim that the other one has just made.
    """
    if _is_owned(path) is not False:
        return
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    with contextlib.suppress(OSError):  # another process was faster
        os.rename(path, aside)
        if _is_owned(aside) is not False:
            os.link(aside, path)
        aside.unlink()


def _is_owned(path: Path) -> bool | None:
    """Whether a claim names its owner, or may yet do so; None where there is none."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    return SoftFileLease(path, lease_duration=LEASE_SECONDS).owner is not None or abs(age) < _WRITING_SECONDS


def running(folder: Path) -> dict[str, str]:
    """What is claimed in `folder` at this moment, and by whom: `process 12 on host`."""
    claims = {}
    for path in folder.glob(f".*{CLAIM}"):
        with contextlib.suppress(OSError):  # released meanwhile
            owner = SoftFileLease(path, lease_duration=LEASE_SECONDS).owner
            # Twice the lease: clocks of machines on a shared folder may differ.
            recent = path.stat().st_mtime > time.time() - 2 * LEASE_SECONDS
            if recent and owner is not None and not is_dead(owner.pid, owner.hostname):
                key = path.name.removeprefix(".").removesuffix(CLAIM)
                claims[key] = f"process {owner.pid} on {owner.hostname}"
    return claims


def is_dead(pid: int, host: str) -> bool:
    """Whether a process of this very machine is gone; of another one nothing can be said."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it belongs to another user
    return False


def path_of(folder: Path, key: str) -> Path:
    """The file that says that `key` is claimed."""
    return folder / f".{key}{CLAIM}"
