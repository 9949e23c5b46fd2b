"""Checks of a run that need more than one field, before torch is imported."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pitome.config import (
    CONF,
    DEFAULT_RATIO,
    MODES,
    Amount,
    Config,
    DataConfig,
    MergeConfig,
    ModelConfig,
    TaskConfig,
    choices,
    find_choice,
    task_of,
)
from pitome.errors import UsageError, nearest
from pitome.merge.plugins import reason
from pitome.merge.schedule import check_ratio, check_removal, parse_layers
from pitome.records.identity import UNMERGED
from pitome.sources.folders import check_root, check_source
from pitome.sources.llava_family import check_arch
from pitome.sources.weights import Weights, find_text_weights, find_weights
from pitome.sources.weights_folder import find_model
from pitome.tasks.classification.data import DATA
from pitome.tasks.data import Preprocess
from pitome.tasks.recipe import SCHEDULES
from pitome.tasks.text.sets import SETS
from pitome.tasks.text.split import text_split
from pitome.tasks.vqa.benchmarks import check_options

SOURCES = ("auto", "hub", "local", "package")


TESTED = ("test", "validation")


TEXT_SCHEDULES = ("linear", "plateau")


MEASURES = ("none", "flops", "full")


HEADS = ("classifier", "knn")


CONTROLS = ("resize",)


PRECISIONS = ("32", "64", "16-mixed", "bf16-mixed")


HALVES = ("16-true", "bf16-true")  # of the weights themselves, for models that are large


POSITIONS = ("renumber", "keep")


INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


def validate(config: Config) -> Amount:
    """Check all that text and paths decide and say how much to merge.

    Raises PitomeError (UsageError, DataError, CheckpointError), one line.
    """
    _one_of("source", config.source, SOURCES)
    _one_of("mode", config.mode, MODES)
    _one_of("measure", config.measure, MEASURES)
    halves = HALVES if config.task.name == "vqa" else ()
    _one_of("precision", str(config.precision), (*PRECISIONS, *halves))
    _check_device(config.device)
    _whole("batch_size", config.batch_size, 1)
    if config.limit is not None:
        _whole("limit", config.limit, 1)
    _whole("seed", config.seed, 0)
    _check_fit(config)
    _check_named(config)
    _check_classes(config.data)
    _check_preprocess(config.model)
    _check_head(config)
    _check_control(config)
    _check_rerank(config.task)
    _check_answering(config)
    _check_options(config.merge)
    amount = _amount(config)
    sources = config.data.sources or (["hub", "local"] if config.data.repository else ["local"])
    if config.source != "auto" and config.source not in sources:
        raise UsageError(
            f"data={config.data.name} cannot be had from source={config.source}; "
            f"available: auto, {', '.join(sources)}"
        )
    check_source(config.source, config.data.root)
    if config.task.name == "vqa":
        check_options(config.data.name, config.data.split, config.data.ocr)
    find_any(config)
    if config.task.name == "text":
        _check_text(config)
    elif config.mode == "train":
        _one_of("trainer.schedule", config.trainer.schedule, SCHEDULES)
    if config.mode == "train" and not config.trainer.stages:
        raise UsageError("mode=train needs trainer.stages; choose one of " + ", ".join(choices("trainer")))
    return amount


def find_any(config: Config) -> Weights | None:
    """The weights of a run, as far as text and paths tell; None of a training from random ones.
    Raises CheckpointError."""
    weights, model = config.weights or "pretrained", config.model
    if config.weights_key is not None and weights in ("pretrained", "random"):
        raise UsageError(f"weights_key={config.weights_key} goes with a file, weights=FILE")
    if config.weights is None and config.mode == "train":
        return None
    if config.task.name == "text":
        entry = model.checkpoints.get(config.data.name)
        source = None if entry is None else entry.source
        return find_text_weights(model.name, config.data.name, source, weights)
    find = find_model if config.task.name == "vqa" else find_weights
    return find(model.name, model.checkpoint, weights)


def _check_text(config: Config) -> None:
    split = text_split(config)
    if split == "official" and config.source == "package":
        raise UsageError(
            f"source=package holds no official split of data={config.data.name}; use data.split=hash, "
            "where the weights have not seen its texts, or another source"
        )
    trainer = config.trainer
    if config.mode == "train":
        _one_of("trainer.schedule", trainer.schedule, TEXT_SCHEDULES)
        _whole("trainer.lora.rank", trainer.lora.rank, 0)
        if len(trainer.stages) != 1 or trainer.stages[0].patch_size is not None:
            raise UsageError("task=text trains in one stage without a patch_size; correct trainer.stages")


def import_modules(names: Sequence[str]) -> None:
    """Import a user's own modules, from where Python looks or else the current directory.

    Raises UsageError for one that does not exist, raises or exits.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        if name.endswith(".py") or "/" in name:
            raise UsageError(
                f"imports: {name} is a file; give the name of the module, e.g. imports=[my_method]"
            )
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as problem:  # whatever a user's module does, it is one line
            raise UsageError(f"imports: {name} cannot be imported ({reason(problem)})") from None


