"""What every data set tells about itself, and what a model expects of images. Imports no torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np

PERMUTED = "the first of a permutation seeded with the name"


@dataclass
class DataInfo:
    """Where the samples of one split came from; stands in every record."""

    name: str
    revision: str  # a commit or checksum of the data
    split: str
    source: str  # hub, local or package: what was taken, not what was asked for
    classes: int  # number of labels
    n_selected: int  # samples asked for
    limit: int | None = None  # how many were chosen; None: all
    selection: str = "all"  # how they were chosen
    # sample id -> why it could not be read; filled while they are read
    skipped: dict[int, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # name -> why this file is not a sample
    n_truncated: int | None = None  # texts longer than the model reads; None: no texts

    @classmethod
    def of(
        cls,
        name: str,
        revision: str,
        split: str,
        source: str,
        n_selected: int,
        total: int,
        *,
        classes: int = 0,
        selection: str = PERMUTED,
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Of `n_selected` of `total` samples, chosen as `selection` says if these are fewer."""
        limit, chosen = (n_selected, selection) if n_selected < total else (None, "all")
        return cls(name, revision, split, source, classes, n_selected, limit, chosen, left_out=left_out)

    @property
    def n_skipped(self) -> int:
        return len(self.skipped) + len(self.left_out)

    @property
    def n_samples(self) -> int:
        """Samples that can be evaluated; final once all have been read."""
        return self.n_selected - len(self.skipped)

    def record(self, most: int = 20) -> dict[str, Any]:
        """The entries of a record; names at most `most` of the skipped samples and files."""
        skipped = [*sorted(self.skipped.items()), *self.left_out.items()][:most]
        cut = {} if self.n_truncated is None else {"n_truncated": self.n_truncated}
        return cut | {
            "name": self.name,
            "revision": self.revision,
            "split": self.split,
            "source": self.source,
            "limit": self.limit,
            "selection": self.selection,
            "n_samples": self.n_samples,
            "n_skipped": self.n_skipped,
            "skipped": [{"id": str(id), "reason": why} for id, why in skipped],
        }


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a model's input: resize, crop, normalise."""

    size: int  # height and width in pixels
    channels: int = 3  # 1 or 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # per channel, of values in [0, 1]
    std: tuple[float, ...] = (0.229, 0.224, 0.225)  # per channel
    crop_pct: float = 1.0  # share of the resized image that the centre crop keeps
    interpolation: str = "bicubic"
    # height and width in pixels of the same view in another size, squeezed if not square
    shape: tuple[int, int] | None = None
    squash: bool = False  # the whole image is squeezed into the square, nothing is cut off


def permuted_selection(name: str, total: int, limit: int | None) -> np.ndarray:
    """`limit` of `total` sample indices, ascending: the first of a permutation seeded with `name`; all for a
    limit of None, or one that is not smaller.

    For files sorted by class, whose first samples would all be of one class. The same on every
    machine (numpy freezes RandomState); a smaller limit chooses a subset of a larger one's samples.
    """
    order = np.random.RandomState(zlib.crc32(name.encode())).permutation(total)
    return np.sort(order[:limit])
