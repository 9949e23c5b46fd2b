"""DCT: a low-pass filter along the tokens, from the Fourier Transformer (arXiv 2305.15099, ACL 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pitome.merge.plan import AnyPlan, Plan, Tokens, keep_all
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import all_but_one


@dataclass(frozen=True)
class DctOptions(MethodOptions):
    """Options of `dct`. Nothing is matched, so `metric` has one value; rows of the result stand for no
    number of tokens, so `prop_attn` is off.

    position: after the block, since the paper filters between two layers.
    """

    prop_attn: bool = False
    metric: Literal["hidden"] = "hidden"
    position: Literal["before_mlp", "after_block"] = "after_block"


def low_pass(length: int, left: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II of `length` tokens, of which the first `left` coefficients go through the
    orthonormal inverse of length `left`, as one matrix [left, length] in double precision.

    Its entry (m, n) is the sum over the coefficients of two cosines, for which there is a closed form
    (Dirichlet's kernel), so it takes no product of two matrices.
    """
    host = "cpu" if device.type == "mps" else device  # which has no double precision
    row = torch.arange(left, dtype=torch.float64, device=host)[:, None]
    column = torch.arange(length, dtype=torch.float64, device=host)
    a, b = math.pi * (2 * row + 1) / (2 * left), math.pi * (2 * column + 1) / (2 * length)

    def kernel(angle: Tensor) -> Tensor:
        """1/2 + the sum of cos(k angle) over k = 1 .. left - 1."""
        half = (angle / 2).sin()
        zero = half.abs() < 1e-9  # the nearest other angle is pi / (2 length left)
        value = ((left - 0.5) * angle).sin() / (2 * half.masked_fill(zero, 1))
        return value.masked_fill(zero, left - 0.5)

    return ((kernel(a - b) + kernel(a + b)) / math.sqrt(length * left)).to(device)


def _plan(tokens: Tokens, remove: int, gain: float, dtype: torch.dtype | None = None) -> AnyPlan:
    if remove == 0:
        return keep_all(tokens)
    x, p = tokens.x, tokens.protected
    batch, n = x.shape[:2]
    matrix = torch.eye(
        n - remove, n, dtype=torch.float64, device="cpu" if x.device.type == "mps" else x.device
    )
    matrix[p:, p:] = low_pass(n - p, n - p - remove, matrix.device) * gain
    return Plan.dense(matrix.to(tokens.size.dtype).to(x.device).expand(batch, -1, -1), dtype)


def macs(n: int, protected: int, dim: int, remove: int, options: Any) -> int:
    """The product of the matrix with the features."""
    return (n - remove) * n * dim


@register(
    "dct",
    options=DctOptions,
    guarantees=Guarantees(conserves_mass=False, proportional=False, groups=False),
    source="arXiv 2305.15099",
    macs=macs,
    most=all_but_one,
)
def dct(tokens: Tokens, remove: int, options: DctOptions) -> AnyPlan:
    """Keep the slow changes along the sequence: the unprotected tokens' orthonormal DCT, cut to the first
    coefficients and transformed back at that length.

    Scaled by sqrt(left / length), so that the mean of the tokens stays what it was (orthonormal transforms
    of two lengths alone would let it grow with every layer, see `dct_repo`). How many tokens leave is
    counted as for every method here. The matrix depends on no image.
    """
    n, p = tokens.x.shape[1], tokens.protected
    return _plan(tokens, remove, math.sqrt((n - p - remove) / max(n - p, 1)))


@dataclass(frozen=True)
class DctRepoOptions(DctOptions):
    """Options of `dct_repo`, as those of `dct`; None: the family's own."""

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_mlp", "after_block"] | None = None  # type: ignore[assignment]


def count_kept(n: int, protected: int, ratio: float, layer: int) -> int:
    """Removals where ceil(T q) of the T unprotected tokens are kept (algo/dct/merge.py:69)."""
    mergeable = max(n - protected, 0)
    return mergeable - math.ceil(mergeable * ratio)


_COMMON = {"prop_attn": False, "metric": "hidden", "position": "after_block", "protected": 1}
FAMILIES = {
    "deit": _COMMON,
    "mae": {**_COMMON, "protected": 0},
    "clip": _COMMON,
    "blip": _COMMON,
    "eva": {**_COMMON, "position": "before_mlp"},
    "llava": _COMMON,
    "bert": _COMMON,
    "distilbert": _COMMON,
}


@register(
    "dct_repo",
    options=DctRepoOptions,
    guarantees=Guarantees(
        conserves_mass=False, proportional=False, keeps_protected_first=False, groups=False, averages=False
    ),
    source="hchautran/PiToMe 550b5de, algo/dct/merge.py and algo/dct/patch/",
    count=count_kept,
    macs=macs,
    most=all_but_one,
    padding="merged",
    resolve=lambda options, family, depth: fill("dct_repo", options, family, FAMILIES),
    families=TEXT_LAYERS,
)
def dct_repo(tokens: Tokens, remove: int, options: DctRepoOptions) -> AnyPlan:
    """What the PiToMe repository runs as DCT. It differs from `dct` in this:

    - nothing is scaled, so that amplitudes grow by sqrt(T / T') in every layer;
    - the result is rounded to half precision (merge.py:90; here not in float64);
    - ceil(T q) of the T tokens are kept;
    - on MAE the class token is filtered like a patch (patch/mae.py; in float32 their code fails there);
    - BLIP-2 filters between attention and MLP; text filters in the first three layers;
    - padding is filtered like any other token and leaves none.

    A layer with nothing to remove returns its tokens as they are; theirs rounds them.
    """
    return _plan(tokens, remove, 1.0, torch.float16)
