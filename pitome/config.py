"""The configuration of conf/: typed, and checked before anything slow is imported.

Imports no torch: what text and paths decide is said within a second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pitome.errors import INSTALLED, UsageError, nearest, redacted
from pitome.fields import decode, later, like, number, text, types_of, whole
from pitome.merge.schedule import Reduction, shown_schedule
from pitome.sources.yaml_files import read_yaml

CODE = Path(__file__).parent.parent  # where this package stands: the clone, or site-packages
CONF = (Path(__file__).parent if INSTALLED else CODE) / "conf"  # beside it: experiments/, results/published
DEFAULT_RATIO = 0.925

PATH_KEYS = (
    "weights",
    "data.root",
    "results",
    "search.folder",
    "merge.options.schedule_file",
    "schedule",
)  # whose values are paths


@dataclass(kw_only=True)
class TaskConfig:
    """What a run does; besides name and layers, settings of some tasks, which `pitome.tasks.<task>.checks`
    names."""

    name: str
    layers: str | list[int] | None = None  # where the task merges unless `layers=` says; None: everywhere
    # classification: the model's own classifier, or a vote of the nearest neighbours
    head: Literal["classifier", "knn"] = "classifier"
    k: int = whole(20, least=1)  # with head=knn: images that vote
    temperature: float = number(0.07, above=0)  # with head=knn: a vote weighs exp(similarity / temperature)
    bank: int | None = whole(None, least=1)  # with head=knn: training images that may vote; None: all
    # retrieval: candidates of an image and of a caption that a matching head sees
    rerank: int = whole(128, least=0)
    # vqa: positions of merged tokens in the language model
    positions: Literal["renumber", "keep"] = "renumber"
    # vqa: `auto` spreads a model of the hub or of a folder over all devices
    device_map: Literal["auto"] | None = None
    # vqa, with keep=: a method that merges in the layers of the image tower as well; its end has all tokens
    tower: str | None = None
    tower_ratio: float = number(DEFAULT_RATIO, above=0, most=1)  # share of tokens that its layers keep


@dataclass(kw_only=True)
class CheckpointConfig:
    """Weights of a text classifier for one data set."""

    source: str  # `shipped` or hub:<repository>@<revision>
    cased: bool = False  # whether its tokenizer keeps case
    split: str = "official"  # the kind of split whose training texts it has seen: it is tested on no others


@dataclass(kw_only=True)
class PreprocessConfig:
    """How an image becomes the model's input, see `pitome.tasks.data.Preprocess`; None: the model's own."""

    size: int = whole(least=1)  # height and width in pixels
    mean: list[float] = number(least=0, most=1)  # per channel, of values in [0, 1]
    std: list[float] = number(above=0, most=1)  # per channel
    channels: Literal[1, 3] | None = None
    crop_pct: float | None = number(None, above=0, most=1)  # share of the resized image that the crop keeps
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    squash: bool | None = None  # squeeze the whole image into the square, cut nothing off


@dataclass(kw_only=True)
class ModelConfig:
    """A model; a file of conf/model."""

    name: str
    task: str
    arch: str  # what its library builds: timm, open_clip, or an architecture of transformers
    args: dict[str, Any] = field(default_factory=dict)  # of the library
    preprocess: PreprocessConfig | None = None  # None: timm's record of the model
    checkpoint: str = ""  # what weights=pretrained means; empty: nothing
    # of texts: the encoder that training starts from, `package` or hub:<repository>@<revision>
    base: str | None = None
    data: str | None = None  # the set that a small model was trained for; tested on it where data= names none
    # of texts: what weights=pretrained means, by data set
    checkpoints: dict[str, CheckpointConfig] = field(default_factory=dict)


@dataclass(kw_only=True)
class DataConfig:
    """A data set; a file of conf/data."""

    name: str
    task: str
    root: str | None = None  # a local folder
    repository: str = ""  # on the hub
    revision: str = "main"  # of the repository
    # where it is available; of a user's own set these may be left out
    sources: list[Literal["hub", "local", "package"]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)  # of a user's own set: their names, by label
    # the part that is tested on; of texts official or hash, None: the kind that the classifier was trained on
    split: str | None = None
    max_pixels: int | None = whole(None, least=1)  # larger images are refused; None: more than 50 million
    exif: bool = True  # images are turned upright as their EXIF orientation says
    ocr: bool = False  # the prompt contains the OCR tokens of TextVQA
    # of questions of a user's own: what follows each of them in the prompt; None: as for VQAv2
    instruction: str | None = None


@dataclass(kw_only=True)
class MergeConfig:
    """A merge method; a file of conf/merge."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)  # all of the method's, which checks their values
    tasks: list[str] | None = None  # those it can be used for; None: every task
    # where it removes tokens: in an image or text encoder; in a vision-language model between tower and
    # language model, or before a layer of that
    places: list[Literal["tower", "projector", "language"]] = field(default_factory=lambda: ["tower"])


