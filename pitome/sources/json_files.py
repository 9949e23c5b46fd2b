"""Annotation files in JSON: read whole, and every complaint is one line. Imports no torch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from pitome.errors import DataError


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8. Raises DataError for one that cannot be read or is in another
    encoding, with the command that converts it."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        at, wrong = problem.start, content
    if wrong[:2] in (b"\xff\xfe", b"\xfe\xff") or wrong[:200].count(0) > 40:
        encoding = "UTF-16"
    else:
        encoding = "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in wrong) else "ISO-8859-1"
    raise DataError(
        f"{path} is not in UTF-8 (byte {at}) but probably in {encoding}; convert it: "
        f"iconv -f {encoding} -t UTF-8 {shlex.quote(path.name)} > NEW"
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8. Raises DataError for one that cannot be read."""
    return parse_json(path, read_text(path))


def parse_json(path: Path, text: str, where: str = "") -> Any:
    """The value that a text of a file holds. Raises DataError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise damaged(path, f"{where}not valid JSON: {problem}") from None


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
        text_of(path, entry, what, field_of(path, entry, text, "answer") if isinstance(text, dict) else text)
        for text in value
    ]


def id_of(path: Path, entry: int | str, value: Any) -> str:
    """`value`, which must be a text or a whole number, as a text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise damaged(path, f"the id of entry {entry} is {value!r}, not a number or text")
    return str(value)
