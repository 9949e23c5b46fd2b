"""Composes the points of a sweep quickly: each combination of choices once, other values on a copy of it."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from pitome.config import CONF, GROUPS, Config, defaults

_EXPERIMENT = "experiment"
_ALONE = ("model", "merge", "logger")


class Composer:
    """Within `hydra.initialize_config_dir`: gives what `hydra.compose` gives."""

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], bytes] = {}  # pickled, which is read faster than copied
        self._schema = OmegaConf.create(defaults(Config))

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """The configuration of one point. Raises what Hydra and OmegaConf raise."""
        parsed = [_parse(word) for word in words]
        values = [override for override in parsed if _is_value(override)]
        choices = [str(override.input_line) for override in parsed if not _is_value(override)]
        tree: dict[str, Any] = {}
        named = [word for word in choices if word.startswith(f"{_EXPERIMENT}=")]
        if len(named) == 1 and (node := _node(named[0].partition("=")[2])) is not None:
            tree, groups = node
            given = {word.partition("=")[0] for word in choices}
            choices = [word for word in choices if word not in named]
            choices += [word for word in groups if word.partition("=")[0] not in given]
        config = self._chosen(tuple(sorted(choices)))
        if tree:
            config.merge_with(tree)
        for override in values:
            key = override.key_or_group
            try:
                OmegaConf.update(config, key, override.value(), merge=True)
            except (ConfigAttributeError, ConfigKeyError) as problem:
                raise ConfigCompositionException(f"Could not override '{key}'") from problem
        return config

    def _chosen(self, choices: tuple[str, ...]) -> DictConfig:
        if choices not in self._composed:
            alone = [word for word in choices if _is_alone(word, choices)]
            if alone:
                config = self._chosen(tuple(word for word in choices if word not in alone))
                for word in alone:
                    group, _, name = word.partition("=")
                    file = OmegaConf.load(CONF / group / f"{name}.yaml")
                    config[group] = OmegaConf.merge(self._schema[group], file)
            else:
                config = compose("config", overrides=list(choices))
            self._composed[choices] = pickle.dumps(config)
        made: DictConfig = pickle.loads(self._composed[choices])
        return made


@functools.lru_cache(maxsize=4096)
def _parse(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def _is_alone(word: str, choices: Sequence[str]) -> bool:
    """Whether it is a choice in a group that no other group depends on, a file of this project, which sets
    its own group and nothing else, and no other word is about that group. A sweep over such composes once."""
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
