"""Checks of retrieval. Imports no torch."""

from __future__ import annotations

from pitome.config import Config, DataConfig
from pitome.errors import UsageError
from pitome.sources.folders import check_root
from pitome.tasks.checks import Checks
from pitome.tasks.retrieval.sets import NAMES
from pitome.tasks.tables import check_tables

BLIP_ARCHS = ("blip", "blip-2")


class RetrievalChecks(Checks):
    options = ("rerank",)
    training = ("workers",)
    data_options = ("max_pixels", "exif")
    data_sets = NAMES
    classified = False

    def check(self, config: Config) -> None:
        arch = config.model.arch
        if config.mode != "train":
            return
        if arch == "blip-2" or "SigLIP" in arch:  # SigLIP has another loss
            raise UsageError(
                f"model={config.model.name} is tested as published, training is for CLIP and BLIP; "
                "use mode=test, or one of them"
            )
        if arch == "blip" and config.devices > 1:
            raise UsageError(f"devices={config.devices}: BLIP is trained on one device; leave devices out")
        if arch == "blip" and any(stage.patch_size is not None for stage in config.trainer.stages):
            raise UsageError(
                "BLIP is trained with its own patches; give trainer=flickr30k_blip, coco_blip, or stages "
                "without patch_size"
            )

    def check_files(self, data: DataConfig, *, train: bool) -> None:
        if data.name not in NAMES and data.root is not None:
            check_tables(check_root(data.root), ("image", "caption"))


CHECKS = RetrievalChecks()
