"""Checks of a run that need more than one field, before torch is imported; those of one task stand in its
`checks.py`."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from pitome.config import (
    CONF,
    DEFAULT_RATIO,
    Config,
    DataConfig,
    MergeConfig,
    PreprocessConfig,
    SearchConfig,
    choices,
    find_choice,
    task_of,
)
from pitome.errors import UsageError, nearest
from pitome.fields import decode
from pitome.merge.plugins import reason
from pitome.merge.schedule import AMOUNTS, Reduction, check_place
from pitome.records.identity import UNMERGED
from pitome.sources.folders import check_source
from pitome.sources.schedule_file import OPTIONS as SCHEDULE_OPTIONS
from pitome.sources.schedule_file import UNIFORM, check_target, find_schedule
from pitome.sources.weights import Weights
from pitome.sources.yaml_files import read_yaml
from pitome.tasks.checks import Checks, checks_of
from pitome.tasks.data import Preprocess
from pitome.tasks.recipe import stages

HALVES = ("16-true", "bf16-true")  # of the weights themselves
LEARNS = "diffrate"  # the method whose rates are learned by gradient


def validate(config: Config) -> Reduction:
    """Check all that text and paths decide and say how much to merge.

    Raises PitomeError (UsageError, DataError, CheckpointError), one line.
    """
    _check_fit(config)
    _check_named(config)
    checks = checks_of(config.task.name)
    if config.precision in HALVES and not checks.half_weights:
        raise UsageError(
            f"precision={config.precision} is not for task={config.task.name}; "
            "give 32, 64, 16-mixed or bf16-mixed"
        )
    if config.devices > 1 and ":" in config.device:
        raise UsageError(f"device={config.device} is one device; devices={config.devices} needs device=cuda")
    if config.devices > 1 and config.task.device_map is not None:
        raise UsageError(
            "task.device_map=auto spreads one model over all devices; leave it out, or give devices=1"
        )
    checks.check_classes(config.data)
    _check_preprocess(config.model.preprocess)
    checks.check_options(config.task)
    checks.check_data_options(config.data)
    _check_control(config, checks)
    _check_options(config.merge)
    _check_search(config)
    reduction = reduction_of(config)
    _check_keep(config, reduction, checks)
    sources = config.data.sources or (["hub", "local"] if config.data.repository else ["local"])
    if config.source != "auto" and config.source not in sources:
        raise UsageError(
            f"data={config.data.name} is not available from source={config.source}; "
            f"available: auto, {', '.join(sources)}"
        )
    if config.data.root is not None and "local" not in sources:
        raise UsageError(
            f"data={config.data.name} is made on the spot; leave out data.root={config.data.root}"
        )
    check_source(config.source, config.data.root)
    checks.check(config)
    find_any(config)
    for key in ("limit_train", "trained_with") if config.mode == "test" else ():
        if getattr(config, key) is not None:
            raise UsageError(f"{key}={getattr(config, key)} goes with mode=train")
    if config.trained_with is not None:
        _check_fit(training_of(config, reduction)[0])
    if config.mode == "train":
        checks.check_trainer(config)
        _check_stages(config)
    return reduction


def _check_keep(config: Config, amount: Reduction, checks: Checks) -> None:
    """What goes with keep, and what with a method for a place after an image tower. Raises UsageError."""
    merge, keep = config.merge, amount.keep
    if keep is None and "tower" in merge.places:
        return
    if keep is not None and not checks.after_tower:
        allowed = ", ".join(name for name in choices("task") if checks_of(name).after_tower)
        raise UsageError(f"keep={keep} is for task={allowed}, not for task={config.task.name}")
    if config.mode != "test":
        what = f"keep={keep}" if keep is not None else f"merge={merge.name}"
        raise UsageError(f"{what} goes with mode=test: a training merges in the image tower alone")
    if merge.name != UNMERGED:
        others = [name for name in AMOUNTS if name != "keep" and getattr(config, name) is not None]
        check_place(merge.name, merge.places, keep, None, others)


def find_any(config: Config) -> Weights | None:
    """The weights of a run, as far as text and paths tell; None of a training from random ones.
    Raises CheckpointError."""
    weights = config.weights or "pretrained"
    if config.weights_key is not None and weights in ("pretrained", "random"):
        raise UsageError(f"weights_key={config.weights_key} goes with a file, weights=FILE")
    if config.weights is None and config.mode == "train":
        return None
    return checks_of(config.task.name).weights(config, weights)


def training_of(config: Config, amount: Reduction) -> tuple[Config, Reduction]:
    """What is trained, and how much merges meanwhile, where `config` is to test it with `amount`. Raises
    UsageError for an unknown method."""
    name = config.trained_with
    if name is None:
        return config, amount
    if (path := find_choice("merge", name)) is None:
        raise UsageError(f"trained_with={name} is not known; {nearest(name, choices('merge'))}")
    tree = OmegaConf.create(dataclasses.asdict(config) | {"merge": read_yaml(path)})  # for its ${seed}
    merge = OmegaConf.to_container(tree, resolve=True)["merge"]  # type: ignore[index,call-overload]
    training = dataclasses.replace(config, merge=decode(MergeConfig, merge))
    return training, Reduction(ratio=1.0) if name == UNMERGED else amount


def import_modules(names: Sequence[str]) -> None:
    """Import a user's own modules, from where Python looks or else the current directory; a slow one is named
    after a second.

    Raises UsageError for one that does not exist, raises or exits.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        if name.endswith(".py") or "/" in name:
            raise UsageError(
                f"imports: {name} is a file; give the name of the module, e.g. imports=[my_method]"
            )
        slow = threading.Timer(1, print, [f"importing {name} ..."], {"file": sys.stderr, "flush": True})
        slow.daemon = True
        slow.start()
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as problem:  # whatever a user's module does, it is one line
            raise UsageError(f"imports: {name} cannot be imported ({reason(problem)})") from None
        finally:
            slow.cancel()


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


