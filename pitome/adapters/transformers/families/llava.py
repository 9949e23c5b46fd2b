"""LLaVA-1.5: CLIP, whose class token is not handed on."""

from __future__ import annotations

from typing import Any

from pitome.adapters.transformers.llava import feature_entry
from pitome.adapters.transformers.tower_scores import ReadableFamily


class Llava15(ReadableFamily):
    name = "LLaVA-1.5"
    class_token = True

    def layer(self, model: Any) -> int:
        return feature_entry(model.config) - 1


FAMILY = Llava15()
