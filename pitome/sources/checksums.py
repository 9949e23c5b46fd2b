"""Checksums that name data whatever file it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def checksum(parts: Iterable[str | bytes]) -> str:
    """sha256 of texts and bytes in order, each with its length, so that no two lists are alike."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return f"sha256:{total.hexdigest()}"
