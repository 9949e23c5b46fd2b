"""Experiments by their names, read from experiments/*.yaml and checked. Imports no torch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pitome.config import CONF, choices
from pitome.errors import PitomeError, UsageError, nearest
from pitome.fields import decode
from pitome.paper import checks, values
from pitome.paper.schema import RUNS, Experiment
from pitome.sources.hub import say

FOLDER = CONF.parent / "experiments"
OFFLINE, TRAINED = "_offline", "_trained"
GROUPS = ("merge", "model", "data")
_NAMES = "_names.yaml"


class ExperimentError(PitomeError, ValueError):
    """A file of experiments/ with a mistake in it."""


@dataclass(frozen=True)
class Chosen:
    """What `experiment=<word>` asks for: an item, on this project's own model or not, training or not."""

    word: str
    experiment: Experiment
    offline: bool = False
    trained: bool = False

    @property
    def points(self) -> list[values.Point]:
        """The points of its sweep that can be run: those whose model, method and data exist."""
        if self.offline:
            found = values.offline_points(self.experiment)
        elif self.trained:
            found = values.training_points(self.experiment)
        else:
            found = values.points(self.experiment)
        return [point for point in found if missing(point) is None and self.experiment.kind == RUNS]


def words(*, sound: bool = False) -> list[str]:
    """Everything that `experiment=` can be: `table5`, `table5_offline`, `table5_trained`, ...

    A file with a mistake has all of them: whoever asks for one is told the mistake, and nobody else.
    sound: without these files, each of which is one line on stderr."""
    out = []
    for name in names():
        try:
            suffixes = _suffixes(load(name))
        except ExperimentError as problem:
            if sound:
                say(f"left out: {problem}")
                continue
            suffixes = [OFFLINE, TRAINED]
        out += [name, *(name + suffix for suffix in suffixes)]
    return out


def _suffixes(experiment: Experiment) -> list[str]:
    found = [OFFLINE] if experiment.offline is not None else []
    return [*found, TRAINED] if values.training_points(experiment) else found


def is_word(word: str) -> bool:
    """Whether `word` can be that of `experiment=`, by the names of the files, of which none is read."""
    return any(word.removesuffix(suffix) in names() for suffix in ("", OFFLINE, TRAINED))


def names() -> list[str]:
    """The items, tables before figures, in the paper's order."""
    stems = [path.stem for path in FOLDER.glob("*.yaml") if not path.name.startswith("_")]
    return sorted(stems, key=_order)


def choose(word: str) -> Chosen:
    """The experiment behind `word`. Raises UsageError for an unknown one, ExperimentError for a file
    with a mistake."""
    for suffix in (OFFLINE, TRAINED):
        name = word.removesuffix(suffix)
        if name != word and name in names():
            chosen = Chosen(word, load(name), suffix == OFFLINE, suffix == TRAINED)
            none = not chosen.points and chosen.experiment.kind == RUNS
            if none or suffix not in _suffixes(chosen.experiment):
                raise UsageError(f"experiment={name} has no points for {word}; use experiment={name}")
            return chosen
    if word not in names():
        raise UsageError(f"unknown experiment={word}; {nearest(word, words())}")
    return Chosen(word, load(word))


def load(name: str) -> Experiment:
    """The experiment of a file. Raises ExperimentError, one line, for a mistake in it."""
    return _load(FOLDER / f"{name}.yaml")


@functools.cache
def _load(path: Path) -> Experiment:
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ValueError("it holds no lines of `key: value`; docs/adding.md has an example")
        if "name" in content:
            raise ValueError("unknown field name: it is that of the file")
        experiment = decode(Experiment, {"name": path.stem} | content)
        checks.check(
            experiment, {group: set(known().get(group, {})) | _available(group) for group in checks.GROUPS}
        )
    except (ValueError, OverflowError, yaml.YAMLError, OSError) as problem:
        raise _error(path, problem) from None
    return experiment


def _error(path: Path, problem: Exception) -> ExperimentError:
    return ExperimentError(f"{path.parent.name}/{path.name}: {' '.join(str(problem).split())}")


def label(group: str, name: object) -> str:
    """What the paper calls one of ours; our own name where it has none."""
    return known()[group].get(str(name), str(name))


def missing(point: Mapping[str, Any]) -> str | None:
    """Why a point cannot be run: its method, model or data are not built here; None if they are."""
    for group in GROUPS:
        name = point.get(group)
        if name is not None and name not in _available(group):
            return f"{group}={name} is not among this project's; see python run.py --help"
    return None


@functools.cache
def known() -> dict[str, dict[str, str]]:
    """Group -> our name -> the paper's."""
    path = FOLDER / _NAMES
    try:
        found = read_yaml(path)
        if not isinstance(found, dict) or not all(isinstance(found.get(group), dict) for group in GROUPS):
            raise ValueError(f"it needs {', '.join(GROUPS)}, each with lines of `name: label`")
    except (ValueError, yaml.YAMLError, OSError) as problem:
        raise _error(path, problem) from None
    return {group: {str(name): str(label) for name, label in found[group].items()} for group in GROUPS}


def read_yaml(path: Path) -> Any:
    """A YAML file; a key that stands twice is an error, as it is mostly a typo.

    Raises yaml.YAMLError or OSError.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)


class _Strict(yaml.CSafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag[-5:] != "merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", node.start_mark
                )
        return dict(super().construct_mapping(node, deep))


@functools.cache
def _available(group: str) -> frozenset[str]:
    return frozenset(choices(group))


def _order(name: str) -> tuple[int, int, str]:
    kind = name.rstrip("0123456789")
    number = name[len(kind) :]
    place = {"table": 0, "figure": 1}.get(kind, 2)
    return place, int(number) if number else sys.maxsize, name
