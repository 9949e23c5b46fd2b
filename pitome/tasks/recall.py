"""Recall at k of image-text retrieval, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.errors import DataError, UsageError

KS = (1, 5, 10)
_CELLS = 50_000_000  # scores held at once: 400 MB in float64

Scores = Callable[[slice], Tensor]
"""Scores of some queries (rows) against all candidates: slice -> [rows, candidates]."""


@dataclass(frozen=True)
class Retrieval:
    """Ranks, 0 is best. to_text [I]: of an image's best own caption among the captions of others;
    to_image [T]: of a caption's image among all images."""

    to_text: Tensor
    to_image: Tensor

    def recalls(self, ks: Sequence[int] = KS) -> dict[str, float]:
        """`rt1`, `rt5`, ... (image to text) and `ri1`, ... (text to image), shares in [0, 1], and
        `rsum`, the sum of all in percent (600 at most for three values of k), the paper's Rsum."""
        out = {f"rt{k}": float((self.to_text < k).double().mean()) for k in ks}
        out |= {f"ri{k}": float((self.to_image < k).double().mean()) for k in ks}
        return out | {"rsum": 100 * sum(out.values())}


def check_ks(ks: Sequence[int], images: int) -> None:
    """Raise UsageError for a k that every model reaches because there are no more candidates."""
    for k in ks:
        if not 1 <= k <= images:
            raise UsageError(
                f"recall at {k} means nothing among {images} images; use a larger limit or smaller k"
            )


def rank_features(images: Tensor, texts: Tensor, owner: Tensor) -> Retrieval:
    """Ranks by cosine similarity of `images` [I, D] and `texts` [T, D], both of unit length.

    owner [T]: the image each caption belongs to. Scores are sums in float64, rounded to float32, so
    that equal texts score equally wherever they stand; never more than 400 MB of them at once.
    """
    pictures, words = images.double().cpu(), texts.double().cpu()
    return rank(
        lambda rows: (pictures[rows] @ words.T).float(),
        lambda rows: (words[rows] @ pictures.T).float(),
        owner.cpu(),
        len(pictures),
    )


def rank(by_image: Scores, by_text: Scores, owner: Tensor, n_images: int) -> Retrieval:
    """Ranks from two score functions, e.g. after re-ranking: `by_image` gives rows of [I, T],
    `by_text` rows of [T, I].

    A query finds its target at rank r if r wrong candidates score at least as high: ties count
    against the model, so one that scores everything alike finds nothing. An image has several
    right captions; its best one counts, and its other captions are no wrong candidates.
    Raises DataError for an image without a caption or a score that is no number.
    """
    n_texts = len(owner)
    missing = torch.bincount(owner, minlength=n_images) == 0
    if missing.any():
        raise DataError(
            f"{int(missing.sum())} images have no caption, the first is {int(missing.nonzero()[0])}"
        )
    to_text, to_image = torch.empty(n_images, dtype=torch.long), torch.empty(n_texts, dtype=torch.long)
    for rows in _chunks(n_images, n_texts):
        scores = _checked(by_image(rows))
        own = owner[None, :] == torch.arange(rows.start, rows.stop)[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        to_text[rows] = ((scores >= best) & ~own).sum(dim=1)
    for rows in _chunks(n_texts, n_images):
        scores = _checked(by_text(rows))
        to_image[rows] = (scores >= scores.gather(1, owner[rows, None])).sum(dim=1) - 1
    return Retrieval(to_text, to_image)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(_CELLS // max(columns, 1), 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _checked(scores: Tensor) -> Tensor:
    if scores.isnan().any():
        raise DataError("the model's similarity of an image and a caption is not a number (NaN)")
    return scores
