"""Tiny image towers and CLIP models of open_clip, with weights large enough for attention to be uneven."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor

from tests.adapters.tiny import randomise

VISION = {
    "layers": 4,
    "width": 16,
    "head_width": 8,
    "mlp_ratio": 2.0,
    "patch_size": 4,
    "image_size": [12, 20],
}
TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}


def tower(seed: int = 0, **kwargs: Any) -> Any:
    """A tower of 3 x 5 patches (16 tokens) in eval mode; seeded weights."""
    settings = {"image_size": (12, 20), "patch_size": 4, "width": 16, "layers": 4, "heads": 2}
    return randomise(VisionTransformer(**{**settings, "mlp_ratio": 2.0, "output_dim": 6, **kwargs}), seed)


def clip(seed: int = 0, **vision: Any) -> Any:
    """A CLIP of `tower` and a text tower of two blocks."""
    return randomise(CLIP(embed_dim=6, vision_cfg={**VISION, **vision}, text_cfg=TEXT), seed)


def images(batch: int = 2, seed: int = 1, size: tuple[int, int] = (12, 20)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
