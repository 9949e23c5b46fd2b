"""Recall at k of image-text retrieval, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.errors import DataError, UsageError

KS = (1, 5, 10)
_CELLS = 1_000_000  # scores held at once: 8 MB in float64, which stays in a cache

Scores = Callable[[slice], Tensor]
"""Scores of some queries (rows) against all candidates: slice -> [rows, candidates]."""


@dataclass(frozen=True)
class Retrieval:
    """Ranks, 0 is best."""

    to_text: Tensor  # [I] of an image's best own caption among the captions of others
    to_image: Tensor  # [T] of a caption's image among all images

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
    """Ranks by cosine similarity of `images` and `texts`, as `scores_of`.

    owner [T]: the image each caption belongs to. Never more than 8 MB of scores at once, or one row.
    """
    return rank(*scores_of(images, texts), owner.cpu(), len(images))


def scores_of(images: Tensor, texts: Tensor) -> tuple[Scores, Scores]:
    """Cosine similarities of `images` [I, D] with `texts` [T, D], all of unit length: rows of [I, T],
    rows of [T, I]. Of images with several features, [I, Q, D], the most similar one counts.

    Sums in float64, rounded to float32, so that equal texts score equally wherever they stand.
    """
    pictures, words = images.double().cpu(), texts.double().cpu()
    if pictures.ndim == 2:
        return (
            lambda rows: (pictures[rows] @ words.T).float(),
            lambda rows: (words[rows] @ pictures.T).float(),
        )
    queries = pictures.unbind(1)  # one by one, so that there are never Q times as many scores

    def by_image(rows: slice) -> Tensor:
        return _largest(query[rows] @ words.T for query in queries)

    def by_text(rows: slice) -> Tensor:
        return _largest(words[rows] @ query.T for query in queries)

    return by_image, by_text


def _largest(parts: Iterator[Tensor]) -> Tensor:
    best = next(parts)
    for part in parts:
        torch.maximum(best, part, out=best)
    return best.float()


def rank(by_image: Scores, by_text: Scores, owner: Tensor, n_images: int) -> Retrieval:
    """Ranks from two score functions, e.g. after re-ranking: `by_image` gives rows of [I, T],
    `by_text` rows of [T, I].

    A query finds its target at rank r if r wrong candidates score at least as high: ties count
    against the model, so one that scores everything alike finds nothing. An image has several
    right captions; its best one counts, and its other captions are not wrong candidates.
    Raises DataError for an image without a caption or a score that is not a number.
    """
    n_texts = len(owner)
    missing = torch.bincount(owner, minlength=n_images) == 0
    if missing.any():
        raise DataError(
            f"{int(missing.sum())} images have no caption, the first is {int(missing.nonzero()[0])}"
        )
    to_text, to_image = torch.empty(n_images, dtype=torch.long), torch.empty(n_texts, dtype=torch.long)
    for rows in chunks(n_images, n_texts):
        scores = _checked(by_image(rows))
        captions = ((owner >= rows.start) & (owner < rows.stop)).nonzero()[:, 0]
        image = owner[captions] - rows.start
        own_scores = scores[image, captions]
        best = own_scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, image, own_scores, "amax")
        right = torch.zeros_like(to_text[rows]).index_add_(0, image, (own_scores >= best[image]).long())
        to_text[rows] = (scores >= best[:, None]).sum(dim=1) - right
    for rows in chunks(n_texts, n_images):
        scores = _checked(by_text(rows))
        to_image[rows] = (scores >= scores.gather(1, owner[rows, None])).sum(dim=1) - 1
    return Retrieval(to_text, to_image)


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` of a matrix of scores that are held at once."""
    step = max(_CELLS // max(columns, 1), 1)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _checked(scores: Tensor) -> Tensor:
    if scores.isnan().any():
        raise DataError("the model's similarity of an image and a caption is not a number (NaN)")
    return scores
