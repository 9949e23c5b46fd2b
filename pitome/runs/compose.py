"""Configurations from a command line: every point of a sweep is checked before the first one runs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

from hydra import compose
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pitome.config import GROUPS, PARTS, Config, choices, custom_folder, defaults, find_choice
from pitome.errors import CheckpointError, UsageError, nearest, one_line
from pitome.fields import decode
from pitome.merge import plugins
from pitome.merge.native_setting import wanted
from pitome.merge.schedule import Reduction
from pitome.records.identity import UNMERGED
from pitome.records.store import Store
from pitome.runs import custom_files, words
from pitome.runs.points import hydra_of_conf
from pitome.runs.validate import (
    check_folder,
    find_any,
    import_modules,
    validate,
    with_schedule_options,
)
from pitome.sources.cache import limit_bytes
from pitome.sources.weights import check_hub
from pitome.sources.yaml_files import read_yaml

_MANY = 500  # points, whose check takes seconds


class OwnFolder(SearchPathPlugin):
    """Lets a group's choice be a file in conf/ of the current directory, where the project has none."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if (folder := custom_folder()) is not None:
            search_path.append("own", f"file://{folder}")


def register_schema() -> None:
    """Put the typed configuration where conf/config.yaml finds it; the user's files come after conf/."""
    store = ConfigStore.instance()
    store.store(name="schema", node=defaults(Config))
    sweeper = {
        "_target_": "hydra_plugins.pitome_points.CheckedSweeper",
        "max_batch_size": None,
        "params": None,
    }
    store.store(group="hydra/sweeper", name="checked", node=sweeper, provider="pitome")
    Plugins.instance().register(OwnFolder)


def to_config(raw: DictConfig, group: str | None = None) -> Config:
    """The typed configuration of a composed one. group: of a sweep's runs in W&B, where none is given."""
    config = with_schedule_options(decode(Config, OmegaConf.to_container(raw, resolve=True), typed=True))
    return in_group(dataclasses.replace(config, results=os.path.expanduser(config.results)), group)


def in_group(config: Config, group: str | None) -> Config:
    """The configuration with the group of its sweep in W&B, where it gives none itself."""
    if group is None or config.logger.group is not None:
        return config
    return dataclasses.replace(config, logger=dataclasses.replace(config.logger, group=group))


def merge_of_training(overrides: Sequence[str]) -> list[str]:
    """The command line with `merge=none` where it trains and does not say with which method: the default
    method is for testing. Raises UsageError for a sweep over both modes."""
    given = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in overrides}
    modes = {mode.strip() for mode in given.get("mode", "").split(",")}
    if "train" not in modes or {"merge", "experiment"} & given.keys():
        return list(overrides)
    if len(modes) > 1:
        raise UsageError("mode=train,test needs merge=: without it training does not merge, but testing does")
    return [*overrides, f"merge={UNMERGED}"]


def data_of_model(overrides: Sequence[str]) -> list[str]:
    """The command line with the data set that its model was trained for, where it names none."""
    given = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in overrides}
    path = find_choice("model", given.get("model", ""))
    if path is None or {"data", "experiment"} & given.keys():
        return list(overrides)
    data = read_yaml(path).get("data")
    return [*overrides, f"data={data}"] if data else list(overrides)


def check_command_line(overrides: list[str], multirun: bool) -> list[tuple[Config, Reduction]]:
    """Compose and check every point that these overrides ask for, and give all of them.

    Raises PitomeError, one line.
    """
    parsed = words.parse(overrides, multirun)
    words.check_launcher(parsed, multirun)
    offer_custom_methods(parsed)
    words.check_choices(parsed)
    named = {group: words.chosen(parsed, group) for group in PARTS}
    custom_files.check_custom_files(named | {"trainer": named["trainer"] | named["data"]})
    points = words.points(parsed, multirun)
    if len(points) > _MANY:
        print(f"checking {len(points):,} points", flush=True)
    checked = []
    with hydra_of_conf():
        for point in points:
            try:
                config = to_config(compose("config", overrides=point))
            except (HydraException, OmegaConfBaseException) as problem:
                raise UsageError(explain(problem, point)) from None
            except ValueError as problem:  # Hydra's own, of a choice that is no name
                raise UsageError(one_line(problem)) from None
            checked.append((config, validate(config)))
    custom_files.report_unread(config for config, _ in checked)
    return checked


