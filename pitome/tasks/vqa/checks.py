"""Checks of visual question answering. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pitome.config import Config
from pitome.errors import UsageError
from pitome.sources.llava_family import check_arch
from pitome.sources.weights import Weights
from pitome.sources.weights_folder import find_model
from pitome.tasks.checks import Checks
from pitome.tasks.vqa.benchmarks import check_options


class VqaChecks(Checks):
    options = ("positions", "device_map")
    training = ("workers", "questions", "flip")
    half_weights = True

    def check(self, config: Config) -> None:
        check_arch(config.model.arch)
        prompt = config.model.args.get("prompt", "")
        if "{question}" not in prompt or "<image>" not in prompt:
            raise UsageError("model.args.prompt must hold <image> and {question}")
        check_options(config.data.name, config.data.split, config.data.ocr)
        one_file = config.weights == "random" or Path(config.weights or "").is_file()
        if config.task.device_map is not None and (config.mode == "train" or one_file):
            raise UsageError(
                "task.device_map=auto is for testing models of the hub or of a folder, weights=FOLDER"
            )

    def weights(self, config: Config, name: str) -> Weights:
        return find_model(config.model.name, config.model.checkpoint, name)


CHECKS = VqaChecks()
