"""LLaVA-OneVision."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class OneVision(Family):
    name = "LLaVA-OneVision"


FAMILY = OneVision()