def check_places(configs: list[Config]) -> None:
    """Look at folders and weights before torch is imported: where results go, and what is read.

    Raises RecordError for a folder that cannot be written, DataError for one without the files of the
    user's own data set, CheckpointError where the hub has none of the weights, UsageError for a PITOME_NATIVE
    or PITOME_CACHE_GB without meaning.
    """
    wanted()
    limit_bytes()
    for results in dict.fromkeys(config.results for config in configs):
        Store(results).prepare()
    seen: set[str] = set()
    for config in configs:
        train = config.mode != "test" or config.task.head == "knn"
        if (key := repr((config.data, train))) not in seen:
            check_folder(config.data, train=train)
        seen.add(key)
    _check_weights(configs)


def _check_weights(configs: list[Config]) -> None:
    """Fails only where no point has weights; otherwise each point without them reports its own error."""
    first: CheckpointError | None = None
    for weights in dict.fromkeys(find_any(config) for config in configs):
        if weights is None:
            return
        try:
            check_hub(weights)
            return
        except CheckpointError as problem:
            first = first or problem
    if first is not None:
        raise first


def offer_custom_methods(parsed: list[Override]) -> None:
    """Import what `imports=[...]` names, and let merge= choose the methods registered by it, or
    offered by the entry points of other distributions. Without either, no method is loaded.

    Raises UsageError or MethodError for one that cannot be loaded.
    """
    modules = [o for o in parsed if o.get_key_element() == "imports"]
    if any(o.is_sweep_override() for o in modules):
        raise UsageError("imports has several values; give all modules in one list, imports=[a,b]")
    for names in (o.value() for o in modules):
        if not isinstance(names, list):
            raise UsageError(f"imports={names} is not a list; write imports=[{names}]")
        import_modules([str(name) for name in names])
    chosen = words.chosen(parsed, "merge") & plugins.offered().keys()
    if not modules and not chosen:
        return
    from pitome.merge import registry

    for name in {*chosen, *registry.loaded()} - set(choices("merge")):
        method = registry.get(name)
        node = {"name": name, "options": vars(method.options()), "places": list(method.places)}
        ConfigStore.instance().store(group="merge", name=name, node=node)


def explain(problem: Exception, overrides: list[str] | None = None) -> str:
    """Hydra's and OmegaConf's errors as one line, with the nearest names."""
    text = f"{problem} {problem.__cause__ or ''}"
    if "Could not override" in text or "is not in struct" in text:
        key = re.search(r"full_key: (\S+)", text) or re.search(r"Could not override '([^']+)'", text)
        if key is not None:
            return _unknown_key(key.group(1), overrides or [])
    return one_line(problem.__cause__ if problem.__cause__ is not None else problem)


def _unknown_key(key: str, overrides: list[str]) -> str:
    """Names that `key` may have meant: those beside it in the configuration of these choices."""
    parent, _, name = key.rpartition(".")
    chosen = [
        word for word in overrides if "." not in word.partition("=")[0] and word.partition("=")[0] in GROUPS
    ]
    node = OmegaConf.select(compose("config", overrides=chosen), parent) if parent else None
    beside = (
        list(node) if isinstance(node, DictConfig) else [field.name for field in dataclasses.fields(Config)]
    )
    prefix = f"{parent}." if isinstance(node, DictConfig) else ""
    return f"unknown key {key}; {nearest(prefix + name, [prefix + str(word) for word in beside])}"
