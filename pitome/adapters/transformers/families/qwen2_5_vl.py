"""Qwen2.5-VL."""

from __future__ import annotations

from pitome.adapters.transformers.families import Family


class Qwen25(Family):
    name = "Qwen2.5-VL"


FAMILY = Qwen25()
