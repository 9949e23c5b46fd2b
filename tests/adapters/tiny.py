"""Tiny timm vision transformers with weights large enough for attention to be uneven."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import pitome
from pitome.merge.fast_path import BEFORE_2_7

torch.set_num_threads(1)

PATCH = 4

ONNX_SORTS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
"""Whether torch's exporter can translate a stable sort: 2.6 and 2.7 cannot."""

GRAPH_ATOL = 1e-6 if BEFORE_2_7 else 0.0
"""How far a graph may be from eager mode: with torch 2.6 rows are added by a product (fast_path.py)."""


def vit(grid: tuple[int, int] = (3, 5), depth: int = 4, dim: int = 16, seed: int = 0, **kwargs: Any) -> Any:
    """A model of `grid` patches (3 x 5, so that 16 tokens enter) in eval mode; seeded weights."""
    size = (grid[0] * PATCH, grid[1] * PATCH)
    settings = {"num_heads": 2, "num_classes": 7, "mlp_ratio": 2.0, "in_chans": 1, "weight_init": "skip"}
    model = VisionTransformer(
        img_size=size, patch_size=PATCH, embed_dim=dim, depth=depth, **{**settings, **kwargs}
    )
    return randomise(model, seed)


def randomise(model: Any, seed: int = 0) -> Any:
    """The model in eval mode with seeded weights of the size of its widths."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("weight") and parameter.ndim == 1:  # norms
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1))
    return model.eval()


def mae(**kwargs: Any) -> Any:
    """The same with the mean of the patch tokens as output, as MAE's classifiers have it."""
    return vit(**{"global_pool": "avg", "fc_norm": True, **kwargs})


def images(model: Any, batch: int = 2, seed: int = 1, size: tuple[int, int] | None = None) -> Tensor:
    """Noise images [B, C, H, W] of the size the model was built for."""
    shape = (batch, model.in_chans, *(size or model.patch_embed.img_size))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patch(model: Any, method: str, **how: Any) -> pitome.Patched:
    """`pitome.patch`; a preset without a row for the family of these models as if they were CLIP's."""
    try:
        return pitome.patch(model, method, **how)
    except pitome.errors.UsageError:
        if method != "mctf_repo":
            raise
        return pitome.patch(model, method, family="clip", **how)
