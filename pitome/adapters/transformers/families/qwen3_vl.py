"""Qwen3-VL: patches of all images in one row, cell by cell; cells of patches become one token."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor, nn

from pitome.adapters.core import _wide, mean_of_heads
from pitome.adapters.transformers.families import Family
from pitome.adapters.transformers.tower_scores import ReadTower, _received


class ReadInputs(ReadTower):
    """Hook before the attention of the tower: keeps how places rotate it and where each image ends."""

    def __init__(self, places: Any) -> None:
        super().__init__(places, "")

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        read = self.places.read
        read["tower cos"], read["tower sin"] = kwargs["position_embeddings"]
        read["tower ends"] = kwargs["cu_seqlens"]


class Qwen3(Family):
    name = "Qwen3-VL"
    least_layer_reason = "features of the image tower are added to its image tokens after each layer before"

    def least_layer(self, model: Any) -> int:
        return max(len(model.config.vision_config.deepstack_visual_indexes), 1)

    def _attention(self, model: Any) -> Any:
        return model.base_model.visual.blocks[-1].attn

    def check(self, model: Any) -> None:
        """It can be read."""

    def attach(self, model: Any, places: Any) -> None:
        attention = self._attention(model)
        attention.register_forward_pre_hook(ReadInputs(places), with_kwargs=True)
        attention.qkv.register_forward_hook(ReadTower(places, "qkv"))

    def scores(
        self, model: Any, read: Mapping[str, Tensor], needs: AbstractSet[str]
    ) -> dict[str, list[Tensor]]:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

        if not read:
            return {name: [] for name in needs & {"received", "keys"}}
        attention, cell = self._attention(model), model.config.vision_config.spatial_merge_size**2
        query, keys, _ = read["tower qkv"].unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
        rotated = apply_rotary_pos_emb_vision(query, keys, read["tower cos"], read["tower sin"])
        counts = read["tower ends"].diff().tolist()
        found: dict[str, list[Tensor]] = {name: [] for name in needs & {"received", "keys"}}
        parts = (part.to(_wide(part)).transpose(0, 1).split(counts, dim=1) for part in rotated)
        for queries, own in zip(*parts, strict=True):  # [H, P, D] of an image's patches
            if "received" in found:
                received = _received(queries, own, attention.scaling, None, None)
                found["received"].append(received.unflatten(0, (-1, cell)).mean(dim=1))
            if "keys" in found:
                found["keys"].append(mean_of_heads(own[None])[0].unflatten(0, (-1, cell)).mean(dim=1))
        return found


FAMILY = Qwen3()
