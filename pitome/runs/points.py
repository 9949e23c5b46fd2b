"""Composes points quickly: each combination of choices once, other values on a copy of it."""

from __future__ import annotations

import functools
import os
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pitome.config import CONF, GROUPS, Config, custom_folder, defaults

_EXPERIMENT = "experiment"
_ALONE = ("model", "merge", "logger")
_composed: dict[tuple[Any, ...], bytes] = {}  # pickled, which is read faster than copied
_MOST = 1000  # of them, 25 MB


@contextmanager
def hydra_of_conf() -> Iterator[Hydra]:
    """`initialize_config_dir` for conf/, whose points are composed quickly."""
    with initialize_config_dir(str(CONF.resolve()), job_name="pitome", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.config_loader = Loader(hydra.config_loader.get_search_path())
        yield hydra


class Loader(ConfigLoaderImpl):
    """Gives what Hydra's gives. What a combination of choices gives is kept as long as no file changes."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._schema = OmegaConf.create(defaults(Config))
        folders = [CONF, *filter(None, [custom_folder()])]
        methods = ConfigStore.instance().repo.get("merge", {})  # of the user's own
        files = (_version(path) for folder in folders for path in sorted(folder.glob("**/*.yaml")))
        self._state = repr(methods), tuple(files)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The configuration of one point. Raises what Hydra raises."""
        parsed = [_parse(word) for word in overrides]
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        choices = [str(override.input_line) for override in parsed if not _is_value(override)]
        named = [word for word in choices if word.startswith(f"{_EXPERIMENT}=")]
        tree: dict[str, Any] = {}
        experiment = named[0].partition("=")[2] if len(named) == 1 else ""
        if (node := _node(experiment)) is not None:
            tree, groups = node
            given = {word.partition("=")[0] for word in choices}
            choices = [word for word in choices if word not in named]
            choices += [word for word in groups if word.partition("=")[0] not in given]
        config = self._chosen(config_name, choices, run_mode)
        try:
            if tree:
                config.merge_with(tree)
            values = [word for word in parsed if _is_value(word) and not word.is_sweep_override()]
            self._apply_overrides_to_config(values, config)
        except OmegaConfBaseException as problem:
            raise ConfigCompositionException().with_traceback(sys.exc_info()[2]) from problem
        if node is not None:
            config.hydra.runtime.choices[_EXPERIMENT] = experiment
        _describe(config, parsed)
        return config

    def _chosen(self, config_name: str | None, choices: list[str], run_mode: RunMode) -> DictConfig:
        key = (self._state, config_name, run_mode, *choices)
        if key in _composed:
            made: DictConfig = pickle.loads(_composed[key])
            return made
        if alone := [word for word in choices if _is_alone(word, choices)]:
            config = self._chosen(config_name, [word for word in choices if word not in alone], run_mode)
            for word in alone:
                group, _, name = word.partition("=")
                file = OmegaConf.load(CONF / group / f"{name}.yaml")
                config[group] = OmegaConf.merge(self._schema[group], file)
                config.hydra.runtime.choices[group] = name
        else:
            config = super().load_configuration(config_name, choices, run_mode)
        if len(_composed) >= _MOST:
            _composed.clear()
        _composed[key] = pickle.dumps(config)
        return config


def _version(path: Path) -> tuple[object, ...]:
    """Of a file: another one once it is written to."""
    try:
        stat = path.stat()
    except OSError:  # reading it says why
        return (str(path),)
    return (str(path), stat.st_mtime_ns, stat.st_size)


def _describe(config: DictConfig, parsed: list[Override]) -> None:
    """Put into the configuration what Hydra says of its words."""
    hydra = config.hydra
    words = [override for override in parsed if not override.is_hydra_override()]
    hydra.overrides.task = [override.input_line for override in words]
    hydra.runtime.cwd = os.getcwd()
    how = hydra.job.config.override_dirname
    hydra.job.override_dirname = get_overrides_dirname(words, how.exclude_keys, how.item_sep, how.kv_sep)


@functools.lru_cache(maxsize=4096)
def _parse(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def _is_alone(word: str, choices: Sequence[str]) -> bool:
    """Whether it is the one choice in a group that no other group depends on, with nothing added or deleted
    there, and a file of this project, which sets its own group and nothing else. So a sweep over them
    composes once."""
    group, _, name = word.partition("=")
    others = (re.split("[=@.]", other.lstrip("+~"))[0] for other in choices if other != word)
    return group in _ALONE and (CONF / group / f"{name}.yaml").is_file() and group not in others


def _is_value(override: Override) -> bool:
    """Whether it sets a key that is there, rather than choosing in a group, adding or deleting."""
    key = override.key_or_group
    plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
    return plain and key not in GROUPS and "/" not in key and key.partition(".")[0] != "hydra"


def _node(name: str) -> tuple[dict[str, Any], list[str]] | None:
    """An experiment's point as `pitome.runs.experiments` stores it: its values, and its choices as words."""
    stored = ConfigStore.instance().repo.get(_EXPERIMENT, {}).get(f"{name}.yaml")
    if stored is None:
        return None
    tree: dict[str, Any] = OmegaConf.to_container(stored.node)  # type: ignore[assignment]
    words = []
    for entry in tree.pop("defaults", []):
        if isinstance(entry, dict):
            ((key, choice),) = entry.items()
            words.append(f"{key.removeprefix('override /')}={choice}")
    return tree, words
