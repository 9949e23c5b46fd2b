"""PaliGemma: SigLIP; positions begin at 1, and the prompt is read in both directions."""

from __future__ import annotations

from pitome.adapters.transformers.tower_scores import ReadableFamily


class PaliGemma(ReadableFamily):
    name = "PaliGemma"
    first_position = 1


FAMILY = PaliGemma()
