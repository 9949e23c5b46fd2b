"""Files of a Debian package, unpacked into the cache folder without root. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.hub import say
from pitome.sources.unpack import bring, run

_OPTIONS = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]


def fetch_package(package: str, inside: str, target: Path, *, otherwise: str) -> Path:
    """Bring the folder `inside` of a Debian package to `target`; return it, at once if it is there.

    apt verifies the package. otherwise: what the user can do instead. Raises DataError, one line, without
    apt-get and dpkg-deb, and when the package is not available.
    """
    name = f"the Debian package {package}"

    def call(command: Sequence[str], folder: Path) -> str:
        return run(command, folder, name, otherwise=otherwise, error="E:")

    def fill(folder: Path) -> Path:
        if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
            raise DataError(f"{name} needs {' and '.join(missing)}, not found here; {otherwise}")
        apt = ["apt-get", *_OPTIONS]
        try:
            where = call([*apt, "download", "--print-uris", package], folder)
        except DataError:  # the system has no package lists
            (folder / "lists" / "partial").mkdir(parents=True)
            apt += ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]
            say("fetching Debian's package lists, about 10 MB")
            call([*apt, "update"], folder)
            where = call([*apt, "download", "--print-uris", package], folder)
        # one line: 'address' file bytes checksum
        fields = where.split()
        size = f", {int(fields[2]) / 1e6:.1f} MB" if len(fields) > 2 and fields[2].isdigit() else ""
        say(f"fetching {name}{size}")
        call([*apt, "download", package], folder)
        archive = next(folder.glob("*.deb"), None)
        if archive is None:
            raise DataError(f"{name} was not downloaded; {otherwise}")
        call(["dpkg-deb", "-x", str(archive), str(folder / "root")], folder)
        unpacked = folder / "root" / inside
        if not unpacked.is_dir():
            raise DataError(f"{name} holds no {inside}; {otherwise}")
        return unpacked

    return bring(name, fill, target, otherwise=otherwise)
