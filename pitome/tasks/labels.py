"""Labels as people write them: names of classes in any case, and numbers. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pitome.errors import DataError


def class_of(name: str, known: Mapping[str, int]) -> int | None:
    """The label of a class by its name, if need be in another case; None if no class or several have it."""
    if name in known:
        return known[name]
    folded = name.strip().casefold()
    found = [label for other, label in known.items() if other.casefold() == folded]
    return found[0] if len(found) == 1 else None


def label_of(value: Any, known: Mapping[str, int]) -> int | None:
    """The label that a table gives: the name of a class, its number (1, "1", 1.0), or True or False of two
    classes; None for anything else. A number that is the name of a class is that class."""
    word = str(value).strip()
    if word in known:
        return known[word]
    try:
        number = float(word)
    except ValueError:
        if len(set(known.values())) == 2 and word.casefold() in ("true", "false"):
            found = class_of(word, known)
            return int(word.casefold() == "true") if found is None else found
        return class_of(word, known)
    if not number.is_integer():
        return None
    name = str(int(number))
    return known.get(name, int(number) if 0 <= number < len(set(known.values())) else None)


def by_name(names: Sequence[str] | None, known: Mapping[str, int]) -> dict[int, int] | None:
    """Number -> label where a file says what its numbers mean, in `names`, and all of these are classes."""
    labels = [class_of(name, known) for name in names or ()]
    return (
        None
        if not labels or None in labels
        else {n: label for n, label in enumerate(labels) if label is not None}
    )


def check_labels(labels: Collection[int], names: Iterable[str], data: str) -> None:
    """Raise DataError for training samples of one class alone, from which nothing can be learned. names: of
    the classes, in the order of their labels."""
    if len(classes := {int(label) for label in labels if label >= 0}) == 1:
        name = list(names)[classes.pop()]
        raise DataError(
            f"all {len(labels)} training samples of data={data} are of one class, {name}; "
            "give samples of two classes or more"
        )
