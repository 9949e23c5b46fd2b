"""SmolVLM, which is Idefics 3 with a smaller tower."""

from __future__ import annotations

from pitome.adapters.transformers.families.idefics3 import Idefics3


class SmolVlm(Idefics3):
    name = "SmolVLM"


FAMILY = SmolVlm()
