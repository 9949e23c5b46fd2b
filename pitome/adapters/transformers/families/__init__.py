"""Families of vision-language models, one file each, named after transformers' `model_type`.

A file says what is special to its family: FAMILY, a `Family`. All of them share `places.py`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor, nn

from pitome.errors import UnsupportedModelError


class Family:
    """What is special to a family; this class knows what most have in common."""

    name: str  # as people know it
    first_position = 0  # of a prompt
    least_layer_reason = ""  # why `least_layer` may be above 1

    def decoder(self, model: Any) -> Any:
        """The language model without its head."""
        return model.get_decoder()

    def least_layer(self, model: Any) -> int:
        """The first layer of the language model before which tokens may be taken out."""
        return 1

    def images(self, model: Any, pooled: Any) -> list[Tensor]:
        """The features [n, C] of each image (of each tile where the tower hands on tiles of images
        apart), in the order of their placeholders."""
        return list(pooled)

    def filler(self, ids: Tensor, image: Tensor) -> int:
        """A token id for padding: anything but a placeholder."""
        text = ids[~image]
        return int(text[0]) if len(text) else 0

    def tower_attention(self, model: Any) -> nn.Module | None:
        """The attention of the layer whose scores rank image tokens; None where it cannot be read yet."""
        return None

    def attach(self, model: Any, places: Any) -> None:
        """Have the tower leave what `scores` reads."""
        raise NotImplementedError

    def check(self, model: Any) -> None:
        """Raise UnsupportedModelError where the attention of the tower cannot be read."""
        raise UnsupportedModelError(
            f"the attention of the image tower of {self.name} cannot be read, which this method ranks tokens "
            "by; use divprune, random, stride or pool"
        )

    def scores(
        self, model: Any, read: Mapping[str, Tensor], needs: AbstractSet[str]
    ) -> dict[str, list[Tensor]]:
        """`received` [n] and `keys` [n, D] of the tokens of every image, as far as `needs` names them, from
        what the hooks of `attach` left in `read`. Raises UnsupportedModelError."""
        raise NotImplementedError

    def grid(self, model: Any, given: Mapping[str, Any], count: int) -> tuple[int, int]:
        """Rows and columns of the `count` tokens of an image. Raises UnsupportedModelError."""
        side = round(count**0.5)
        if side * side != count:
            raise UnsupportedModelError(
                f"the {count} tokens of an image of {self.name} form no square grid, which this method needs"
            )
        return side, side


@functools.cache
def known() -> tuple[str, ...]:
    """The `model_type` of every family, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def family_of(model_type: str) -> Family:
    """The family of models of a `model_type` of `known()`."""
    family: Family = importlib.import_module(f"{__name__}.{model_type}").FAMILY
    return family


def names() -> str:
    """All families, for messages."""
    return ", ".join(family_of(name).name for name in known())