def _one_of(key: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{key}={value} is not known; {nearest(str(value), allowed)}")


def _whole(key: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key}={value} is not a whole number >= {least}")


def _check_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (
        ":" in device and (kind != "cuda" or not number.isdigit())
    ):
        raise UsageError(f"device={device} is not known; give auto, cpu, cuda, cuda:0 or mps")


def _check_fit(config: Config) -> None:
    task = config.task.name
    for key, part in (("model", config.model), ("data", config.data)):
        if part.task != task:
            others = [name for name in choices(key) if task_of(key, name) == task]
            raise UsageError(
                f"{key}={part.name} is for task={part.task}, not for task={task}; "
                f"{nearest(part.name, others)}"
            )
    if config.merge.tasks is not None and task not in config.merge.tasks:
        allowed = ", ".join(config.merge.tasks)
        raise UsageError(f"merge={config.merge.name} does not fit task={task}; it is for: {allowed}")


def _check_named(config: Config) -> None:
    """A run is known by the names of its files."""
    for key, part in (("model", config.model), ("data", config.data)):
        if find_choice(key, part.name) is None:
            raise UsageError(
                f"{key}.name={part.name}: there is no conf/{key}/{part.name}.yaml; "
                "the name in a file is that of the file"
            )


def _check_classes(data: DataConfig) -> None:
    """What a set of one's own must say."""
    readers: dict[str, Sequence[str]] = {"classification": list(DATA), "text": list(SETS)}
    known = readers.get(data.task)
    if known is None or data.name in known:
        if data.classes:
            raise UsageError(f"data.classes goes with images or texts of your own, not with data={data.name}")
        return
    if len(data.classes) < 2 or len(set(data.classes)) < len(data.classes):
        raise UsageError(
            f"data={data.name} needs `classes`, the names of two or more classes in the order of their "
            "labels, e.g. classes: [cat, dog]"
        )
    if data.root is None and not data.repository:
        raise UsageError(
            f"data={data.name} has neither root nor repository; say where it is, data.root=FOLDER"
        )
    if data.task == "classification" and data.split is not None:
        _one_of("data.split", data.split, TESTED)


def _check_preprocess(model: ModelConfig) -> None:
    """Of images: what is given must be all that is needed, and of the right kind."""
    given = model.preprocess
    if not given:
        return
    known = [one.name for one in dataclasses.fields(Preprocess) if one.name != "shape"]
    for key in given:
        if key not in known:
            raise UsageError(f"model.preprocess has no key {key}; {nearest(str(key), known)}")
    if missing := [key for key in ("size", "mean", "std") if key not in given]:
        raise UsageError(f"model.preprocess lacks {' and '.join(missing)}; give size, mean and std, or null")
    _whole("model.preprocess.size", given["size"], 1)
    channels = given.get("channels", Preprocess.channels)
    if channels not in (1, 3):
        raise UsageError(f"model.preprocess.channels={channels} is neither 1 nor 3")
    for key, least in (("mean", 0.0), ("std", 1e-6)):
        values = given[key]
        fits = isinstance(values, list) and all(_number(value, least) for value in values)
        if not fits or len(values) != channels:
            raise UsageError(f"model.preprocess.{key}={values} is no list of {channels} numbers up to 1")
    if not _number(share := given.get("crop_pct", 1.0), 1e-6):
        raise UsageError(f"model.preprocess.crop_pct={share} is outside (0, 1]")
    _one_of("model.preprocess.interpolation", given.get("interpolation", "bicubic"), INTERPOLATIONS)


def _number(value: object, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= 1


def _check_head(config: Config) -> None:
    task = config.task
    _one_of("task.head", task.head, HEADS)
    if task.head != "knn":
        given = [
            key for key in ("k", "temperature", "bank") if getattr(task, key) != getattr(TaskConfig, key)
        ]
        if given:
            raise UsageError(f"task.{given[0]} goes with task.head=knn")
        if (
            task.name == "classification"
            and config.mode == "test"
            and config.model.args.get("num_classes") == 0
        ):
            raise UsageError(
                f"model={config.model.name} has no classifier; use task.head=knn, the vote of similar images"
            )
        return
    if task.name != "classification":
        raise UsageError(f"task.head=knn is for task=classification, not for task={task.name}")
    if config.mode == "train":
        raise UsageError("task.head=knn has nothing to train; leave one of task.head=knn and mode=train out")
    _whole("task.k", task.k, 1)
    if task.bank is not None:
        _whole("task.bank", task.bank, 1)
        if task.k > task.bank:
            raise UsageError(f"task.k={task.k} is more than task.bank={task.bank}, the images that may vote")
    value = task.temperature
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UsageError(f"task.temperature={value} is not a number above 0")


def _check_rerank(task: TaskConfig) -> None:
    _whole("task.rerank", task.rerank, 0)
    if task.name != "retrieval" and task.rerank != TaskConfig.rerank:
        raise UsageError(f"task.rerank goes with task=retrieval, not with task={task.name}")


def _check_answering(config: Config) -> None:
    task = config.task
    _one_of("task.positions", task.positions, POSITIONS)
    if task.name != "vqa":
        for key in ("positions", "device_map"):
            if getattr(task, key) != getattr(TaskConfig, key):
                raise UsageError(f"task.{key} goes with task=vqa, not with task={task.name}")
        return
    check_arch(config.model.arch)
    if (
        "{question}" not in config.model.args.get("prompt", "")
        or "<image>" not in config.model.args["prompt"]
    ):
        raise UsageError("model.args.prompt must hold <image> and {question}")
    if task.device_map is None:
        return
    _one_of("task.device_map", task.device_map, ("auto",))
    if config.mode == "train" or config.weights == "random" or Path(config.weights or "").is_file():
        raise UsageError(
            "task.device_map=auto is for testing models of the hub or of a folder, weights=FOLDER"
        )


def _check_control(config: Config) -> None:
    if config.control is None:
        return
    _one_of("control", config.control, CONTROLS)
    if config.task.name != "classification":
        raise UsageError(
            f"control={config.control} is for task=classification, not for task={config.task.name}"
        )
    if config.mode == "train":
        raise UsageError(f"control={config.control} goes with mode=test: it merges nothing, nor trains")
    if config.measure == "none" and config.flops is None:
        raise UsageError(
            f"control={config.control} needs the cost of the merged run; give measure=flops, or flops=SHARE"
        )


def _check_options(merge: MergeConfig) -> None:
    """Unknown options of a method that conf/merge knows, whose values the method checks when it is
    used; names and values where a user's own method, imported by now, says what it takes."""
    path = CONF / "merge" / f"{merge.name}.yaml"
    if not path.is_file():
        from pitome.merge import registry

        registry.get(merge.name).build_options(merge.options)
        return
    known = OmegaConf.to_container(OmegaConf.load(path))["options"]  # type: ignore[index,call-overload]
    for key in merge.options:
        if key not in known:
            raise UsageError(
                f"merge={merge.name} has no option {key!r}; {nearest(str(key), map(str, known))}"
            )


def _amount(config: Config) -> Amount:
    given = [key for key in ("ratio", "r", "flops") if getattr(config, key) is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: give exactly one of ratio, r and flops")
    given_layers = plain(config.layers)
    layers = plain(config.task.layers) if given_layers is None else given_layers
    parse_layers(layers, 10_000)  # its form; the model knows its depth
    if config.inflection is not None and given != ["r"]:
        raise UsageError("inflection goes with a single r, e.g. r=8 inflection=-1")
    if not given:
        own = any(
            config.merge.options.get(key) is not None for key in ("merge_kept", "prune_kept", "schedule_file")
        )
        if own:
            return Amount(layers=given_layers)
        unmerged = config.mode == "train" and config.merge.name == UNMERGED  # whose key names no amount
        return Amount(ratio=1.0 if unmerged else DEFAULT_RATIO, layers=layers)
    if config.ratio is not None:
        ratio = plain(config.ratio)
        for value in ratio if isinstance(ratio, list) else [ratio]:
            check_ratio(value)
        return Amount(ratio=ratio, layers=layers)
    if config.flops is not None:
        share = config.flops
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(
                f"flops={share} is outside (0, 1]; give a share of the unmerged cost, e.g. flops=0.7"
            )
        return Amount(flops=float(share), layers=layers)
    r = plain(config.r)
    for value in r if isinstance(r, list) else [r]:
        check_removal(value)
    inflection = config.inflection
    if inflection is not None and (
        isinstance(inflection, bool) or not isinstance(inflection, int | float) or not -1 <= inflection <= 1
    ):
        raise UsageError(f"inflection={inflection} is outside [-1, 1]")
    return Amount(r=r, inflection=inflection, layers=layers)


def plain(value: Any) -> Any:
    """OmegaConf containers as lists and dictionaries; everything else as it is."""
    return (
        OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig | DictConfig) else value
    )


def check_folder(data: Mapping[str, Any], *, train: bool) -> None:
    """Look for the files of a set of conf/data that names its `classes` and a `root`; their contents are
    not read. train: for training images as well. Raises DataError."""
    if not data["classes"] or data["root"] is None:
        return
    root = check_root(data["root"])
    if data["task"] == "text":
        from pitome.tasks.text.files import find_files
        from pitome.tasks.text.sets import text_set

        find_files(root, text_set(data["name"], data["classes"]))
        return
    from pitome.tasks.classification.files import check_files, own_set

    check_files(own_set(data["name"], data["classes"], data["split"]), root, train=train)
