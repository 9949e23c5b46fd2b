"""Checks of visual question answering. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pitome.config import DEFAULT_RATIO, Config, DataConfig, MergeConfig, choices, find_choice
from pitome.errors import UsageError, nearest
from pitome.fields import decode
from pitome.merge.schedule import check_layer
from pitome.records.identity import UNMERGED
from pitome.sources.folders import check_root
from pitome.sources.llava_family import MISSING, check_arch
from pitome.sources.weights import Weights
from pitome.sources.weights_folder import find_model
from pitome.sources.yaml_files import read_yaml
from pitome.tasks.checks import Checks
from pitome.tasks.tables import check_tables
from pitome.tasks.vqa.benchmarks import BENCHMARKS, check_options


class VqaChecks(Checks):
    options = ("positions", "device_map", "tower", "tower_ratio")
    training = ("workers", "questions", "flip")
    half_weights = True
    data_options = ("split", "max_pixels", "exif", "ocr", "instruction")
    data_sets = BENCHMARKS
    classified = False
    after_tower = True

    def check(self, config: Config) -> None:
        check_arch(config.model.arch)
        prompt = config.model.args.get("prompt", "")
        if "{question}" not in prompt or "<image>" not in prompt:
            raise UsageError("model.args.prompt must hold <image> and {question}")
        check_options(config.data.name, config.data.split, config.data.ocr)
        if config.data.instruction is not None and not self.is_custom(config.data):
            raise UsageError(
                f"data.instruction is for questions of your own, not for data={config.data.name}"
            )
        one_file = config.weights == "random" or Path(config.weights or "").is_file()
        if config.task.device_map is not None and (config.mode == "train" or one_file):
            raise UsageError(
                "task.device_map=auto is for testing models of the hub or of a folder, weights=FOLDER"
            )
        _check_places(config)

    def check_files(self, data: DataConfig, *, train: bool) -> None:
        if data.name not in BENCHMARKS and data.root is not None:
            check_tables(check_root(data.root), ("image", "question", "answers"))

    def weights(self, config: Config, name: str) -> Weights:
        return find_model(config.model.name, config.model.checkpoint, name, config.model.arch)


def _check_places(config: Config) -> None:
    """What the model's settings say of its image tower and of the places after it. Raises UsageError."""
    model = config.model
    vision, text = (model.args.get(part) or {} for part in ("vision_config", "text_config"))
    if model.arch in MISSING and config.keep is None and config.merge.name != UNMERGED:
        raise UsageError(
            f"merge={config.merge.name} cannot merge inside the tower of model={model.name}: "
            f"{MISSING[model.arch]}; give keep= and a method for after it"
        )
    trains = config.mode == "train" and model.data is not None
    if model.arch in MISSING and config.mode != "test" and not trains:
        whose = "LLaVA-1.5 alone" if config.mode == "search" else "small models of this project"
        raise UsageError(f"mode={config.mode} is for {whose}, not for model={model.name}")
    if config.trainer.flip and config.mode == "train" and config.data.name == "scenes_qa":
        raise UsageError(
            "trainer.flip=true mirrors images, and scenes_qa asks what is left and right; leave it out"
        )
    _check_tower(config)
    size, patch, count = vision.get("image_size"), vision.get("patch_size"), None
    if model.arch in MISSING:
        size = model.preprocess.size if model.preprocess is not None else None
        if isinstance(patch, int):
            patch *= vision.get("spatial_merge_size", 2)
            if size is None or size % patch:
                raise UsageError(
                    f"model.preprocess.size={size} is no multiple of {patch}, the pixels along a cell of "
                    f"patches that model={model.name} joins"
                )
    if isinstance(size, int) and isinstance(patch, int) and 0 < patch <= size:
        count = (size // patch) ** 2
        count += model.args.get("vision_feature_select_strategy", "default") != "default"
    if count is not None and type(config.keep) is int and config.keep > count:
        raise UsageError(
            f"keep={config.keep} is more than the {count} tokens of an image in model={model.name}; "
            "give fewer, or a share"
        )
    layer, depth = config.merge.options.get("layer"), text.get("num_hidden_layers")
    if "language" in config.merge.places and isinstance(layer, int) and isinstance(depth, int):
        check_layer(layer, depth)


def _check_tower(config: Config) -> None:
    """The method that merges in the tower beside one after it. Raises UsageError."""
    name, model, ratio = config.task.tower, config.model, config.task.tower_ratio
    if name is None:
        if ratio != DEFAULT_RATIO:
            raise UsageError(f"task.tower_ratio={ratio:g} goes with task.tower=NAME, e.g. task.tower=pitome")
        return
    if not _in_tower(name):
        why = "is not known" if name not in choices("merge") else "does not merge in the layers of a tower"
        fitting = [method for method in choices("merge") if _in_tower(method)]
        raise UsageError(f"task.tower={name} {why}; {nearest(name, fitting)}")
    if config.keep is None:
        raise UsageError(
            f"task.tower={name} goes with keep= and a method after the tower; in the tower alone merges "
            f"merge={name} ratio={ratio:g}"
        )
    if model.arch in MISSING:
        raise UsageError(
            f"task.tower={name} cannot merge inside the tower of model={model.name}: {MISSING[model.arch]}"
        )


def _in_tower(method: str) -> bool:
    """Whether a method of conf/merge merges in the layers of a tower."""
    path = find_choice("merge", method)
    return path is not None and method != UNMERGED and "tower" in decode(MergeConfig, read_yaml(path)).places


CHECKS = VqaChecks()
