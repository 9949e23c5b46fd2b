"""Which samples stand for a whole split whose classes are known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

STRATIFIED = "every class by its share, in an order seeded with the name"


def stratified_selection(name: str, labels: Sequence[int] | np.ndarray, limit: int) -> np.ndarray:
    """`limit` sample indices, ascending, in which every class of `labels` [N] has its share.

    The samples of a class are put in an order seeded with `name`, and those are taken that come
    first in their class relative to its size: of 1,000 out of ten equal classes, 100 each. The
    same on every machine; a smaller limit chooses a subset of a larger one's samples.
    """
    order = np.random.RandomState(zlib.crc32(name.encode())).permutation(len(labels))
    shuffled = np.asarray(labels)[order]
    quantile = np.empty(len(order))
    for label in np.unique(shuffled):
        places = np.flatnonzero(shuffled == label)
        quantile[places] = (np.arange(len(places)) + 0.5) / len(places)
    return np.sort(order[np.argsort(quantile, kind="stable")[:limit]])
