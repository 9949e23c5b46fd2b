"""LLaVA-NeXT."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class LlavaNext(Family):
    name = "LLaVA-NeXT"


FAMILY = LlavaNext()
