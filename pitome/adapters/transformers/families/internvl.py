"""InternVL: a tower with a class token; 2 x 2 patches become one token by a pixel shuffle."""

from __future__ import annotations

from typing import Any

from pitome.adapters.transformers.tower_scores import ReadableFamily


class InternVL(ReadableFamily):
    name = "InternVL"
    class_token = True

    def cells(self, model: Any) -> int:
        return int(1 / model.config.downsample_ratio)


FAMILY = InternVL()
