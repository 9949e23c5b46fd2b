"""Checks of retrieval. Imports no torch."""

from __future__ import annotations

from pitome.config import Config
from pitome.errors import UsageError
from pitome.tasks.checks import Checks

BLIP_ARCHS = ("blip", "blip-2")


class RetrievalChecks(Checks):
    options = ("rerank",)
    training = ("workers",)

    def check(self, config: Config) -> None:
        arch = config.model.arch
        if config.mode == "train" and (arch in BLIP_ARCHS or "SigLIP" in arch):  # SigLIP has another loss
            raise UsageError(
                f"model={config.model.name} is tested as published, training is for the CLIP models; "
                "use mode=test, or one of them"
            )


CHECKS = RetrievalChecks()
