"""Mistral 3."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Mistral3(Family):
    name = "Mistral 3"


FAMILY = Mistral3()
