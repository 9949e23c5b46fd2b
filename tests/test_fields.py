"""Typed fields: what fits a type, what a rule beside a field adds, and one line for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from pitome.errors import UsageError
from pitome.fields import check, decode, number, whole


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    sizes: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Whole:
    part: Part
    parts: list[Part] = field(default_factory=list)
    by_name: dict[str, Part] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    layers: str | list[int] | None = None
    share: float | list[float] | None = number(None, above=0, most=1, hint="; give a share")
    heat: float = number(0.5, above=0)
    count: int | None = whole(None, least=1)
    kind: Literal["slow", "fast"] = "slow"
    speed: Literal["slow", "fast"] | None = None
    on: bool = False
    text: str | None = None
    mean: tuple[float, ...] | None = None
    kept: Sequence[int] | None = whole(None, least=1)
    flags: list[bool] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


PART = {"name": "a"}
FITS: list[tuple[str, object, object]] = [
    ("part", {"name": "b", "sizes": [1]}, Part(name="b", sizes=[1])),
    ("parts", [PART], [Part(name="a")]),
    ("by_name", {"x": PART}, {"x": Part(name="a")}),
    ("free", {"x": {"y": [None, "z"]}}, {"x": {"y": [None, "z"]}}),
    ("layers", "first3", "first3"),
    ("layers", [0, 1], [0, 1]),
    ("layers", None, None),
    ("share", 1, 1),
    ("share", [0.5, 1], [0.5, 1]),
    ("heat", 3, 3),
    ("count", 1, 1),
    ("kind", "fast", "fast"),
    ("speed", None, None),
    ("mean", [0.5, 1], (0.5, 1)),
    ("kept", (3, 2), (3, 2)),
    ("flags", [True], [True]),
]
DOES_NOT_FIT: list[tuple[str, object, str]] = [
    ("part", 3, "part=3 is not a mapping of keys to values"),
    ("part", {}, "part.name is missing"),
    ("part", PART | {"nam": 1}, "unknown key part.nam; did you mean name? available: name, sizes"),
    ("part", {"name": 3}, "part.name=3 is not text"),
    ("part", {"name": True}, "part.name=True is not text"),
    ("parts", [PART, {"name": None}], "parts[1].name=None is not text"),
    ("parts", PART, "parts={'name': 'a'} is not a list"),
    ("by_name", {"x": {"name": "b", "sizes": [0.5]}}, "by_name.x.sizes[0]=0.5 is not a whole number"),
    ("layers", 3, "layers=3 is not text or a list of whole numbers, e.g. [12,10,8]"),
    ("layers", [True], "layers[0]=True is not a whole number"),
    ("share", 0, "share=0 is outside (0, 1]; give a share"),
    ("share", [0.5, 2], "share[1]=2 is outside (0, 1]; give a share"),
    ("share", "much", "share=much is not a number in (0, 1]; give a share"),
    ("share", True, "share=True is not a number in (0, 1]; give a share"),
    ("share", float("nan"), "share=nan is outside (0, 1]; give a share"),
    ("heat", 0, "heat=0 is not a number above 0"),
    ("heat", float("inf"), "heat=inf is not a number above 0"),
    ("heat", "0.5", "heat='0.5' is not a number above 0"),
    ("count", 0, "count=0 is not a whole number >= 1"),
    ("count", 1.5, "count=1.5 is not a whole number >= 1"),
    ("kind", "fats", "kind=fats is not known; did you mean fast? available: fast, slow"),
    ("kind", None, "kind=None is not known; available: fast, slow"),
    ("speed", 3, "speed=3 is not known; available: fast, slow"),
    ("on", 1, "on=1 is not true or false"),
    ("text", 3, "text=3 is not text"),
    ("text", ["x" * 80], f"text=['{'x' * 55}... is not text"),
    ("kept", "3,2", "kept='3,2' is not a list of whole numbers, e.g. [12,10,8]"),
    ("kept", [3, 0], "kept[1]=0 is not a whole number >= 1"),
    ("mean", 0.5, "mean=0.5 is not a list of numbers, e.g. [0.9,0.8]"),
    ("flags", "on", "flags=on is not a list of true and false, e.g. [true,false]"),
    ("words", "a\nb", "words='a\\nb' is not a list of texts, e.g. [a,b]"),
    ("hat", 1, "unknown key hat; did you mean heat or part or share? available: by_name"),
]


@pytest.mark.parametrize(("name", "value", "read"), FITS)
def test_what_fits(name: str, value: object, read: object) -> None:
    found = decode(Whole, {"part": PART, name: value})
    assert getattr(found, name) == read
    check(found)


@pytest.mark.parametrize(("name", "value", "says"), DOES_NOT_FIT)
def test_what_does_not_fit_is_one_line(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError) as error:
        decode(Whole, {"part": PART, name: value})
    assert str(error.value).startswith(says) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [case for case in DOES_NOT_FIT if case[0] in ("share", "heat", "count", "kind", "on", "kept")],
)
def test_an_instance_is_checked_as_well(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError) as error:
        check(Whole(part=Part(name="a"), **{name: value}))  # type: ignore[arg-type]
    assert str(error.value).startswith(says)


@pytest.mark.parametrize("value", [None, 3, [PART], "text"])
def test_what_is_no_mapping(value: object) -> None:
    with pytest.raises(UsageError, match=r"^it=.* is not a mapping of keys to values$"):
        decode(Part, value)
    with pytest.raises(UsageError, match=r"^data\.part=.* is not a mapping"):
        decode(Part, value, "data.part")


def test_a_command_line_has_no_quotes_and_no_decimals() -> None:
    """A number is text where only text fits, and a whole number is a float; never the other way round."""
    found = decode(Whole, {"part": {"name": 3}, "heat": 2, "text": 0.5, "share": 1}, typed=True)
    assert (found.part.name, found.text) == ("3", "0.5")
    assert isinstance(found.heat, float) and isinstance(found.share, int)
    for name, value in (("layers", 3), ("text", True), ("heat", "2"), ("count", "2"), ("on", 1)):
        with pytest.raises(UsageError, match=f"{name}="):
            decode(Whole, {"part": PART, name: value}, typed=True)
