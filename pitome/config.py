"""The configuration behind conf/: typed, and checked before anything slow is imported.

Imports no torch: what text and paths decide is said within a second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from pitome.errors import UsageError, nearest
from pitome.merge.plugins import reason
from pitome.merge.schedule import check_ratio, check_removal, parse_layers
from pitome.sources.folders import check_source
from pitome.sources.llava_family import check_arch
from pitome.sources.weights import Weights, find_text_weights, find_weights
from pitome.sources.weights_folder import find_model
from pitome.tasks.classification.data import DATA
from pitome.tasks.data import Preprocess
from pitome.tasks.text.sets import SETS
from pitome.tasks.vqa.benchmarks import check_options

CONF = Path(__file__).parent.parent / "conf"
DEFAULT_RATIO = 0.925

SOURCES = ("auto", "hub", "local", "package")
MODES = ("test", "train")
SPLITS = ("official", "hash")
TESTED = ("test", "validation")
TEXT_SCHEDULES = ("linear", "plateau")
MEASURES = ("none", "flops", "full")
HEADS = ("classifier", "knn")
CONTROLS = ("resize",)
PRECISIONS = ("32", "64", "16-mixed", "bf16-mixed")
HALVES = ("16-true", "bf16-true")  # of the weights themselves, for models that are large
POSITIONS = ("renumber", "keep")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass
class TaskConfig:
    """head: what answers in classification, the model's classifier or the vote of the nearest
    neighbours; k, temperature: of that vote; bank: training images that may vote, all if None.
    layers: where the task merges unless the command says (`layers=`), all if None. rerank: candidates of
    an image and of a caption that a matching head sees in retrieval, 0: none. positions, in vqa: of merged
    tokens in the language model, renumber or keep; device_map: `auto` spreads a model over all devices."""

    name: str = MISSING
    layers: Any = None
    head: str = "classifier"
    k: Any = 20
    temperature: Any = 0.07
    bank: Any = None
    rerank: Any = 128
    positions: str = "renumber"
    device_map: str | None = None


@dataclass
class CheckpointConfig:
    """source: `shipped` or hub:<repository>@<revision>; cased: whether its tokenizer keeps case; split:
    the kind of split whose training texts it has seen, so that it is tested on no others."""

    source: str = MISSING
    cased: bool = False
    split: str = "official"


@dataclass
class ModelConfig:
    """arch, args: what timm or, for texts, transformers builds; preprocess: None takes timm's record
    of the model; checkpoint: what weights=pretrained means, empty: nothing. For texts: base: the encoder
    that training starts from, `package` or hub:<repository>@<revision>; checkpoints: what
    weights=pretrained means, by data set."""

    name: str = MISSING
    task: str = MISSING
    arch: str = MISSING
    args: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] | None = None
    checkpoint: str = ""
    base: str | None = None
    checkpoints: dict[str, CheckpointConfig] = field(default_factory=dict)


@dataclass
class DataConfig:
    """root: a local folder; repository, revision: on the hub; sources: where it can be had; split, of
    texts: official, hash, or None for the one that the classifier was trained on; of questions about
    images, and of images of one's own: the part that is tested on. classes: of a set of one's own, their
    names, by label; sources may then be left out. ocr: the OCR tokens of TextVQA stand in the prompt."""

    name: str = MISSING
    task: str = MISSING
    root: str | None = None
    repository: str = ""
    revision: str = "main"
    sources: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    split: str | None = None
    ocr: bool = False


@dataclass
class MergeConfig:
    """options: all of the method's options; tasks: those it can be used for, None for every task."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] | None = None


@dataclass
class StageConfig:
    """patch_size: None keeps the model's own."""

    epochs: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    min_lr: float = 0.0
    warmup: float = 0.0
    patch_size: int | None = None


@dataclass
class LoraConfig:
    """rank: 0 trains the whole model; alpha: an update is alpha / rank * B A; targets: names of the
    linear layers that get one."""

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)


@dataclass
class TrainerConfig:
    """schedule: of the learning rate; images: cosine; texts: linear or plateau. questions, flip, in vqa:
    questions of an image in a step, and whether half of the images are mirrored, left to right."""

    stages: list[StageConfig] = field(default_factory=list)
    weight_decay: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    clip: float = 1.0
    drop_path: float = 0.0
    workers: int = 0
    schedule: str = "cosine"
    lora: LoraConfig = field(default_factory=LoraConfig)
    questions: int = 4
    flip: bool = False


@dataclass
class LoggerConfig:
    """name: wandb, csv or none; project: of W&B; group: of a sweep's runs there, None: named after the
    command of the sweep."""

    name: str = MISSING
    project: str = "pitome"
    group: str | None = None


