"""Files that are either old or new, never half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

from pitome.errors import one_line
from pitome.records.schema import RecordError

TEMPORARY = ".tmp"
STALE_SECONDS = 3600.0
"""Age after which a temporary file cannot belong to a living writer."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step that survives kill -9 and power loss.

    Readers see the old content or the new, also with several writers (the last one wins).
    Creates the folder. Raises RecordError if the folder cannot be written or the disk is full.
    """
    # In the same folder: os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as problem:
        raise write_error(path, problem) from None


def write_error(path: Path, problem: OSError) -> RecordError:
    """What the user can do about a failed write."""
    if problem.errno in _FULL:
        return RecordError(
            f"the disk is full, {path.name} was not written to {path.parent}: free some space and "
            "run again; finished runs are kept"
        )
    reason = one_line(problem.strerror or problem)
    return RecordError(
        f"cannot write to {path.parent} ({reason}): make it a writable folder or choose another one"
    )


def remove_if_stale(path: Path) -> None:
    """Remove a leftover that no living writer can need any more."""
    with contextlib.suppress(OSError):  # another process may have removed it
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, not only the content."""
    with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
