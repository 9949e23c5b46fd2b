"""The words of a command line, in Hydra's grammar: parsed, counted and checked before Hydra composes them."""

from __future__ import annotations

import dataclasses
import decimal
import importlib.util
import math
import re
from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.core.plugins import Plugins
from hydra.errors import OverrideParseException
from hydra.plugins.sweeper import Sweeper

from pitome.config import CONF, GROUPS, Config, choices
from pitome.errors import UsageError, nearest, one_line
from pitome.fields import shown
from pitome.merge import plugins
from pitome.paper.experiments import is_experiment
from pitome.sources.yaml_files import read_yaml

LAUNCHER = "hydra/launcher"
MAX_POINTS = 10_000
"""Of a sweep. More are a mistake: checking them alone takes minutes."""

_MAX_DIGITS = 300  # of a number; the largest float has 309
_OPTIONAL = ("trainer", "experiment")  # groups that may be null
_BARE = re.compile(r"[\w./-]+")  # a word without a key
_FIXED = re.compile(r"hydra|hydra[./](sweeper|mode|searchpath)\b.*")  # what this project sets itself


def parse(words: Sequence[str], multirun: bool) -> list[Override]:
    """The overrides of a command line. Raises UsageError for what is no override or cannot be used here, a
    sweep without -m, and one that has no end, no point or more than MAX_POINTS."""
    for word in words:
        if not word.isprintable() and word.encode(errors="replace") != word.encode(errors="ignore"):
            raise UsageError(
                f"{word!a} is not text in UTF-8; rename the file, or give it another name by a link"
            )
        if digits := re.search(rf"\d{{{_MAX_DIGITS},}}", word):
            raise UsageError(f"a number of {len(digits[0])} digits in {word}; no number here is so large")
        if _BARE.fullmatch(word):
            raise UsageError(f"{word} is not KEY=VALUE; {_meant_by(word)}")
    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except OverrideParseException as problem:
        raise UsageError(one_line(problem)) from None
    for override in parsed:
        _check(override)
        if override.is_sweep_override() and not multirun:
            raise UsageError(f"{override.get_key_element()} has several values; add -m to run all of them")
    values = {override.get_key_element(): _count(override) for override in parsed}
    count = math.prod(values.values())
    if count > MAX_POINTS:
        parts = " x ".join(f"{key} {n:,}" for key, n in values.items() if n > 1)
        raise UsageError(f"the sweep has {count:,} points ({parts}); give at most {MAX_POINTS:,}")
    return parsed


def points(parsed: Sequence[Override], multirun: bool) -> list[list[str]]:
    """The words of each point of a command line."""
    task = [override for override in parsed if not override.is_hydra_override()]
    if not multirun:
        return [[str(override.input_line) for override in task]]
    sweeper = Plugins.instance().discover(Sweeper)
    basic = next(cls for cls in sweeper if cls.__name__ == "BasicSweeper")
    for override in task:
        override.config_loader = _Names()  # type: ignore[assignment]  # for glob() alone
    return [point for batch in basic.split_arguments(task, None) for point in batch]  # type: ignore[attr-defined]


def chosen(parsed: Sequence[Override], group: str) -> set[str]:
    """The names that a command line chooses in a group, those of a sweep included."""
    return {
        str(name)
        for override in parsed
        if override.get_key_element() == group and not override.is_delete()
        for name in _names(override)
    }


def check_choices(parsed: Sequence[Override]) -> None:
    """Raises UsageError for names that are not offered. Hydra itself would pass over a trainer, which
    conf/config.yaml takes from the data set if there is one."""
    for group in GROUPS:
        known = set(offered(group)) if group != "experiment" else set()  # whose names are known by now
        for name in sorted(chosen(parsed, group) - known if known else ()):
            if name != "None" or group not in _OPTIONAL:
                raise UsageError(f"unknown {group}={name}; {nearest(name, known)}")


