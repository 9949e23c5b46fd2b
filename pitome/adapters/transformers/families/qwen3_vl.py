"""Qwen3-VL."""

from __future__ import annotations

from typing import Any

from pitome.adapters.transformers.families import Family


class Qwen3(Family):
    name = "Qwen3-VL"
    least_layer_reason = "features of the image tower are added to its image tokens after each layer before"

    def least_layer(self, model: Any) -> int:
        return max(len(model.config.vision_config.deepstack_visual_indexes), 1)


FAMILY = Qwen3()
