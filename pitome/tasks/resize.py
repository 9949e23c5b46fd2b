"""Weights of an image tower for patches or images of another size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def fit_tower(
    state: Mapping[str, Tensor],
    model: nn.Module,
    *,
    positions: str,
    patches: str | tuple[str, ...] | None = None,
    prefix: int = 1,
    grid: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Resize position and, if named, patch embeddings of `state` to the image tower of `model` (timm's
    resampling); whatever else does not fit is left as it is.

    patches, positions: how the names of the embeddings [D, C, p, p] or [D, C, T, p, p], and [..., P + N, D],
    end, whatever stands in front of them; prefix: P tokens before a square grid of N; grid: of `model`,
    square if None.
    """
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    wanted, out = model.state_dict(), dict(state)
    for key, value in state.items():
        if key not in wanted or value.shape == wanted[key].shape or value.ndim != wanted[key].ndim:
            continue
        shape = wanted[key].shape
        if patches is not None and key.endswith(patches):
            flat = value.flatten(1, -3)  # frames as more channels
            out[key] = resample_patch_embed(flat, list(shape[-2:])).reshape(shape)
        elif key.endswith(positions) and math.isqrt(n := max(value.shape[-2] - prefix, 0)) ** 2 == n:
            sides = grid or [math.isqrt(shape[-2] - prefix)] * 2
            rows = value.reshape(1, *value.shape[-2:])
            resized = resample_abs_pos_embed(rows, list(sides), num_prefix_tokens=prefix)
            out[key] = resized.reshape(*value.shape[:-2], *resized.shape[-2:])
    return out