def check_launcher(parsed: Sequence[Override], multirun: bool) -> None:
    """Raises UsageError for a launcher that is not there, whose engine is not installed, or that is given
    without a sweep or with a key that it does not have."""
    here = {path.stem: path for path in (CONF / LAUNCHER).glob("*.yaml")}
    known = {
        *here,
        *(name.removesuffix(".yaml") for name in ConfigStore.instance().repo["hydra"]["launcher"]),
    }
    for name in chosen(parsed, LAUNCHER):
        engine = name.partition("_")[0]
        if name not in known:
            raise UsageError(f"unknown {LAUNCHER}={name}; {nearest(name, known)}")
        if name in here and importlib.util.find_spec(engine) is None:
            raise UsageError(f"{LAUNCHER}={name} needs {engine}: pip install 'pitome[{engine}]'")
        if not multirun:
            raise UsageError(f"{LAUNCHER}={name} is for sweeps; add -m")
        keys = [f"hydra.launcher.{key}" for key in (read_yaml(here[name]) if name in here else {})]
        for key in (override.key_or_group for override in parsed if keys):
            if key.startswith("hydra.launcher.") and ".".join(key.split(".")[:3]) not in keys:
                raise UsageError(f"unknown key {key}; {nearest(key, keys)}")


def offered(group: str) -> list[str]:
    """What a group can be: the names in conf/, and methods from elsewhere."""
    known = set(_Names().get_group_options(group))
    return sorted(known | plugins.offered().keys() if group == "merge" else known)


class _Names:
    """Gives Hydra's glob() the names of a group."""

    def get_group_options(self, group: str, **_: object) -> list[str]:
        stored = ConfigStore.instance().repo.get(group, {})
        names = {*choices(group), *(name.removesuffix(".yaml") for name in stored if group == "merge")}
        return sorted(names)


def _meant_by(word: str) -> str:
    """What a word without `=` may have been meant as."""
    if word == "tune":
        return "write mode=search"
    if word in ("report", "tokens", "bench"):
        script = {"report": "scripts/report.py", "tokens": "scripts/show_tokens.py"}.get(word)
        return f"use python {script}" if script else "use make bench"
    keys = [*GROUPS, *(field.name for field in dataclasses.fields(Config))]
    if word in keys:
        return f"write {word}=VALUE"
    meant = [f"-m experiment={word}"] if is_experiment(word) else []
    meant += [f"{group}={word}" for group in GROUPS if group != "experiment" and word in offered(group)]
    return f"write {' or '.join(meant)}" if meant else "python run.py --help lists all choices and keys"


def _check(override: Override) -> None:
    key, element = override.key_or_group, override.get_key_element()
    if not key:
        raise UsageError(f"{override.input_line} sets no key; write KEY=VALUE")
    if _FIXED.fullmatch(key):
        instead = "; give the values of a sweep as KEY=VALUE,VALUE" if "sweeper" in key else ""
        raise UsageError(f"{element} cannot be set{instead}")
    if override.is_hydra_override() and override.is_sweep_override():
        raise UsageError(f"{element} has several values; all runs of a sweep share it, give one")
    if key.startswith("hydra/") and not override.is_delete():
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str | QuotedString | None):
                raise UsageError(f"{element}={shown(value)} is not a name, nor a list of names")
    if key in GROUPS and override.package is None:
        if override.is_delete() and key not in _OPTIONAL:
            raise UsageError(f"{element}: a run needs a {key}; choose another one with {key}=NAME")
        for name in () if override.is_delete() else _names(override):
            if not (isinstance(name, str) or (name is None and key in _OPTIONAL)):
                raise UsageError(
                    f"{key}={shown(name)} is not a name; python run.py --help lists what {key} can be"
                )


def _names(override: Override) -> Sequence[object]:
    """The values that an override gives one after the other."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [name.text if isinstance(name, QuotedString) else name for name in value.list]
    if isinstance(value, Glob):
        return value.filter(_Names().get_group_options(override.key_or_group))
    return [value]


def _count(override: Override) -> int:
    """How many values a sweep has for one key. Raises UsageError for none, and for what cannot be
    counted."""
    value, word = override.value(), override.input_line
    if isinstance(value, IntervalSweep):
        raise UsageError(f"{word}: an interval has no single values; give them, or range(FIRST,END,STEP)")
    if not isinstance(value, RangeSweep):
        count = len(_names(override))
    else:
        numbers = (value.start, value.stop, value.step)
        if (
            not all(isinstance(number, int) or math.isfinite(number or 0) for number in numbers)
            or not value.step
        ):
            raise UsageError(f"{word} has no end; give finite numbers and a step that is not 0")
        start, stop, step = (decimal.Decimal(number or 0) for number in numbers)
        count = max(math.ceil((stop - start) / step), 0)
    if not 0 < count <= MAX_POINTS:
        raise UsageError(f"{word} has {count:,} values; give 1 to {MAX_POINTS:,}")
    return count