@dataclass
class Config:
    """One run. The numbers that the user types are checked by `validate`, for better messages."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    ratio: Any = None
    r: Any = None
    inflection: Any = None
    flops: Any = None
    layers: Any = None
    source: str = "auto"
    weights: str | None = None
    mode: str = "test"
    measure: str = "flops"
    limit: Any = None
    batch_size: Any = 100
    precision: str = "32"
    device: str = "auto"
    seed: int = 0
    rerun: bool = False
    control: str | None = None
    imports: list[str] = field(default_factory=list)
    results: str = "results/runs"


@dataclass(frozen=True)
class Amount:
    """How much a run merges: exactly one of ratio, r and flops, or none of them where the method
    has a schedule of its own or nothing merges."""

    ratio: Any = None
    r: Any = None
    inflection: float | None = None
    flops: float | None = None
    layers: Any = None

    def asked(self) -> dict[str, Any]:
        """Those that were given."""
        return {key: value for key, value in vars(self).items() if value is not None}


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
    if config.mode == "train" and not config.trainer.stages:
        raise UsageError("mode=train needs trainer.stages; choose one of " + ", ".join(choices("trainer")))
    return amount


def find_any(config: Config) -> Weights | None:
    """The weights of a run, as far as text and paths tell; None of a training from random ones.
    Raises CheckpointError."""
    weights, model = config.weights or "pretrained", config.model
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


def text_split(config: Config) -> str:
    """The kind of split of a text run: `official` or `hash`.

    A classifier is tested on texts it has not seen: the split its checkpoint names. Raises
    UsageError for another one.
    """
    entry = config.model.checkpoints.get(config.data.name)
    trained = (
        entry.split if entry and config.mode == "test" and config.weights in (None, "pretrained") else None
    )
    given = config.data.split
    if given is None:
        return trained or ("hash" if "package" in config.data.sources else "official")
    _one_of("data.split", given, SPLITS)
    if trained is not None and given != trained:
        raise UsageError(
            f"model={config.model.name} was trained on the {trained} split of data={config.data.name}, "
            f"on texts that data.split={given} tests on; leave data.split out, or give weights=PATH"
        )
    return given


def portable(config: Config) -> dict[str, Any]:
    """The configuration as a record keeps it: without where results go, and of files and folders the
    name alone, so that a published record tells nothing of the machine."""
    values = dataclasses.asdict(config)
    del values["results"]
    for part, key in ((values, "weights"), (values["data"], "root")):
        if part[key] is not None:
            part[key] = Path(part[key]).name
    return values


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


def model_label(model: ModelConfig) -> str:
    """The model's name, and every setting that differs from its file: another model, another run."""
    path = find_choice("model", model.name)
    if path is None:
        return model.name
    file = _leaves(
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path)))
    )
    own = _leaves(model)
    changed = [f"{key}={own.get(key)}" for key in sorted(file | own) if own.get(key) != file.get(key)]
    return f"{model.name} ({', '.join(changed)})" if changed else model.name


def own_model(model: ModelConfig) -> dict[str, Any]:
    """What identifies a model of the user's own besides its name, as its file may change; empty for the
    project's."""
    if (CONF / "model" / f"{model.name}.yaml").is_file():
        return {}
    text = json.dumps(_leaves(model), sort_keys=True, default=str)
    return {"model file": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _leaves(model: Any) -> dict[str, Any]:
    """Dotted name -> value of everything in a model's configuration."""
    return {"arch": model.arch} | _flat("args", model.args) | _flat("preprocess", model.preprocess)


def _flat(name: str, part: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in (part or {}).items():
        out |= _flat(f"{name}.{key}", value) if isinstance(value, dict) else {f"{name}.{key}": value}
    return out


def own_folder() -> Path | None:
    """conf/ in the current directory, where a user's own files of models and data stand; None where there
    is none, or it is the project's."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != CONF.resolve() else None


def find_choice(group: str, name: str) -> Path | None:
    """The file behind a choice: the project's, else the user's own, else None."""
    folders = [folder for folder in (CONF, own_folder()) if folder is not None]
    paths = [folder / group / f"{name}.yaml" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def choices(group: str) -> list[str]:
    """The names in a group of conf/, the user's own among them."""
    folders = [folder for folder in (CONF, own_folder()) if folder is not None]
    found = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in found if path.is_file()})


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


def task_of(group: str, name: str) -> str:
    """The task that a file of conf/model or conf/data is for."""
    path = find_choice(group, name)
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    return next((line.removeprefix("task: ") for line in lines if line.startswith("task: ")), "")


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
        # Merging while training has to be asked for.
        return Amount(ratio=1.0 if config.mode == "train" else DEFAULT_RATIO, layers=layers)
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
