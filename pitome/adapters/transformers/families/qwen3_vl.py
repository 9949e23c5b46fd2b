"""Qwen3-VL."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Qwen3(Family):
    name = "Qwen3-VL"
    least_layer = 3
    least_layer_reason = "features of the image tower are added to its image tokens after each layer before"


FAMILY = Qwen3()
