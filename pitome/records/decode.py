"""From plain dictionaries to typed dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """`value`, as json.loads gives it, as an instance of the dataclass `kind`.

    Fields may be str, int, float, bool, None, Any, list[...], dict[str, ...], dataclasses, and
    unions of these. Raises ValueError that names the field: missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{path or 'record'} is {_short(value)}, expected an object")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in fields:
            raise ValueError(f"unknown field {prefix}{name}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ValueError(f"field {prefix}{name} is missing")
    return kind(**{name: _decode(hints[name], item, prefix + name) for name, item in value.items()})


def _decode(kind: Any, value: Any, path: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = [a for a in arguments if a is not type(None)]  # only `X | None` is used
        return _decode(kind, value, path)
    if origin is list and isinstance(value, list):
        return [_decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return decode(typing.cast(type, kind), value, path)
    accepted = (int, float) if kind is float else (origin or kind)
    # bool is an int to Python, but true is no count
    if isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"field {path} is {_short(value)}, expected {_name(kind)}")


def _name(kind: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind, "a list" if typing.get_origin(kind) is list else "an object")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
