"""Merge methods of other distributions: entry points of the group `pitome.methods`.

An entry point bears the name of a method and names the module that registers it. Imports no torch
before a method is loaded.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from importlib.metadata import EntryPoint

from pitome.errors import MethodError, PitomeError

GROUP = "pitome.methods"

_log = logging.getLogger("pitome")


@functools.cache
def offered() -> dict[str, EntryPoint]:
    """Method name -> entry point, from the metadata of what is installed; nothing is imported.

    Of two distributions that offer the same name the first by its own name counts, with a warning.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(
        importlib.metadata.entry_points(group=GROUP), key=lambda e: (e.name, distribution(e))
    ):
        first = found.setdefault(entry.name, entry)
        if distribution(first) != distribution(entry):
            _log.warning(
                "merge=%s of %s is left out: %s offers that name too",
                entry.name,
                distribution(entry),
                distribution(first),
            )
    return found


def load(name: str) -> None:
    """Import the module of the entry point `name`. Raises MethodError that names its distribution,
    whatever the module does."""
    entry = offered()[name]
    try:
        entry.load()
    except (Exception, SystemExit) as problem:
        raise MethodError(
            f"merge={name} of the distribution {distribution(entry)} cannot be loaded ({reason(problem)})"
        ) from None


def distribution(entry: EntryPoint) -> str:
    """The name of the distribution that brings `entry`."""
    return entry.dist.name if entry.dist is not None else "unknown"


def reason(problem: BaseException) -> str:
    """An error in one line, with its type unless it is one of ours."""
    text = " ".join(str(problem).split())
    kind = type(problem).__name__
    return text if isinstance(problem, PitomeError) else f"{kind}: {text}" if text else kind
