"""Files of a Debian package, unpacked into the cache folder without root. Imports no torch."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.hub import say

_OPTIONS = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]
_LIMIT = 900  # seconds for one command; a slow line still brings 30 MB


def fetch_package(package: str, inside: str, target: Path, *, otherwise: str) -> Path:
    """Bring the folder `inside` of a Debian package to `target`; return it, at once if it is there.

    Downloaded and unpacked beside `target` and renamed, so that a half-written folder is never
    read. apt verifies the package. otherwise: what the user can do instead. Raises DataError, one
    line, without apt-get and dpkg-deb, and when the package cannot be had.
    """
    if target.is_dir():
        return target
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DataError(
            f"the Debian package {package} needs {' and '.join(missing)}, not found here; {otherwise}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            folder = Path(scratch)
            archive = _download(package, folder, otherwise)
            _run(["dpkg-deb", "-x", str(archive), str(folder / "root")], folder, package, otherwise)
            unpacked = folder / "root" / inside
            if not unpacked.is_dir():
                raise DataError(f"the Debian package {package} holds no {inside}; {otherwise}")
            _publish(unpacked, target)
    except OSError as problem:
        raise DataError(
            f"the Debian package {package} could not be unpacked into {target.parent} ({problem.strerror}); "
            f"set PITOME_CACHE to a writable folder, {otherwise}"
        ) from None
    return target


def _download(package: str, folder: Path, otherwise: str) -> Path:
    """Download the package into `folder`, with package lists of our own where the system has none."""
    options = list(_OPTIONS)
    where = _try(["apt-get", *options, "download", "--print-uris", package], folder)
    if where is None:
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}"]
        say("fetching Debian's package lists, about 10 MB")
        _run(["apt-get", *options, "update"], folder, package, otherwise)
        where = _run(["apt-get", *options, "download", "--print-uris", package], folder, package, otherwise)
    # one line: 'address' file bytes checksum
    fields = where.split()
    size = f", {int(fields[2]) / 1e6:.1f} MB" if len(fields) > 2 and fields[2].isdigit() else ""
    say(f"fetching the Debian package {package}{size}")
    _run(["apt-get", *options, "download", package], folder, package, otherwise)
    archive = next(folder.glob("*.deb"), None)
    if archive is None:
        raise DataError(f"the Debian package {package} was not downloaded; {otherwise}")
    return archive


def _publish(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same files
            raise


def _try(command: list[str], folder: Path) -> str | None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT, check=False)
    return done.stdout if done.returncode == 0 else None


def _run(command: list[str], folder: Path, package: str, otherwise: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"the Debian package {package}: {command[0]} took too long; {otherwise}") from None
    if done.returncode != 0:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("E:")
        ] or done.stderr.splitlines()
        reason = errors[-1].removeprefix("E:").strip() if errors else f"exit code {done.returncode}"
        raise DataError(f"the Debian package {package} could not be fetched ({reason}); {otherwise}")
    return done.stdout
