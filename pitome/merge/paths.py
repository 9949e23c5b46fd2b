"""The reference path: the arithmetic that FLOPs are counted on, whatever way is the fastest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_WANTED: ContextVar[bool] = ContextVar("reference path", default=False)


@contextlib.contextmanager
def reference_path() -> Iterator[None]:
    """Methods take no shortcut that another device would not take."""
    token = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(token)


def is_reference() -> bool:
    """Whether it is asked for."""
    return _WANTED.get()
