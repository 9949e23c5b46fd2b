"""Votes of the nearest neighbours: which images of a bank are most like a query, and what they say.

Weighted votes over the cosine similarity of features (Wu et al. 2018, arXiv 1805.01978, section
3.4); DINO (Caron et al. 2021, arXiv 2104.14294; `eval_knn.py`) and DINOv2 (`eval/knn.py`) count
alike, but leave ties open.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pitome.errors import UsageError

_ROWS = 16_384  # of the bank compared at once: 50 MB in single precision at 768 features


def choose(similarity: Tensor, k: int) -> Tensor:
    """Columns of the k greatest of each row of [Q, N], k <= N, ascending: [Q, k].

    Of equal ones the first are taken, which `torch.topk` leaves open.
    """
    least = similarity.topk(k, dim=1).values[:, -1:]
    above, equal = similarity > least, similarity == least
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


def vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Share of the votes each class gets: [Q, classes], float64, on the CPU.

    similarity, labels: of each query's neighbours, [Q, k]. A neighbour votes for its label with
    weight exp(similarity / temperature).
    """
    # On the CPU in a fixed order of additions: the same on every run, unlike atomics of a GPU.
    weight = torch.softmax(similarity.cpu().double() / temperature, dim=1)
    return weight.new_zeros(len(weight), classes).scatter_add_(1, labels.cpu(), weight)


def rank(votes: Tensor, labels: Tensor) -> Tensor:
    """Place of each query's own label [Q] in votes [Q, classes]: 0 is first, [Q].

    Of classes with equal votes the smaller number comes first. A class that got no vote is no
    answer and comes last of all, so that it never counts among the first five by its number.
    """
    votes_of_label = votes.gather(1, labels[:, None])
    smaller = torch.arange(votes.shape[1]) < labels[:, None]
    place = ((votes > votes_of_label) | ((votes == votes_of_label) & smaller)).sum(dim=1)
    return place.masked_fill(votes_of_label[:, 0] == 0, votes.shape[1])


class Bank:
    """Features of labelled images, to find neighbours in: of unit length, in half precision.

    1.28 million images of 768 features take 2 GB, on the device of the first ones added.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self._features: Tensor | None = None
        self._labels = torch.empty(capacity, dtype=torch.long)

    def __len__(self) -> int:
        return self.count

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Append features [B, D] and labels [B]. Raises UsageError for features that are not finite."""
        unit = _unit(features)
        if self._features is None:
            self._features = unit.new_empty(self.capacity, unit.shape[1], dtype=torch.float16)
            self._labels = self._labels.to(unit.device)
        end = self.count + len(unit)
        self._features[self.count : end] = unit
        self._labels[self.count : end] = labels
        self.count = end

    def neighbours(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Cosine similarity and labels of the k images most like each query [Q, D]: twice [Q, k].

        Of equally similar images those that were added first; sorted by their order in the bank.
        Raises UsageError for fewer than k images and for queries that are not finite.
        """
        check_count(k, self.count)
        assert self._features is not None  # k is at least 1
        queries = _unit(queries)
        similarity = queries.new_empty(len(queries), 0)
        labels = self._labels.new_empty(len(queries), 0)
        for start in range(0, self.count, _ROWS):
            rows = slice(start, min(start + _ROWS, self.count))
            products = queries @ self._features[rows].to(queries.dtype).T
            nearest = choose(products, min(k, products.shape[1]))
            # The best so far stand in front, so that ties stay with the earlier image.
            similarity = torch.cat([similarity, products.gather(1, nearest)], dim=1)
            labels = torch.cat([labels, self._labels[rows][nearest]], dim=1)
            best = choose(similarity, min(k, similarity.shape[1]))
            similarity, labels = similarity.gather(1, best), labels.gather(1, best)
        return similarity, labels


def check_count(k: int, images: int) -> None:
    """Raise UsageError where so few images cannot give k neighbours."""
    if k > images:
        raise UsageError(f"task.k={k} is more than the {images} images that may vote; give a smaller task.k")


def _unit(features: Tensor) -> Tensor:
    """Features [B, D] of unit length, at least in single precision. Raises UsageError for nan and inf."""
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    if not features.isfinite().all():
        raise UsageError("the model's features are not finite; use precision=32, or check its weights")
    return functional.normalize(features, dim=1)
