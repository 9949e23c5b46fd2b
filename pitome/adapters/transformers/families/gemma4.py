"""Gemma 4."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Gemma4(Family):
    name = "Gemma 4"


FAMILY = Gemma4()
