"""Qwen2.5-VL and Qwen3-VL from transformers: images and questions to answers, prompt and cost as of LLaVA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pitome.tasks.vqa.llava import Llava

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QwenVl(Llava):
    """transformers' `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration` with its
    tokenizer and prompt.

    Its tower joins each cell of 2 x 2 patches into one token at its end, so nothing merges inside it; what
    `pitome.patch` takes are the places after it. Images are squares of `size` pixels, each as often in the
    tower as it is asked about.
    """

    tower_merges = False

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, template: str, size: int
    ) -> None:
        super().__init__(model, tokenizer, template)
        self.size = size

    @property
    def image_tower(self) -> nn.Module:
        """Patches [P, D] and the grid of each image -> transformers' output, its merger's included."""
        tower: nn.Module = self.model.model.visual
        return tower

    @property
    def image_rows(self) -> int:
        """Placeholders of one image: its cells."""
        return self.unmerged_rows

    @property
    def unmerged_rows(self) -> int:
        vision = self.model.config.vision_config
        return int((self.size // (vision.patch_size * vision.spatial_merge_size)) ** 2)

    def encoded(self, images: Tensor) -> Any:
        """Images [I, C, H, W] -> transformers' output, that of several layers of the tower included where the
        family reads them."""
        return self.model.get_image_features(**self._patches(images), return_dict=True)

    def places_of(self, prompt: Sequence[int]) -> Tensor:
        """Time, row and column [3, N] in the language model of the token ids of a prompt about one image."""
        ids = torch.tensor([list(prompt)])
        grid = self._grid(1, ids.device)
        kinds = self._kinds(ids)["mm_token_type_ids"]
        positions: Tensor = self.model.model.get_rope_index(ids, kinds, image_grid_thw=grid)[0]
        return positions[:, 0]

    def _seen(
        self, images: Tensor, order: Sequence[int], ids: Sequence[Sequence[int]], keep_positions: bool
    ) -> dict[str, Any]:
        # Positions, of three kinds, are the model's own; a patch says which of them stay.
        return self._patches(images[list(order)])

    def _kinds(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.model.config.image_token_id).int()}

    def _patches(self, images: Tensor) -> dict[str, Tensor]:
        vision = self.model.config.vision_config
        pixels = patches(
            images.to(next(self.image_tower.parameters()).dtype),
            vision.patch_size,
            vision.spatial_merge_size,
            vision.temporal_patch_size,
        )
        grid = self._grid(len(images), images.device)
        return {"pixel_values": pixels.flatten(0, 1), "image_grid_thw": grid}

    def _grid(self, images: int, device: torch.device) -> Tensor:
        side = self.size // self.model.config.vision_config.patch_size
        return torch.tensor([[1, side, side]] * images, device=device)


def patches(images: Tensor, patch: int, cell: int, frames: int) -> Tensor:
    """Images [I, C, H, W] as the tower takes them, [I, H/p * W/p, C * frames * p * p]: the patches of a cell
    of `cell` x `cell` one after the other, every image as `frames` equal frames."""
    count, channels, height, width = images.shape
    rows, columns = height // (patch * cell), width // (patch * cell)
    parts = images.view(count, channels, rows, cell, patch, columns, cell, patch)
    parts = parts.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [I, rows, columns, cell, cell, C, p, p]
    parts = parts.unsqueeze(6).expand(*parts.shape[:6], frames, patch, patch)
    return parts.reshape(count, rows * columns * cell**2, channels * frames * patch**2)
