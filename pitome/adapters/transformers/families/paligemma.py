"""PaliGemma."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class PaliGemma(Family):
    name = "PaliGemma"
    first_position = 1


FAMILY = PaliGemma()
