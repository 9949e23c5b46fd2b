"""LLaVA-1.5."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Llava15(Family):
    name = "LLaVA-1.5"


FAMILY = Llava15()
