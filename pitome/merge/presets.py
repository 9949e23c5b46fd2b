"""Options of the `_repo` presets, which the authors' code sets for every family of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pitome.errors import UsageError

Options = TypeVar("Options")

TEXT_LAYERS = {family: {"layers": "first3"} for family in ("bert", "distilbert")}
"""Where the authors' code merges in texts (algo/*/patch/bert.py, distilbert.py)."""


def fill(method: str, options: Options, family: str, table: Mapping[str, Mapping[str, Any]]) -> Options:
    """`options` with everything left at None taken from `table[family]`.

    Raises UsageError for a family that is not in the table.
    """
    if family not in table:
        raise UsageError(
            f"merge={method} is not defined for family={family}; it knows {', '.join(table)}; "
            f"give one of them as family=..., or use merge={method.removesuffix('_repo')}"
        )
    missing = {name: value for name, value in table[family].items() if getattr(options, name) is None}
    return dataclasses.replace(options, **missing)  # type: ignore[type-var]
