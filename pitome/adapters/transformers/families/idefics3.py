"""Idefics 3: a list of tiles for each prompt, all of one size; cells of patches become one token."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pitome.adapters.transformers.tower_scores import ReadableFamily


class Idefics3(ReadableFamily):
    name = "Idefics 3"

    def tower(self, model: Any) -> Any:
        return model.base_model.vision_model

    def cells(self, model: Any) -> int:
        return int(model.config.scale_factor)

    def images(self, model: Any, pooled: Any) -> list[Tensor]:
        vision = model.config.vision_config
        tile = (vision.image_size // vision.patch_size) ** 2 // model.config.scale_factor**2
        return [part for sample in pooled for part in sample.split(tile)]


FAMILY = Idefics3()
