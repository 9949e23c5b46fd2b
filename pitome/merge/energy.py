"""The energy of PiToMe: how alike a token is to all others (arXiv 2405.16148, Eq. 3-4)."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from pitome.merge.fast_path import is_eager_on_cpu
from pitome.merge.padding import real_tokens
from pitome.merge.plan import select

SMALLEST = 64
ELEMENTS = 2**16
"""Blocks of a matrix are at least `SMALLEST` rows and, over all images taken at a time, `ELEMENTS` to four
times that: 1 MB in float32. What is larger leaves a core's cache, and its memory is fetched from the system
and given back at every use."""


def energy(
    similarity: Tensor, kind: str, margin: float, alpha: float, padding: Tensor | None = None
) -> Tensor:
    """Energy of every token: the mean of f_m over its row of `similarity` [B, T, T] -> [B, T].

    Eq. 3-4. The mean runs over all T mergeable tokens, `padding` [B, T] left out. The token itself
    counts, as in the authors' code (algo/pitome/merge.py): with `paper` and `elu` that adds the
    same number to all. `kind` and `alpha`: as `PitomeOptions.energy` and `.alpha`.
    """
    score = _score(similarity.clone(), kind, margin, alpha)
    if padding is None:
        mean = score.mean(dim=-1)
    else:
        total = score.masked_fill_(padding[:, None, :], 0).sum(dim=-1)
        mean = total / real_tokens(padding).clamp_min(1)[:, None]
    return _finish(mean, kind, margin, alpha)


class Similarity:
    """The cosines between all `unit` rows [B, T, D].

    The matrix [B, T, T] is made at most once, and not at all in eager mode on a CPU, where blocks of it
    are several times faster. The ways agree up to the order of sums.
    """

    def __init__(self, unit: Tensor) -> None:
        self.unit = unit
        self.matrix = None if is_eager_on_cpu(unit) else unit @ unit.transpose(1, 2)

    def energy(self, kind: str, margin: float, alpha: float) -> Tensor:
        """`energy` of all rows, [B, T]."""
        if self.matrix is None:
            return _blockwise(self.unit, kind, margin, alpha)
        return energy(self.matrix, kind, margin, alpha)

    def alternate(self, order: Tensor) -> Tensor:
        """The cosines of the first, third, .. of the rows `order` [B, 2K] with the second, fourth, ..,
        [B, K, K]."""
        if self.matrix is not None:
            return self.between(order[:, ::2], order[:, 1::2])
        rows = select(self.unit, order)
        return torch.bmm(rows[:, ::2], rows[:, 1::2].transpose(1, 2))

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """The cosines of rows `a` [B, I] with rows `b` [B, J], [B, I, J]."""
        if self.matrix is None:
            return torch.bmm(select(self.unit, a), select(self.unit, b).transpose(1, 2))
        image = torch.arange(a.shape[0], device=a.device)[:, None, None]
        return self.matrix[image, a[:, :, None], b[:, None, :]]


def _blockwise(unit: Tensor, kind: str, margin: float, alpha: float) -> Tensor:
    """Without the matrix [B, T, T]: each pair of blocks once, since the matrix is symmetric."""
    batch, tokens = unit.shape[:2]
    side = max(SMALLEST, math.isqrt(ELEMENTS // batch))
    side = math.ceil(tokens / max(1, round(tokens / side)))  # of equal blocks, none but a few rows high
    if tokens == side and batch * side**2 <= 4 * ELEMENTS:  # one block
        score = _score(torch.bmm(unit, unit.transpose(1, 2)), kind, margin, alpha)
        return _finish(score.sum(dim=2).div_(tokens), kind, margin, alpha)
    images = max(1, 4 * ELEMENTS // side**2)
    total = unit.new_zeros(unit.shape[:2])
    for some, sums in zip(unit.split(images), total.split(images), strict=True):
        blocks, totals = some.split(side, dim=1), sums.split(side, dim=1)
        for i, rows in enumerate(blocks):
            for j in range(i, len(blocks)):
                score = _score(rows @ blocks[j].transpose(1, 2), kind, margin, alpha)
                totals[i].add_(score.sum(dim=2))
                if j > i:
                    totals[j].add_(score.sum(dim=1))
    return _finish(total / tokens, kind, margin, alpha)


def _score(similarity: Tensor, kind: str, margin: float, alpha: float) -> Tensor:
    """f_m of every cosine, up to what `_finish` does to the means; in place.

    By exp: on a CPU expm1 (and with it elu) takes many times as long.
    """
    if kind == "gaussian":
        distance = similarity.sub_(1)
        return _exp_(distance.mul_(distance), -0.5 / (1 - margin) ** 2)
    above = _reaching(similarity, margin) if kind == "paper" else similarity.clamp_min(margin)
    below = _exp_(similarity.clamp_max_(margin))
    return above.add_(below, alpha=alpha * math.exp(-margin))


def _exp_(x: Tensor, scale: float = 1) -> Tensor:
    """exp(scale * x) in place."""
    if is_eager_on_cpu(x):  # which takes less time there
        return x.mul_(scale * math.log2(math.e)).exp2_()
    return x.mul_(scale).exp_()


def _reaching(x: Tensor, margin: float) -> Tensor:
    """`x` where it is at least the margin, else 0."""
    if is_eager_on_cpu(x):  # in one pass instead of three
        return torch.threshold(x, _just_below(margin, x.dtype), 0)
    return x.clone().ge_(margin).mul_(x)


@cache
def _just_below(margin: float, dtype: torch.dtype) -> float:
    """The largest number of the type below the margin in that type."""
    at = torch.tensor(margin, dtype=dtype)
    return torch.nextafter(at, at.new_tensor(-math.inf)).item()


def _finish(mean: Tensor, kind: str, margin: float, alpha: float) -> Tensor:
    """What is the same for all cosines."""
    if kind == "gaussian":
        return mean / ((1 - margin) * math.sqrt(2 * math.pi))
    return mean - (alpha if kind == "paper" else alpha + margin)