def _check_preprocess(given: PreprocessConfig | None) -> None:
    """One number per channel."""
    for key in ("mean", "std") if given is not None else ():
        values, channels = getattr(given, key), given.channels or Preprocess.channels  # type: ignore[union-attr]
        if len(values) != channels:
            raise UsageError(f"model.preprocess.{key}={values} is not a list of {channels} numbers")


def _check_control(config: Config, checks: Checks) -> None:
    if config.control is None:
        return
    if not checks.resizable:
        allowed = ", ".join(name for name in choices("task") if checks_of(name).resizable)
        raise UsageError(f"control={config.control} is for task={allowed}, not for task={config.task.name}")
    if config.mode != "test":
        raise UsageError(f"control={config.control} goes with mode=test: it neither merges nor trains")
    if config.measure == "none" and config.flops is None:
        raise UsageError(
            f"control={config.control} needs the cost of the merged run; give measure=flops, or flops=SHARE"
        )


def _check_options(merge: MergeConfig) -> None:
    """Unknown options of a method that conf/merge knows, whose values the method checks when it is
    used; names and values where a user's own method, imported by now, says what it takes."""
    known = _options(merge)
    for key in merge.options:
        if key not in known:
            raise UsageError(
                f"merge={merge.name} has no option {key!r}; {nearest(str(key), map(str, known))}"
            )


def _options(merge: MergeConfig) -> dict[str, Any]:
    """Name -> default of the options of a method."""
    path = CONF / "merge" / f"{merge.name}.yaml"
    if path.is_file():
        options: dict[str, Any] = read_yaml(path)["options"]
        return options
    from pitome.merge import registry

    method = registry.get(merge.name)
    method.build_options(merge.options)
    return vars(method.options())


def with_schedule_options(config: Config) -> Config:
    """The configuration with the options that a search found for its method, where `schedule` is a file that
    says so. Raises UsageError where the command line gives another value."""
    if not isinstance(config.schedule, str) or config.schedule == UNIFORM:
        return config
    made = find_schedule(config.schedule).made_for
    if made is None or made.method != config.merge.name:
        return config
    usual, options = _options(config.merge), dict(config.merge.options)
    for name, value in made.options.items():
        if options.get(name) not in (usual.get(name), value):
            raise UsageError(
                f"schedule={config.schedule} was made for merge.options.{name}={value}, not for "
                f"{options[name]}; leave that out"
            )
        options[name] = value
    return dataclasses.replace(config, merge=dataclasses.replace(config.merge, options=options))


def _check_search(config: Config) -> None:
    """What goes with mode=search, and what with it alone. Raises UsageError."""
    search = config.search
    if config.mode != "search":
        usual = SearchConfig()
        given = [f"search.{name}" for name, value in vars(search).items() if value != getattr(usual, name)]
        given += ["speed"] if config.speed is not None else []
        if given:
            raise UsageError(f"{given[0]} goes with mode=search alone")
        return
    merge = config.merge.name
    if merge == UNMERGED:
        raise UsageError("mode=search needs a method that merges; choose one with merge=NAME")
    others = [name for name in AMOUNTS if name != "flops" and getattr(config, name) is not None]
    if others or (config.flops is None) == (config.speed is None):
        what = f", not {others[0]}" if others else ""
        raise UsageError(f"mode=search needs one target{what}: flops=SHARE or speed=TIMES")
    if config.devices > 1:
        raise UsageError(f"mode=search runs on one device; leave out devices={config.devices}")
    if any(config.merge.options.get(key) is not None for key in SCHEDULE_OPTIONS):
        raise UsageError(f"merge={merge} has a schedule already; leave out {', '.join(SCHEDULE_OPTIONS)}")
    _options_known(search.options, _options(config.merge), merge)
    if search.sampler == "gradient" and not _learnable(config):
        raise UsageError(
            f"search.sampler=gradient learns the rates of merge={LEARNS} for flops=SHARE, and no "
            "search.options"
        )
    if importlib.util.find_spec("optuna") is None or importlib.util.find_spec("cmaes") is None:
        raise UsageError("mode=search needs Optuna and cmaes: pip install 'pitome[search]'")


