"""A checkout of the authors' repository: what is looked for in it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pitome.errors import UsageError

# Our name of what the repository runs -> where it patches a DeiT (hchautran/PiToMe at 550b5de).
METHODS = {
    "pitome": "algo.pitome.patch.deit",
    "tome": "algo.tome.patch.deit",
    "tofu": "algo.tofu.patch.deit",
    "diffrate": "algo.DiffRate.patch.deit",
}


def check_checkout(checkout: Path, methods: Sequence[str] = tuple(METHODS)) -> None:
    """Raises UsageError for a folder that lacks the files of `methods`."""
    for method in methods:
        file = checkout.joinpath(*METHODS[method].split(".")).with_suffix(".py")
        if not file.is_file():
            raise UsageError(
                f"{checkout} is not a checkout of the PiToMe repository: it has no "
                f"{file.relative_to(checkout)}; clone hchautran/PiToMe and give its folder"
            )
