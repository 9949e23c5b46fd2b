"""A bounded folder of arrays that are expensive to make: decoded images, features of captions.

Entries are named after a hash of all they depend on, so that one is never out of date.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pitome.errors import DataError, UsageError
from pitome.sources.folders import cache_folder

DEFAULT_GB = 10.0
_TEMPORARY = ".partial-"
_STALE_SECONDS = 24 * 3600.0  # age after which nobody writes to a temporary folder any more


def cached(kind: str, key: Mapping[str, Any], make: Callable[[Path], object]) -> Path:
    """The folder of the entry `key` (JSON) of a kind; `make(folder)` fills it where there is none.

    Filled beside its place and renamed, so that several processes never see half of one; the first
    to finish wins. The entries used least recently are removed once all of them take more than
    PITOME_CACHE_GB (10): open files of theirs stay readable. Raises DataError where the cache
    cannot be written.
    """
    place = cache_folder() / "arrays"
    entry = place / f"{kind}-{digest(key)}"
    if entry.is_dir():
        with contextlib.suppress(OSError):
            os.utime(entry)
        return entry
    try:
        place.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=place, prefix=_TEMPORARY))
        try:
            make(partial)
            (partial / "key.json").write_text(json.dumps(key, indent=1, sort_keys=True))
            with contextlib.suppress(OSError):  # another process was faster, with the same content
                partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as problem:
        raise DataError(
            f"{place} cannot be written ({problem.strerror}); free some space, or set PITOME_CACHE to a "
            "folder that has it"
        ) from None
    _evict(place, entry)
    return entry


def digest(key: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of a JSON object."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def limit_bytes() -> float:
    """How much the entries may take together. Raises UsageError for a PITOME_CACHE_GB that is not a size."""
    given = os.environ.get("PITOME_CACHE_GB") or str(DEFAULT_GB)
    try:
        size = float(given)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise UsageError(f"PITOME_CACHE_GB={given} is not a size in GB; give a number such as 10")
    return size * 1e9


def _evict(place: Path, newest: Path) -> None:
    """Remove the entries used least recently until the others fit; what was just made stays."""
    files = []
    for path in place.iterdir():
        with contextlib.suppress(OSError):  # removed by another process meanwhile
            used = path.stat().st_mtime
            if path.name.startswith("."):
                if time.time() - used > _STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                files.append((path == newest, used, path, sum(f.stat().st_size for f in path.iterdir())))
    total, limit = sum(size for *_, size in files), limit_bytes()
    for is_newest, _, path, size in sorted(files, key=lambda file: file[:2]):
        if total <= limit or is_newest:
            return
        # Renamed first: nobody opens an entry of which half is gone.
        gone = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
        with contextlib.suppress(OSError):
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        total -= size
