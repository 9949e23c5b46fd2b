"""Models of task=retrieval, by their `arch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitome.tasks.built import Built
from pitome.tasks.retrieval import blip, clip


def build(config: Mapping[str, Any], weights: str = "pretrained", key: str | None = None) -> Built:
    """Build a model for retrieval: `encode_image` [B, C, H, W] -> [B, D], or [B, Q, D] where an image
    has several features; `encode_text` captions -> [T, D]. See `blip.build` and `clip.build`."""
    builder = blip.build if config["arch"] in blip.ARCHS else clip.build
    return builder(config, weights, key)
