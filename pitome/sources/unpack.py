"""What packages of PyPI and of Debian share: a program fetches them, and they are unpacked into the cache
folder. Imports no torch."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pitome.errors import DataError

_LIMIT = 1800  # seconds for a command; a slow line still brings 80 MB


def bring(package: str, fill: Callable[[Path], Path], target: Path, *, otherwise: str) -> Path:
    """The folder `target`, at once if it is there.

    fill: gets an empty folder beside `target` and returns the part of it that becomes `target`, by a
    rename, so that a half-written folder is never read; it may raise DataError. package: for messages;
    otherwise: what the user can do instead. Raises DataError, one line.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            filled = fill(Path(scratch))
            try:
                filled.rename(target)
            except OSError:
                if not target.is_dir():  # otherwise another process was faster, with the same files
                    raise
    except OSError as problem:
        raise DataError(
            f"{package} could not be unpacked into {target.parent} ({problem.strerror}); "
            f"set PITOME_CACHE to a writable folder, {otherwise}"
        ) from None
    return target


def run(command: Sequence[str], folder: Path, package: str, *, otherwise: str, error: str) -> str:
    """What a command prints, run in `folder`. error: how lines with its errors begin. Raises DataError, one
    line, where it fails or takes half an hour."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{package}: {Path(command[0]).name} took too long; {otherwise}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith(error)] or lines
        reason = lines[-1].removeprefix(error).strip() if lines else f"exit code {done.returncode}"
        raise DataError(f"{package} could not be fetched ({reason}); {otherwise}")
    return done.stdout