@dataclass(kw_only=True)
class StageConfig:
    """A stage of training."""

    epochs: int = whole(least=1)  # passes over the training samples
    batch_size: int = whole(least=1)  # samples in a step
    lr: float = number(above=0)  # peak learning rate of AdamW
    min_lr: float = number(0.0, least=0)  # learning rate at the end of a cosine or linear schedule
    warmup: float = number(0.0, least=0)  # epochs of linear warm-up, with cosine and linear
    patch_size: int | None = whole(None, least=1)  # of the image tower, in pixels; None: the model's own
    # vqa: the share of the images of which the language model sees a random part of the tokens, so that it
    # gets used to fewer
    hidden: float = later(number(0.0, least=0, most=1))


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685)."""

    rank: int = whole(0, least=0)  # 0: the whole model is trained
    alpha: float = number(16.0, above=0)  # an update is alpha / rank * B A
    dropout: float = number(0.0, least=0, most=1)
    targets: list[str] = field(default_factory=list)  # names of the linear layers that get one


@dataclass(kw_only=True)
class TrainerConfig:
    """How to train; a file of conf/trainer. Settings of some tasks are named by their
    `pitome.tasks.<task>.checks`."""

    stages: list[StageConfig] = field(default_factory=list)
    weight_decay: float = number(0.0, least=0)  # of weights; biases and norms are not decayed
    mixup: float = number(0.0, least=0)  # classification: alpha of timm's Mixup; 0: off
    cutmix: float = number(0.0, least=0)  # classification: alpha of CutMix; 0: off
    smoothing: float = number(0.0, least=0, most=1)  # classes: of the labels
    clip: float = number(1.0, least=0)  # largest norm of the gradient, scaled down to it; 0: any
    drop_path: float = number(0.0, least=0, most=1)  # classification: share of samples that skip a block
    workers: int = whole(0, least=0)  # images: processes that load batches
    parts: int = whole(1, least=1)  # in which a step is computed: less memory, the same loss, more time
    # minutes between checkpoints within an epoch, from which a killed training goes on; 0: after epochs alone
    save_every: float = number(10.0, least=0)
    epochs: int | None = whole(None, least=1)  # of every stage, in place of its own
    # batches of a step, which then is computed in as many times the parts
    accumulate_grad_batches: int = later(whole(1, least=1))
    # Lightning's own, for the test as well; a profile goes to profiles/ beside the runs
    profiler: Literal["simple", "advanced", "pytorch"] | None = later(None)
    detect_anomaly: bool = later(False)  # name the operation whose gradient is no number
    deterministic: bool = later(False)  # algorithms that give the same bits on a GPU each time
    # classification: a block's learning rate, as a share of that of the block after it
    layer_decay: float = later(number(1.0, above=0, most=1))
    # decay of a moving average of the weights, which is validated and kept in their place; 0: the weights
    ema: float = later(number(0.0, least=0, most=1))
    # share of the epochs over which merging grows from nothing to what is asked for; 0: all from the start
    curriculum: float = later(number(0.0, least=0, most=1))
    # classification, text: weight in the loss of what the unmerged model answers, as it was before training
    distill: float = later(number(0.0, least=0, most=1))
    # of the learning rate: cosine for images; linear or plateau for texts
    schedule: Literal["cosine", "linear", "plateau"] = "cosine"
    lora: LoraConfig = field(default_factory=LoraConfig)
    questions: int = whole(4, least=1)  # vqa: questions of an image in a step
    flip: bool = False  # vqa: half of the images are mirrored, left to right


SPEED = ("workers", "parts", "save_every", "profiler", "detect_anomaly", "deterministic")
"""Settings of a training that no weight depends on."""


@dataclass(kw_only=True)
class LoggerConfig:
    """Where numbers are logged."""

    name: str  # wandb, csv or none
    project: str = "pitome"  # of W&B
    entity: str | None = None  # team or user of W&B; None: the default one
    tags: list[str] = field(default_factory=list)  # of a run in W&B
    group: str | None = None  # of a sweep's runs in W&B; None: named after the command of the sweep


@dataclass(kw_only=True)
class SearchConfig:
    """How mode=search looks for a schedule; it ends with `trials` or `minutes`, whichever comes first."""

    trials: int | None = whole(None, least=1)  # schedules to try; None: 100 without minutes, else any number
    minutes: float | None = number(None, above=0)  # those before a restart counted; None: no limit
    # which point is tried next, by Optuna: tpe or cmaes; gradient: DiffRate's learned rates; None: gradient
    # for merge=diffrate with flops= and no options, else tpe
    sampler: Literal["tpe", "cmaes", "gradient"] | None = None
    options: list[str] = field(default_factory=list)  # of the merge method that are searched as well
    folder: str | None = None  # of the trials and what comes of them; None: a new one in results/search


Precision = Literal["32", "64", "16-mixed", "bf16-mixed", "16-true", "bf16-true"]


@dataclass(kw_only=True)
class Config:
    """One run. What needs several fields is checked by `pitome.runs.validate`."""

    task: TaskConfig
    model: ModelConfig
    data: DataConfig
    merge: MergeConfig
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig
    # how much to merge, see `Reduction`
    ratio: float | list[float] | None = like(Reduction, "ratio")
    r: int | list[int] | None = like(Reduction, "r")
    inflection: float | None = like(Reduction, "inflection")
    flops: float | None = like(Reduction, "flops")
    schedule: str | list[int] | None = like(Reduction, "schedule")
    keep: int | float | None = like(Reduction, "keep")
    layers: str | list[int] | None = None
    speed: float | None = number(None, above=1)  # mode=search: times as fast as the unmerged model
    source: Literal["auto", "hub", "local", "package"] = "auto"  # where data comes from
    weights: str | None = None  # pretrained, random or a path; None: pretrained to test, random to train
    weights_key: str | None = None  # the part of the file to read; None: the one that fits the model
    mode: Literal["test", "train", "search"] = "test"
    search: SearchConfig = field(default_factory=SearchConfig)
    trained_with: str | None = None  # method to train with, at the amount that is tested; None: merge
    measure: Literal["none", "flops", "full"] = "flops"
    # samples tested, None: all; mode=search: samples of the training set, None: 2,000
    limit: int | None = whole(None, least=1)
    limit_train: int | None = whole(None, least=1)  # training samples; None: all
    batch_size: int = whole(100, least=1)
    workers: int | None = whole(None, least=0)  # processes that read test images; None: as the data set likes
    precision: Precision = "32"  # of computing; `-true`: of the weights as well
    device: str = text(
        "auto", pattern=r"auto|cpu|cuda(:\d+)?|mps", hint="give auto, cpu, cuda, cuda:0 or mps"
    )
    devices: int = whole(1, least=1)  # that share the run, each with a process of its own
    seed: int = whole(0, least=0)
    # repeat what is recorded: where the code has changed since, or all
    overwrite: Literal["changed", "all"] | None = None
    control: Literal["resize"] | None = None  # beside each merged run, an unmerged one on smaller images
    imports: list[str] = field(default_factory=list)  # modules with the user's own merge methods
    results: str = "results/runs"  # folder of the records


def defaults(kind: type) -> dict[str, Any]:
    """Key -> default of everything in a dataclass that has one, nested ones as mappings."""
    out: dict[str, Any] = {}
    for key, hint in types_of(kind).items():
        if dataclasses.is_dataclass(hint):
            out[key] = defaults(hint)  # type: ignore[arg-type]
    for option in dataclasses.fields(kind):
        if option.name not in out and option.default is not dataclasses.MISSING:
            out[option.name] = option.default
        elif option.name not in out and option.default_factory is not dataclasses.MISSING:
            out[option.name] = option.default_factory()
    return out


def plain(part: Any) -> dict[str, Any]:
    """A configuration, or a part of it, as mappings for what is written or hashed: of `preprocess` what
    was given."""
    values = dataclasses.asdict(part)
    model = values.get("model", values)
    if isinstance(model.get("preprocess"), dict):
        model["preprocess"] = {key: value for key, value in model["preprocess"].items() if value is not None}
    return values


def portable(config: Config) -> dict[str, Any]:
    """The configuration as a record keeps it: without where results go, and of files and folders the
    name alone, so that a published record says nothing about the machine; without passwords."""
    values = plain(config)
    del values["results"], values["search"], values["speed"]  # of no record
    for part, key in ((values, "weights"), (values["data"], "root")):
        if part[key] is not None:
            part[key] = Path(part[key]).name
    values["schedule"] = shown_schedule(config.schedule)
    return redacted(values)  # type: ignore[no-any-return]


def load_model(name: str) -> ModelConfig:
    """The model of a file of conf/model. Raises UsageError where there is none, or it has a mistake."""
    path = find_choice("model", name)
    if path is None:
        raise UsageError(f"unknown model={name}; {nearest(name, choices('model'))}")
    return decode(ModelConfig, read_yaml(path))


def model_label(model: ModelConfig) -> str:
    """The model's name, and every setting that differs from its file: another model, another run."""
    if find_choice("model", model.name) is None:
        return model.name
    file, now = _leaves(load_model(model.name)), _leaves(model)
    changed = [f"{key}={now.get(key)}" for key in sorted(file | now) if now.get(key) != file.get(key)]
    return f"{model.name} ({', '.join(changed)})" if changed else model.name


