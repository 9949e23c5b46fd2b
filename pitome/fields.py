"""Typed fields: plain values, as YAML, JSON and a command line give them, become dataclasses.

The type of a field says what fits: bool, int, float, str, None, Literal of texts, list, Sequence, tuple
and dict[str, ...] of these, dataclasses, unions, Any. What a type cannot say, `whole`, `number` and
`text` say beside the field. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Literal, TypeVar, Union

from pitome.errors import UsageError, nearest

T = TypeVar("T")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_LISTS = {
    bool: "a list of true and false, e.g. [true,false]",
    int: "a list of whole numbers, e.g. [12,10,8]",
    float: "a list of numbers, e.g. [0.9,0.8]",
    str: "a list of texts, e.g. [a,b]",
}
_NOTHING = type(None)


@dataclass(frozen=True)
class Rule:
    """What a field asks of a value beyond its type; of a list it asks it of every entry."""

    accepts: Callable[[Any], bool]  # called with values of the right type alone
    ending: str  # of the message for a number that is not accepted, e.g. "is outside (0, 1]"
    other: str  # of the message for a value of another type, e.g. "is not a number in (0, 1]"


def whole(default: Any = MISSING, *, least: int, hint: str = "") -> Any:
    """A field for whole numbers of at least `least`. default: `dict` or `list` for an empty one; hint: the
    end of the message."""
    ending = f"is not a whole number >= {least}{hint}"
    return _field(default, Rule(lambda value: value >= least, ending, ending))


def number(
    default: Any = MISSING, *, above: float | None = None, least: float = -math.inf, most: float = math.inf,
    hint: str = "",
) -> Any:  # fmt: skip
    """A field for numbers > `above` or >= `least`, and <= `most`; default and hint as of `whole`."""
    low = least if above is None else above
    bracket, sign = ("[", ">=") if above is None else ("(", "above")
    if math.isfinite(most):
        interval = f"{bracket}{low:g}, {most:g}]"
        ending, other = f"is outside {interval}{hint}", f"is not a number in {interval}{hint}"
    else:
        ending = other = f"is not a number {sign} {low:g}{hint}"

    def accepts(value: float) -> bool:
        return (value >= low if above is None else value > low) and value <= most

    return _field(default, Rule(accepts, ending, other))


def text(default: Any = MISSING, *, pattern: str, hint: str) -> Any:
    """A field for texts that a regular expression matches as a whole; hint: what to give instead."""
    ending = f"is not known; {hint}"
    return _field(default, Rule(lambda value: bool(re.fullmatch(pattern, value)), ending, ending))


def later(default: Any, unsaid: Any = MISSING) -> Any:
    """A field that a class of options was given after records of it had been written: at its default (or at
    `unsaid`, what a default of None stands for) a record leaves it out, so that older records stay valid.
    default: a value, or a field such as `number(0.0, least=0)`."""
    rule = dict(default.metadata) if isinstance(default, Field) else {}
    value = default.default if isinstance(default, Field) else default
    return field(default=value, metadata=rule | {"unsaid": value if unsaid is MISSING else unsaid})


def recorded(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass as a record keeps them, without those of `later` that say nothing new."""
    return without_later(type(instance), dataclasses.asdict(instance))


