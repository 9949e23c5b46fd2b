"""What methods read in an image tower: the attention its tokens get in one layer, and their keys.

Where tokens merge in the tower, an image's tokens share what their group gets, if all of them go on.
Computed beside the layer's own attention from its queries and keys: one row of the map where there is a class
token, else the mean over all rows, image by image. Nothing is switched to another kind of attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

from pitome.adapters.core import Capture, _log_size, _wide, class_attention, mean_of_heads
from pitome.adapters.transformers.families import Family
from pitome.errors import UnsupportedModelError


class ReadTower(Capture):
    """Hook after a projection of the tower: keeps its output [T, N, H * D]."""

    def __init__(self, places: Any, name: str) -> None:
        self.places, self.name = places, f"tower {name}"

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.places.read[self.name] = output.detach()


class ReadableFamily(Family):
    """A family whose tower has attentions with q_proj and k_proj, over a square grid of patches in rows."""

    class_token = False  # whether the first token of the tower is one, which the language model is not given
    cell = 1  # patches along each side that become one token of the language model

    def tower(self, model: Any) -> Any:
        return model.base_model.vision_tower

    def layer(self, model: Any) -> int:
        """The layer whose attention counts: the one whose output is taken."""
        return -1

    def cells(self, model: Any) -> int:
        return self.cell

    def _attention(self, model: Any) -> Any:
        parts = self.tower(model).modules()
        attentions = [part for part in parts if {"q_proj", "k_proj"} <= part._modules.keys()]
        if not attentions:
            raise UnsupportedModelError(
                f"the image tower of this {type(model).__name__} has no attention with q_proj and k_proj, by "
                "which this method ranks tokens; use divprune, random, stride or pool"
            )
        return attentions[self.layer(model)]

    def check(self, model: Any) -> None:
        self._attention(model)

    def attach(self, model: Any, places: Any) -> None:
        attention = self._attention(model)
        for name in ("q_proj", "k_proj"):
            attention._modules[name].register_forward_hook(ReadTower(places, name))

    def scores(
        self, model: Any, read: Mapping[str, Tensor], needs: AbstractSet[str]
    ) -> dict[str, list[Tensor]]:
        if not read:
            return {name: [] for name in needs & {"received", "keys"}}
        attention = self._attention(model)
        parts = []
        for name in ("q", "k"):
            value = read[f"tower {name}_proj"]
            if hasattr(attention, f"{name}_norm"):
                value = getattr(attention, f"{name}_norm")(value)
            value = value.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            parts.append(value.to(_wide(value)))
        query, keys = parts
        state, entry, size = self._merged(model)
        bias = None if size is None or not state.options.prop_attn else _log_size(size)
        found: dict[str, list[Tensor]] = {}
        if "received" in needs:
            if self.class_token:
                received = class_attention(query[:, :, :1], keys, bias, attention.scale)
            else:
                received = torch.stack(
                    [
                        _received(
                            query[image],
                            keys[image],
                            attention.scale,
                            None if bias is None else bias[image],
                            None if size is None else size[image],
                        )
                        for image in range(len(query))
                    ]
                )
            if state is not None and state.dense and bias is not None:
                received = received / size.clamp_min(1)
            found["received"] = self._rows(
                model, self._whole(received[..., None], state, entry), squeeze=True
            )
        if "keys" in needs:
            found["keys"] = self._rows(model, self._whole(mean_of_heads(keys), state, entry))
        return found

    def _merged(self, model: Any) -> tuple[Any, int, Any]:
        """Of a tower whose layers merge: its state, the entry of its lists that holds the tokens which the
        attention read here has, and their sizes [T, N]; None for what there is not."""
        from pitome.adapters.patch import tower_patch

        if (handle := tower_patch(model)) is None:
            return None, 0, None
        state = handle.state
        first = str(state.options.position) == "before_attention"
        entry = self.layer(model) % handle.schedule.depth + first
        return state, entry, state.current().size[entry]

    def _whole(self, values: Tensor, state: Any, entry: int) -> Tensor:
        """Values [T, N, D] of merged tokens for all tokens of the tower, if the model is given these."""
        return state.unmerge(values, entry) if state is not None and state.dense else values

    def _rows(self, model: Any, values: Tensor, squeeze: bool = False) -> list[Tensor]:
        """Values [T, N, D] of the tower's tokens as those of each image's tokens [n, D]: means over cells."""
        values = values[:, int(self.class_token) :]
        if (cell := self.cells(model)) > 1:
            side = round(values.shape[1] ** 0.5)
            grid = values.unflatten(1, (side // cell, cell, side // cell, cell))
            values = grid.mean(dim=(2, 4)).flatten(1, 2)
        return list(values[..., 0] if squeeze else values)


def _received(query: Tensor, keys: Tensor, scale: float, bias: Tensor | None, size: Tensor | None) -> Tensor:
    """Attention that each of the tokens [H, N, D] of one image gets, mean over heads and tokens: [N].
    bias [N] is added to the logits; a token counts `size` [N] times."""
    logits = (query * scale) @ keys.mT
    rows = (logits if bias is None else logits + bias).softmax(dim=-1)
    if size is None:
        return rows.mean(dim=(0, 1))
    return (size / size.sum()).to(rows.dtype) @ rows.mean(dim=0)
