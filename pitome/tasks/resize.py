"""Weights of an image tower for patches of another size."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def fit_tower(
    state: Mapping[str, Tensor], model: nn.Module, *, patches: str, positions: str
) -> dict[str, Tensor]:
    """Resize patch and position embeddings of `state` to the image tower of `model` (timm's
    resampling).

    patches, positions: how the names of the embeddings [D, C, p, p] and [1 + N, D] end, whatever stands
    in front of them; grids are square, after one class token.
    """
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    own, out = model.state_dict(), dict(state)
    for key, value in state.items():
        if key not in own or value.shape == own[key].shape:
            continue
        if key.endswith(patches):
            out[key] = resample_patch_embed(value, list(own[key].shape[-2:]))
        elif key.endswith(positions):
            side = round((own[key].shape[0] - 1) ** 0.5)
            out[key] = resample_abs_pos_embed(value[None], [side, side], num_prefix_tokens=1)[0]
    return out