def custom_model(model: ModelConfig) -> dict[str, Any]:
    """What identifies a model of the user's own besides its name, as its file may change; empty for the
    project's."""
    if os.path.isfile(CONF / "model" / f"{model.name}.yaml"):
        return {}
    text = json.dumps(_leaves(model), sort_keys=True, default=str)
    return {"model file": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _leaves(model: ModelConfig) -> dict[str, Any]:
    """Dotted name -> value of everything in a model's configuration."""
    values = plain(model)
    return {"arch": model.arch} | _flat("args", model.args) | _flat("preprocess", values["preprocess"])


def _flat(name: str, part: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in (part or {}).items():
        out |= _flat(f"{name}.{key}", value) if isinstance(value, dict) else {f"{name}.{key}": value}
    return out


def custom_folder() -> Path | None:
    """conf/ in the current directory, where a user's own files of models and data stand; None where there
    is none, or it is the project's."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and not folder.samefile(CONF) else None


def find_choice(group: str, name: str) -> Path | None:
    """The file of a choice: the project's, else the user's own, else None."""
    path = CONF / group / f"{name}.yaml"
    # isfile is False for a name that is too long.
    if not os.path.isfile(path) and (folder := custom_folder()) is not None:
        path = folder / group / path.name
    return path if os.path.isfile(path) else None


def choices(group: str) -> list[str]:
    """The names in a group of conf/, the user's own among them."""
    folders = [folder for folder in (CONF, custom_folder()) if folder is not None]
    paths = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in paths if path.is_file()})


def task_of(group: str, name: str) -> str:
    """The task that a file of conf/model or conf/data is for."""
    path = find_choice(group, name)
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    return next((line.removeprefix("task: ") for line in lines if line.startswith("task: ")), "")


PARTS = ("task", "model", "merge", "data", "trainer", "logger")  # of a configuration, each a group of conf/
GROUPS = (*PARTS, "experiment")
