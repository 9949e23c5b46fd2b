"""Gemma 3: SigLIP; square cells of patches are averaged to the tokens of the language model."""

from __future__ import annotations

from typing import Any

from pitome.adapters.transformers.tower_scores import ReadableFamily


class Gemma3(ReadableFamily):
    name = "Gemma 3"

    def cells(self, model: Any) -> int:
        return int(model.base_model.multi_modal_projector.kernel_size)


FAMILY = Gemma3()
