"""Step 1: the files of experiments/, and the files of conf/ that they name. Imports no torch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pitome.config import CONF, choices, custom_folder, find_choice
from pitome.errors import PitomeError
from pitome.sources.yaml_files import read_yaml

FOLDER = CONF.parent / "experiments"
GROUP = "experiment"
LABELLED = ("merge", "model", "data")  # groups of conf/ for which the paper has names of its own
READ_ERRORS = (ValueError, OverflowError, yaml.YAMLError, OSError)


class ExperimentError(PitomeError, ValueError):
    """A file of experiments/ with a mistake in it."""

    def __init__(self, path: Path, problem: Exception) -> None:
        super().__init__(f"{path.parent.name}/{path.name}: {' '.join(str(problem).split())}")


def item_paths() -> dict[str, Path]:
    """Name -> file: those of experiments/, and the user's own in ./conf/experiment."""
    own = custom_folder()
    paths = [] if own is None else [path for path in (own / GROUP).glob("*.yaml") if path.is_file()]
    paths = [path for path in paths if not _is_hydra(path)]
    return {path.stem: path for path in [*paths, *FOLDER.glob("*.yaml")] if path.name[0] != "_"}


def item_names() -> list[str]:
    """The names of the files: tables, then figures, then others, in the paper's order."""
    return sorted(item_paths(), key=_place)


def is_hydra_experiment(name: str) -> bool:
    """Whether a name is a file of the user's own that Hydra composes itself."""
    path = find_choice(GROUP, name)
    return path is not None and _is_hydra(path)


def _is_hydra(path: Path) -> bool:
    """Whether a file is overrides of a run, which begin with `# @package _global_`, and no item."""
    return path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("# @package")


def read_item(path: Path) -> dict[str, Any]:
    """The content of an item's file. Raises one of READ_ERRORS."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError("it holds no lines of `key: value`; docs/adding.md has an example")
    if "name" in content:
        raise ValueError("unknown key name: it is that of the file")
    return {"name": path.stem} | content


@functools.cache
def labels() -> dict[str, dict[str, str]]:
    """Group of conf/ -> our name -> the paper's. Raises ExperimentError for a mistake in _names.yaml."""
    path = FOLDER / "_names.yaml"
    try:
        content = read_yaml(path)
        if not isinstance(content, dict) or not all(isinstance(content.get(g), dict) for g in LABELLED):
            raise ValueError(f"it needs {', '.join(LABELLED)}, each with lines of `name: label`")
    except READ_ERRORS as problem:
        raise ExperimentError(path, problem) from None
    return {group: {str(name): str(text) for name, text in content[group].items()} for group in LABELLED}


@functools.cache
def available(group: str) -> frozenset[str]:
    """The names in a group of conf/, the user's own among them."""
    return frozenset(choices(group))


def conf_file(group: str, name: str) -> Mapping[str, Any]:
    """The content of conf/<group>/<name>.yaml, the project's or the user's own; empty where there is
    none."""
    path = find_choice(group, name)
    return {} if path is None else _conf_file(path)


@functools.cache
def _conf_file(path: Path) -> Mapping[str, Any]:
    return read_yaml(path) or {}


def method_options(method: str) -> dict[str, Any]:
    """The default options of a method, without the seed of a control, which is the run's."""
    options = conf_file("merge", method).get("options") or {}
    return {key: value for key, value in options.items() if key != "seed"}


def _place(name: str) -> tuple[int, int, str]:
    kind = name.rstrip("0123456789")
    number = name[len(kind) :]
    return {"table": 0, "figure": 1}.get(kind, 2), int(number) if number else sys.maxsize, name
