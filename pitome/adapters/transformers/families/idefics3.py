"""Idefics 3: a list of tiles for each prompt, all of one size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pitome.adapters.transformers.families import Family


class Idefics3(Family):
    name = "Idefics 3"

    def images(self, model: Any, pooled: Any) -> list[Tensor]:
        vision = model.config.vision_config
        tile = (vision.image_size // vision.patch_size) ** 2 // model.config.scale_factor**2
        return [part for sample in pooled for part in sample.split(tile)]


FAMILY = Idefics3()
