"""Checks of text classification. Imports no torch."""

from __future__ import annotations

from pitome.config import Config, DataConfig
from pitome.errors import UsageError, nearest
from pitome.sources.folders import check_root
from pitome.sources.weights import Weights, find_text_weights
from pitome.tasks.checks import Checks
from pitome.tasks.text.sets import SETS, text_set
from pitome.tasks.text.split import text_split

SCHEDULES = ("linear", "plateau")


class TextChecks(Checks):
    training = ("smoothing", "lora", "distill")
    data_options = ("split",)
    data_sets = SETS

    def check(self, config: Config) -> None:
        trainer = config.trainer
        if text_split(config) == "official" and config.source == "package":
            raise UsageError(
                f"source=package holds no official split of data={config.data.name}; use data.split=hash, "
                "where the weights have not seen its texts, or another source"
            )
        if config.mode != "train":
            return
        if trainer.schedule not in SCHEDULES:
            raise UsageError(
                f"trainer.schedule={trainer.schedule} is not known; {nearest(trainer.schedule, SCHEDULES)}"
            )
        if trainer.stages and (len(trainer.stages) != 1 or trainer.stages[0].patch_size is not None):
            raise UsageError("task=text trains in one stage without a patch_size; correct trainer.stages")

    def weights(self, config: Config, name: str) -> Weights:
        entry = config.model.checkpoints.get(config.data.name)
        source = None if entry is None else entry.source
        return find_text_weights(config.model.name, config.data.name, source, name)

    def check_files(self, data: DataConfig, *, train: bool) -> None:
        if not data.classes or data.root is None:
            return
        from pitome.tasks.text.files import find_files

        find_files(check_root(data.root), text_set(data.name, data.classes))


CHECKS = TextChecks()
