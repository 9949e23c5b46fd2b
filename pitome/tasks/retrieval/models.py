"""Models of task=retrieval, by their `arch`."""

from __future__ import annotations

from pitome.config import ModelConfig
from pitome.tasks.built import Built
from pitome.tasks.retrieval.blip import ImageTextMatching, build_blip
from pitome.tasks.retrieval.checks import BLIP_ARCHS
from pitome.tasks.retrieval.clip import ImageText, build_clip


def build_retrieval_model(
    config: ModelConfig, weights: str = "pretrained", key: str | None = None
) -> Built[ImageText | ImageTextMatching]:
    """Build a model for retrieval: `encode_image` [B, C, H, W] -> [B, D], or [B, Q, D] where an image
    has several features; `encode_text` captions -> [T, D]. See `build_blip` and `build_clip`."""
    if config.arch in BLIP_ARCHS:
        return build_blip(config, weights, key)
    return build_clip(config, weights, key)
