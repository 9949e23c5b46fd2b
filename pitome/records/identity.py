"""What identifies a run: two runs with the same identity are the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

RESULT_VERSION = 1
"""Raised by hand whenever the same inputs may give other numbers than before."""

UNMERGED = "none"
"""Name of the method that merges nothing: every comparison's baseline."""

RESIZE = "resize"
"""Name of the control that merges nothing either, but sees a smaller image at equal cost."""

CONTROLS = ("random", "stride", RESIZE)
"""Content-blind controls: none of them looks at the tokens, so every method has to beat them."""


def build_identity(
    *,
    task: str,
    model: str,
    weights_sha256: str | None,
    data: str,
    revision: str | None,
    split: str | None,
    limit: int | None,
    method: str,
    options: Mapping[str, Any],
    schedule: Any,
    precision: str,
    seed: int,
    measure: str,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a result depends on, and nothing else (no logger, path, device or worker count).

    weights_sha256: None for random weights, which the seed fixes. limit: None for the whole split.
    options: all options of the method, with their defaults. schedule: what each layer does (ratios,
    removals or token counts), so that two ways to ask for the same layers are one run.
    settings: what a task's result depends on besides; left out where there is nothing to say.
    The unmerged model has no options and no schedule: it is one run whatever ratio was asked.
    """
    merges = method != UNMERGED
    extra = {"settings": dict(settings)} if settings else {}
    return {
        "task": task,
        "model": model,
        "weights_sha256": weights_sha256,
        "data": {"name": data, "revision": revision, "split": split, "limit": limit},
        "method": {
            "name": method,
            "options": dict(options) if merges else {},
            "schedule": schedule if merges else None,
        },
        "precision": precision,
        "seed": seed,
        "measure": measure,
        "result_version": RESULT_VERSION,
    } | extra


def run_id(identity: Mapping[str, Any]) -> str:
    """The first 16 digits of the fingerprint of the identity."""
    return fingerprint(identity)[:16]


def fingerprint(value: Any) -> str:
    """64 hexadecimal digits: the SHA-256 of a value as canonical JSON.

    Key order, tuple or list, and 1 or 1.0 make no difference. Raises TypeError or ValueError for
    values that JSON cannot hold (tensors, nan).
    """
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> Any:
    """The same value in the one form that is hashed and compared."""
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # YAML and the command line write 1 and 1.0 for the same thing
    return value
