"""Files in a user's own conf/: a mistake is one line before Hydra composes them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pitome.config import Config, choices, custom_folder, find_choice
from pitome.errors import UsageError, nearest
from pitome.fields import decode, types_of
from pitome.sources.hub import say
from pitome.sources.yaml_files import read_yaml


def check_custom_files(chosen: Mapping[str, Iterable[str]]) -> None:
    """Check the user's own files among the choices, group -> names. Raises UsageError."""
    for group, names in chosen.items():
        for name in names:
            path = find_choice(group, name)
            if path is not None and path.parent.parent == custom_folder():
                check_file(group, path)


def check_file(group: str, path: Path) -> None:
    """Raise UsageError, one line, for what is not YAML, for unknown, missing and wrong keys."""
    where = f"conf/{group}/{path.name}"
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ValueError(f"it holds {_word(content)}, expected lines of `key: value`")
        content = {str(key): value for key, value in content.items() if key != "defaults"}
        decode(types_of(Config)[group], content)
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not text in UTF-8; save it as such") from None
    except (ValueError, yaml.YAMLError, OSError) as problem:
        reason = " ".join(str(problem).replace('in "<unicode string>", ', "").split())
        raise UsageError(f"{where} cannot be used: {reason}") from None
    if content.get("name", path.stem) != path.stem:
        raise UsageError(f"{where} has the name {content['name']}; it must be that of the file, {path.stem}")
    if content.get("task") not in (None, *choices("task")):
        raise UsageError(
            f"{where}: unknown task {content['task']}; {nearest(content['task'], choices('task'))}"
        )


def report_unread(configs: Iterable[Config]) -> None:
    """A user's own file may bear the name of one of the project's, which is the one that is read."""
    folder = custom_folder()
    names = {(group, getattr(config, group).name) for config in configs for group in ("model", "data")}
    for group, name in sorted(names):
        custom = folder and folder / group / f"{name}.yaml"
        if custom and custom.is_file() and custom != find_choice(group, name):
            say(f"conf/{group}/{name}.yaml is not read: {group}={name} is the project's")


def _word(content: Any) -> str:
    return {list: "a list", type(None): "nothing"}.get(type(content), "one value")
