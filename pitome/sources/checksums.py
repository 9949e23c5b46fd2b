"""Checksums that name data whatever file it came in; published records hold all three forms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def checksum(parts: Iterable[str | bytes]) -> str:
    """sha256 of texts and bytes in order, each with its length, so that no two lists are alike."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return f"sha256:{total.hexdigest()}"


def checksum_of_texts(texts: Iterable[str], labels: Iterable[int]) -> str:
    """sha256 of texts and labels in order."""
    total = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        total.update(f"{label}\t{text}\n".encode("utf-8", "surrogatepass"))
    return f"sha256:{total.hexdigest()}"


def checksum_of_arrays(*arrays: np.ndarray) -> str:
    """sha256 of the bytes of arrays, e.g. images and labels."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(array.tobytes())
    return f"sha256:{total.hexdigest()}"
