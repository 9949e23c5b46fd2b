"""ImageNet-1k (Russakovsky et al., 2015): tested on its validation set, 50,000 images of 1,000 classes.

Every image is kept. (The authors' evaluation leaves images without three channels out: 49,101 of
50,000 remain.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pitome.config import DataConfig
from pitome.errors import DataError
from pitome.tasks.classification.files import ImageSet
from pitome.tasks.classification.images import ELSE, ImageData
from pitome.tasks.data import Preprocess


@lru_cache
def synsets() -> dict[str, int]:
    """WordNet ids of the 1,000 classes, sorted, which is their label: n01440764 is 0."""
    from timm.data import ImageNetInfo

    return {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


class ImageNet(ImageData):
    """On the hub it is gated. Raises DataError for a model that does not take colour images."""

    def __init__(self, config: DataConfig, preprocess: Preprocess, batch_size: int, **how: Any) -> None:
        if how.get("source") == "package":
            raise DataError(f"no package holds imagenet; log in to the hub (`hf auth login`), {ELSE}")
        if preprocess.channels != 3:
            raise DataError(
                f"imagenet has colour images, the model expects {preprocess.channels} channel; choose another"
            )
        kind = ImageSet(
            name="imagenet",
            labels=synsets(),
            splits={"test": ("val", "validation"), "train": ("train",)},
            pattern="data/{}-*.parquet",
            named="an ImageNet-1k class",
            example="<WordNet id>/*.JPEG (n01440764 ...)",
        )
        super().__init__(config, preprocess, batch_size, kind=kind, **how)
