"""Memory that the process keeps, so that no side of a comparison pays for fetching it again.

By default glibc gives large arrays back to the system when they are freed, and the next forward fetches their
pages anew. That costs an unmerged model more than a merged one, and how much depends on what ran before.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_ALWAYS = 2**31 - 1
ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(_ALWAYS), "MALLOC_MMAP_MAX_": "0"}
"""The same for a child process."""


def keep_memory() -> str:
    """From now on, keep what is freed. Returns how memory is handled, a condition of the record."""
    if platform.libc_ver()[0] != "glibc":
        return "as the system does"
    mallopt = ctypes.CDLL(None).mallopt
    done = mallopt(_TRIM_THRESHOLD, _ALWAYS) and mallopt(_MMAP_MAX, 0)
    return "kept" if done else "as the system does"
