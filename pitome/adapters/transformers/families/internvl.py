"""InternVL."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class InternVL(Family):
    name = "InternVL"


FAMILY = InternVL()
