"""Labels as people write them. A new case is one line."""

from __future__ import annotations

from typing import Any

import pytest

from pitome.tasks.labels import by_name, class_of, label_of

TWO = {"cat": 0, "Dog": 1}
MANY = {"cat": 0, "dog": 1, "bird": 2}
DIGITS = {"5": 0, "1": 1}  # names that are numbers, in another order
SAME = {"cat": 0, "Cat": 1, "dog": 2}


@pytest.mark.parametrize(
    ("value", "known", "label"),
    [
        (0, TWO, 0),
        (1.0, TWO, 1),
        ("1", TWO, 1),
        (" 1.0 ", TWO, 1),
        ("1e0", TWO, 1),
        (True, TWO, 1),
        ("FALSE", TWO, 0),
        ("dog", TWO, 1),
        (" CAT ", TWO, 0),
        (True, MANY, None),
        ("true", MANY, None),
        ("true", {"false": 1, "true": 0}, 0),
        (True, {"false": 1, "True": 0}, 0),
        (2, TWO, None),
        (-1, TWO, None),
        (0.5, TWO, None),
        ("", TWO, None),
        (None, TWO, None),
        (float("nan"), TWO, None),
        ("inf", TWO, None),
        ("ca", TWO, None),
        ([0], TWO, None),
        (5, DIGITS, 0),
        ("5", DIGITS, 0),
        (5.0, DIGITS, 0),
        ("1.0", DIGITS, 1),
        (0, DIGITS, 0),
        ("cat", SAME, 0),
        ("Cat", SAME, 1),
        ("CAT", SAME, None),
        ("DOG", SAME, 2),
    ],
)
def test_labels(value: Any, known: dict[str, int], label: int | None) -> None:
    assert label_of(value, known) == label


def test_classes_by_name() -> None:
    assert [class_of(name, SAME) for name in ("Cat", "cAT", "dog ", "x")] == [1, None, 2, None]


def test_numbers_that_a_file_explains() -> None:
    assert by_name(["Dog", "cat"], TWO) == {0: 1, 1: 0}
    assert by_name(["LABEL_0", "LABEL_1"], TWO) is None and by_name(None, TWO) is None