def without_later(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of fields of a dataclass without those of `later` that say nothing new."""
    unsaid = {
        option.name: (option.default, option.metadata["unsaid"])
        for option in dataclasses.fields(kind)
        if "unsaid" in option.metadata
    }
    return {name: value for name, value in values.items() if value not in unsaid.get(name, ())}


def like(kind: type, name: str) -> Any:
    """A field with the default and the rule of the field `name` of another dataclass."""
    (declared,) = (option for option in dataclasses.fields(kind) if option.name == name)
    return field(default=declared.default, metadata=declared.metadata)


def _field(default: Any, rule: Rule) -> Any:
    made = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**made, metadata={"rule": rule})


def decode(kind: type[T], values: object, path: str = "", *, typed: bool = False) -> T:
    """`values`, a mapping, as an instance of the dataclass `kind`.

    path: of the mapping, which stands in front of its keys in messages; typed: as a person has typed it:
    a number is taken for text where only text fits, and a whole number for a float. Raises UsageError,
    one line that names the key: missing, unknown or with a value that does not fit.
    """
    if not isinstance(values, Mapping):
        raise UsageError(_message(path or "it", values, "is not a mapping of keys to values"))
    prefix = f"{path}." if path else ""
    known = {option.name: option for option in dataclasses.fields(kind) if option.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {prefix}{key}; {nearest(str(key), known)}")
    hints, read = types_of(kind), {}
    for name, declared in known.items():
        if name in values:
            value = _read(hints[name], values[name], prefix + name, declared.metadata.get("rule"), typed)
            read[name] = float(value) if typed and hints[name] is float else value
        elif declared.default is MISSING and declared.default_factory is MISSING:
            raise UsageError(f"{prefix}{name} is missing")
    return kind(**read)


def check(instance: Any, path: str = "") -> None:
    """Check the values that a dataclass was made with. Raises UsageError, one line that names the field."""
    hints, prefix = types_of(type(instance)), f"{path}." if path else ""
    for option in dataclasses.fields(instance):
        rule = option.metadata.get("rule")
        _read(hints[option.name], getattr(instance, option.name), prefix + option.name, rule, False)


def fits(kind: type, name: str, value: object) -> object:
    """`value` as one of the field `name` of the dataclass `kind`, as a person types it. Raises UsageError."""
    rule = next(option.metadata.get("rule") for option in dataclasses.fields(kind) if option.name == name)
    return _read(types_of(kind)[name], value, name, rule, True)


def types_of(kind: Any) -> dict[str, Any]:
    """Field -> type, evaluated."""
    return _types_of(kind)


_types_of = functools.cache(typing.get_type_hints)


def parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of any other type the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _read(hint: Any, value: Any, path: str, rule: Rule | None, typed: bool) -> Any:
    """`value` as one of type `hint`."""
    if hint is Any:
        return value
    choices = [part for part in parts(hint) if part is not _NOTHING]
    if value is None and _NOTHING in parts(hint):
        return None
    if typed and _takes_text(choices) and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    for choice in choices:
        if _accepts(choice, value):
            return _read_inside(choice, value, path, rule, typed)
    if rule is None or not {int, float} & set(choices):
        raise UsageError(_message(path, value, _expected(choices, value)))
    raise UsageError(_message(path, value, rule.ending if isinstance(value, float) else rule.other))


def _read_inside(hint: Any, value: Any, path: str, rule: Rule | None, typed: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, tuple, Sequence):
        items = [_read(arguments[0], item, f"{path}[{i}]", rule, typed) for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else value if origin is Sequence else items
    if origin is dict:
        return {key: _read(arguments[1], item, f"{path}.{key}", rule, typed) for key, item in value.items()}
    if _is_dataclass(hint):
        return value if isinstance(value, hint) else decode(hint, value, path, typed=typed)
    if rule is not None and not rule.accepts(value):
        raise UsageError(_message(path, value, rule.ending))
    return value


def _accepts(hint: Any, value: object) -> bool:
    """Whether `value` is of the kind `hint`, whatever a list or a mapping holds: an int is a float, a bool
    is not a number, nan and inf fit nothing."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return type(value) in (str, int) and value in typing.get_args(hint)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple)
    if origin is dict:
        return isinstance(value, Mapping)
    if _is_dataclass(hint):
        return isinstance(value, Mapping | hint)
    if hint is float:
        if isinstance(value, float):
            return math.isfinite(value)
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _takes_text(choices: Sequence[Any]) -> bool:
    """Whether a text, free or of a few, is all that a field takes."""
    hint, arguments = choices[0], typing.get_args(choices[0])
    return len(choices) == 1 and (
        hint is str or (typing.get_origin(hint) is Literal and isinstance(arguments[0], str))
    )


def _is_dataclass(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _expected(choices: Sequence[Any], value: object) -> str:
    """The end of the message for a value of another type than these."""
    if typing.get_origin(choices[0]) is Literal:
        return f"is not known; {nearest(str(value), map(str, typing.get_args(choices[0])))}"
    return f"is not {' or '.join(_name(choice) for choice in choices)}"


def _name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, tuple, Sequence):
        return _LISTS.get(arguments[0], "a list")
    return _WORDS.get(hint, "a mapping of keys to values")


def _message(path: str, value: object, ending: str) -> str:
    return f"{path}={shown(value)} {ending}"


def shown(value: object) -> str:
    """A value in a message: a word as it is, another text in quotes, nothing long."""
    text = str(value)
    word = isinstance(value, str) and text[:1].isalpha() and " " not in text and text.isprintable()
    if not word or text in ("true", "false", "null", "nan", "inf"):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
