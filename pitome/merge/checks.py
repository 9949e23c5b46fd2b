"""The types an option can have, and whether a value fits."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union

from pitome.errors import nearest

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_LISTS = {
    bool: "true and false, e.g. [true,false]",
    int: "whole numbers, e.g. [12,10,8]",
    float: "numbers, e.g. [0.9,0.8]",
    str: "texts, e.g. [a,b]",
}
SUPPORTED = "bool, int, float, str, Literal of texts, Sequence of one of these, and None beside them"


def supported(hint: Any) -> bool:
    """Whether an option can have the type `hint`: what a command line can say and a record can keep."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return all(part is type(None) or supported(part) for part in parts)
    if origin is Literal:
        return all(isinstance(part, str) for part in parts)
    if origin is Sequence:
        return parts[0] in _LISTS
    return hint in _WORDS


def fits(value: object, hint: Any) -> bool:
    """Whether `value` is of type `hint`: an int is a float, a bool is no number, nan and inf fit
    nothing. `hint` is one that `supported` accepts."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if hint is type(None):
        return value is None
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is Sequence:
        return (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and all(fits(item, parts[0]) for item in value)
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def explain(value: object, hint: Any) -> str:
    """The end of the error message for a `value` that does not fit `hint`."""
    wanted = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
    if typing.get_origin(hint) is Sequence:
        wanted = [hint]
    if typing.get_origin(hint) is Literal:
        return f"is not known; {nearest(str(value), wanted)}"
    first = wanted[0]
    if typing.get_origin(first) is Literal:
        return f"is not known; {nearest(str(value), typing.get_args(first))}"
    if typing.get_origin(first) is Sequence:
        return f"does not fit; give a list of {_LISTS[typing.get_args(first)[0]]}"
    return f"does not fit; give {_WORDS[first]}"