def sampler_of(config: Config) -> str:
    """How mode=search finds its schedule: tpe, cmaes or gradient."""
    return config.search.sampler or ("gradient" if _learnable(config) else "tpe")


def _learnable(config: Config) -> bool:
    return config.merge.name == LEARNS and config.flops is not None and not config.search.options


def _options_known(names: Sequence[str], known: Mapping[str, Any], merge: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"search.options: merge={merge} has no option {name!r}; {nearest(name, known)}")


def _check_stages(config: Config) -> None:
    """Rates and lengths of the stages. The last one trains the model that is tested, so its patches are the
    model's."""
    if not config.trainer.stages:
        raise UsageError("mode=train needs trainer.stages; choose one of " + ", ".join(choices("trainer")))
    for number, stage in enumerate(stages(config.trainer)):
        where = f"trainer.stages[{number}]"
        if config.trainer.schedule == "plateau" and (stage.warmup or stage.min_lr):
            raise UsageError(f"{where}: warmup and min_lr go with trainer.schedule=cosine and linear alone")
        if stage.min_lr > stage.lr:
            raise UsageError(f"{where}: min_lr={stage.min_lr:g} is above lr={stage.lr:g}")
        if stage.warmup > stage.epochs:
            raise UsageError(f"{where}: warmup={stage.warmup:g} is longer than epochs={stage.epochs}")
        if stage.hidden and config.task.name != "vqa":
            raise UsageError(f"{where}: hidden={stage.hidden:g} is for task=vqa")
    _check_growth(config)
    args, last = config.model.args, config.trainer.stages[-1].patch_size
    towers = (args, args.get("vision_cfg") or {}, args.get("vision_config") or {})
    sizes = [tower["patch_size"] for tower in towers if "patch_size" in tower]
    if last is not None and sizes and last not in sizes:
        raise UsageError(
            f"trainer.stages: the last stage has patch_size={last} and model={config.model.name} {sizes[0]}; "
            "leave it out of the last stage"
        )


def _check_growth(config: Config) -> None:
    """Curriculum and distillation."""
    trainer, amount = config.trainer, reduction_of(config)
    if trainer.curriculum:
        if amount.ratio == 1.0 or amount.schedule is not None or not amount.given:
            raise UsageError(
                f"trainer.curriculum={trainer.curriculum:g} needs an amount that can grow; "
                "give ratio=, r= or flops="
            )
        short = min(stage.epochs for stage in stages(trainer))
        if trainer.curriculum * short > short - 1:
            raise UsageError(
                f"trainer.curriculum={trainer.curriculum:g} leaves no epoch of {short} with all of the "
                "merging; give a smaller share, or more epochs"
            )
    if trainer.distill and config.weights in (None, "random"):
        raise UsageError(
            f"trainer.distill={trainer.distill:g} needs a model that has learned something as its teacher; "
            "give weights=pretrained, or a file"
        )


def reduction_of(config: Config) -> Reduction:
    """How much a run merges: as it was asked, or the defaults. Raises UsageError."""
    layers = config.task.layers if config.layers is None else config.layers
    given = {name: getattr(config, name) for name in AMOUNTS}
    if config.schedule == UNIFORM:
        given["schedule"] = None
    elif config.schedule is not None:
        layers = config.layers  # a schedule names every layer
        if config.flops is not None:
            check_target(config.schedule, config.flops)
            given["flops"] = None
    asked = Reduction(**given, layers=layers)
    if asked.given:
        return asked
    if config.speed is not None or any(config.merge.options.get(k) is not None for k in SCHEDULE_OPTIONS):
        return Reduction(layers=config.layers)
    unmerged = config.mode == "train" and config.merge.name == UNMERGED  # whose key names no amount
    return Reduction(ratio=1.0 if unmerged else DEFAULT_RATIO, layers=layers)


def check_folder(data: DataConfig, *, train: bool) -> None:
    """Look for the files of a set of conf/data that names its `classes` and a `root`; their contents are
    not read. train: for training images as well. Raises DataError."""
    checks_of(data.task).check_files(data, train=train)
