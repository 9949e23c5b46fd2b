"""Gemma 3."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Gemma3(Family):
    name = "Gemma 3"


FAMILY = Gemma3()
