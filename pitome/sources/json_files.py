"""Annotation files in JSON: read whole, and every complaint is one line. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pitome.errors import DataError


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8. Raises DataError for one that cannot be read."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise damaged(path, f"not valid JSON in UTF-8: {problem}") from None
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from None


def damaged(path: Path, reason: str) -> DataError:
    """The error about a file that is not what it should be."""
    return DataError(f"{path} cannot be read ({' '.join(reason.split())}); repair it or fetch it again")


def text_of(path: Path, entry: int | str, what: str, value: Any) -> str:
    """`value`, which must be a text. Raises DataError that names the entry of the file."""
    if not isinstance(value, str):
        raise damaged(path, f"the {what} of entry {entry} is {value!r}, not a text")
    return value


def field_of(path: Path, entry: int | str, row: Any, key: str) -> Any:
    """`row[key]`. Raises DataError that names the entry of the file and what it lacks."""
    if not isinstance(row, dict):
        raise damaged(path, f"entry {entry} is not an object")
    if key not in row:
        raise damaged(path, f"entry {entry} lacks {key!r}, it has {', '.join(map(str, row)) or 'nothing'}")
    return row[key]


def texts_of(path: Path, entry: int | str, what: str, value: Any) -> list[str]:
    """`value`, which must be a list of texts, or of objects with the text `answer`."""
    if not isinstance(value, list):
        raise damaged(path, f"the {what} of entry {entry} are {value!r}, not a list")
    return [
        text_of(path, entry, what, field_of(path, entry, one, "answer") if isinstance(one, dict) else one)
        for one in value
    ]


def id_of(path: Path, entry: int | str, value: Any) -> str:
    """`value`, which must be a text or a whole number, as a text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise damaged(path, f"the id of entry {entry} is {value!r}, not a number or text")
    return str(value)
