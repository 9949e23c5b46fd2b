"""The command that makes a record again, from the configuration it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitome.paper.files import conf_file
from pitome.paper.points import argument
from pitome.records.identity import RESIZE, canonical
from pitome.records.schema import Record

_GROUPS = ("task", "model", "data", "merge")
_LEFT_OUT = (*_GROUPS, "logger", "device", "overwrite", "rerun", "control", "trainer")
"""Beside the groups: what no result depends on, and what is written out below."""


def command_of(record: Record) -> str:
    """`python run.py` with every choice that differs from conf/. Files and folders are named as the record
    names them, without their place on a machine."""
    config = record.config
    words: dict[str, Any] = {}
    for group in _GROUPS:
        if "name" in _part(config, group):
            words[group] = config[group]["name"]
    if record.method.name == RESIZE:
        # The control is made beside a merged run that may cost what it costs.
        words["merge"] = "tome"
        words["flops"] = record.method.asked.get("shares", [None])[0]
        words["control"] = RESIZE
    groups = (*_GROUPS, "trainer") if record.mode == "train" else _GROUPS
    for group in groups:
        part = _part(config, group)
        name = words.get(group, words.get("data"))
        for key, value in _changed(part, conf_file(group, str(name))).items():
            if record.method.name != RESIZE or group != "merge":
                words[f"{group}.{key}"] = value
    root = _part(config, "data").get("root")
    if root is not None and "root" not in conf_file("data", str(words.get("data"))):
        words["data.root"] = root
    for key, default in conf_file("", "config").items():
        if key not in _LEFT_OUT and key in config and canonical(config[key]) != canonical(default):
            words.setdefault(key, config[key])
    return " ".join(["python run.py", *(f"{key}={_quoted(value)}" for key, value in words.items())])


def _changed(values: Mapping[str, Any], file: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of what a file of conf/ says otherwise. Keys that only one side has are those of
    another version, or defaults, unless they hold options."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in file or key == "defaults":
            continue
        if isinstance(value, Mapping) and isinstance(file[key], Mapping):
            out |= _changed(value, file[key], f"{prefix}{key}.")
        elif canonical(value) != canonical(file[key]):
            out[prefix + key] = value
    return out


def _part(config: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    part = config.get(group)
    return part if isinstance(part, Mapping) else {}


def _quoted(value: Any) -> str:
    """As a shell needs it."""
    text = argument(value)
    return f"'{text}'" if any(sign in text for sign in " ()'\"[]{}") else text
