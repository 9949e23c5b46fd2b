"""Configurations from a command line: every point of a sweep is checked before the first one runs."""

from __future__ import annotations

import dataclasses
import re

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pitome.cli.help import GROUPS
from pitome.config import CONF, Config, choices, import_modules, validate
from pitome.errors import UsageError, nearest


def register_schema() -> None:
    """Put the typed configuration where conf/config.yaml finds it."""
    ConfigStore.instance().store(name="schema", node=Config)


def check_command_line(overrides: list[str], multirun: bool) -> None:
    """Compose and check every point that these overrides ask for. Raises PitomeError, one line."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as problem:
        raise UsageError(one_line(problem)) from None
    offer_own_methods(parsed)
    points = [[str(o.input_line) for o in parsed if not o.is_hydra_override()]]
    if multirun:
        points = _points(parsed)
    elif swept := [o.get_key_element() for o in parsed if o.is_sweep_override()]:
        raise UsageError(f"{swept[0]} has several values; add -m to run all of them")
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        for point in points:
            try:
                config = compose("config", overrides=point)
                validate(OmegaConf.to_object(config))  # type: ignore[arg-type]
            except (HydraException, OmegaConfBaseException) as problem:
                raise UsageError(explain(problem, point)) from None


def offer_own_methods(parsed: list[Override]) -> None:
    """Import what `imports=[...]` names, and let merge= choose the methods registered by it."""
    names = [o.value() for o in parsed if o.get_key_element() == "imports"]
    if not names:
        return
    import_modules([str(name) for name in (names[-1] if isinstance(names[-1], list) else [names[-1]])])
    from pitome.merge import registry

    for name in set(registry.names()) - set(choices("merge")):
        options = dataclasses.asdict(registry.get(name).options())
        ConfigStore.instance().store(group="merge", name=name, node={"name": name, "options": options})


def _points(parsed: list[Override]) -> list[list[str]]:
    """The points of a sweep, as Hydra's own sweeper splits them."""
    sweeper = Plugins.instance().discover(Sweeper)
    basic = next(cls for cls in sweeper if cls.__name__ == "BasicSweeper")
    task = [o for o in parsed if not o.is_hydra_override()]
    return [point for batch in basic.split_arguments(task, None) for point in batch]  # type: ignore[attr-defined]


def explain(problem: Exception, overrides: list[str] | None = None) -> str:
    """Hydra's and OmegaConf's errors as one line, with the nearest names."""
    text = f"{problem} {problem.__cause__ or ''}"
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        group, name = match.groups()
        return f"unknown {group}={name}; {nearest(name, choices(group))}"
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
    node = OmegaConf.select(compose("config", overrides=chosen), parent) if parent else Config()
    beside = (
        list(node) if isinstance(node, dict | DictConfig) else [f.name for f in dataclasses.fields(Config)]
    )
    prefix = f"{parent}." if isinstance(node, dict | DictConfig) else ""
    return f"unknown key {key}; {nearest(prefix + name, [prefix + str(word) for word in beside])}"


def one_line(problem: object) -> str:
    """An error's text without line breaks."""
    return " ".join(str(problem).split()) or type(problem).__name__
