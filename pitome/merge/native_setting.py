"""Whether the compiled kernel is wanted, by the environment. Imports no torch."""

from __future__ import annotations

import os

from pitome.errors import UsageError

VARIABLE = "PITOME_NATIVE"


def wanted() -> str:
    """`auto`, `on` or `off`. Raises UsageError for anything else."""
    value = os.environ.get(VARIABLE) or "auto"
    if value not in ("auto", "on", "off"):
        raise UsageError(f"{VARIABLE}={value}: give auto, on or off")
    return value
