"""The configuration behind conf/: typed, and checked before anything slow is imported.

Imports no torch: what text and paths decide is said within a second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from pitome.errors import UsageError, nearest
from pitome.fields import decode

CONF = Path(__file__).parent.parent / "conf"
DEFAULT_RATIO = 0.925

MODES = ("test", "train")
PATH_KEYS = ("weights", "data.root", "results", "merge.options.schedule_file")  # whose values are paths


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
    names, by label; sources may then be left out. max_pixels: larger images are refused, None: more than
    50 million; exif: whether images are turned upright as their EXIF orientation says. ocr: the OCR tokens
    of TextVQA stand in the prompt."""

    name: str = MISSING
    task: str = MISSING
    root: str | None = None
    repository: str = ""
    revision: str = "main"
    sources: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    split: str | None = None
    max_pixels: int | None = None
    exif: bool = True
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
    weights_key: str | None = None
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


def portable(config: Config) -> dict[str, Any]:
    """The configuration as a record keeps it: without where results go, and of files and folders the
    name alone, so that a published record tells nothing of the machine."""
    values = dataclasses.asdict(config)
    del values["results"]
    for part, key in ((values, "weights"), (values["data"], "root")):
        if part[key] is not None:
            part[key] = Path(part[key]).name
    return values


def load_model(name: str) -> ModelConfig:
    """The model of a file of conf/model. Raises UsageError where there is none, or it has a mistake."""
    path = find_choice("model", name)
    if path is None:
        raise UsageError(f"unknown model={name}; {nearest(name, choices('model'))}")
    return decode(ModelConfig, OmegaConf.to_container(OmegaConf.load(path)))


def model_label(model: ModelConfig) -> str:
    """The model's name, and every setting that differs from its file: another model, another run."""
    if find_choice("model", model.name) is None:
        return model.name
    file, own = _leaves(load_model(model.name)), _leaves(model)
    changed = [f"{key}={own.get(key)}" for key in sorted(file | own) if own.get(key) != file.get(key)]
    return f"{model.name} ({', '.join(changed)})" if changed else model.name


def own_model(model: ModelConfig) -> dict[str, Any]:
    """What identifies a model of the user's own besides its name, as its file may change; empty for the
    project's."""
    if (CONF / "model" / f"{model.name}.yaml").is_file():
        return {}
    text = json.dumps(_leaves(model), sort_keys=True, default=str)
    return {"model file": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _leaves(model: ModelConfig) -> dict[str, Any]:
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


def task_of(group: str, name: str) -> str:
    """The task that a file of conf/model or conf/data is for."""
    path = find_choice(group, name)
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    return next((line.removeprefix("task: ") for line in lines if line.startswith("task: ")), "")


GROUPS = ("task", "model", "merge", "data", "trainer", "logger", "experiment")
