"""Versions of what a result depends on. Imports none of it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "lightning", "numpy")


def versions() -> dict[str, str]:
    """Name -> version of Python and of the installed packages."""
    out = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:  # the library needs fewer than run.py
            continue
    return out
