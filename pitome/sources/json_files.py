"""Annotation files in JSON: read whole, and every complaint is one line. Imports no torch."""

from __future__ import annotations

import json
import shlex
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pitome.errors import DataError

File = Path | zipfile.Path
"""A file, or a member of a zip file."""


def check_regular(path: Path) -> None:
    """Raise DataError for what is no regular file: to open a pipe would wait for its other end for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from None
    if not stat.S_ISREG(mode):
        raise damaged(path, f"it is a {'folder' if stat.S_ISDIR(mode) else 'device or pipe'}")


def read_text(path: File) -> str:
    """The content of a text file in UTF-8. Raises DataError for one that cannot be read or is in another
    encoding, with the command that converts it."""
    if isinstance(path, Path):
        check_regular(path)
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise damaged(path, problem.strerror or str(problem)) from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError) as problem:
        raise damaged(path, str(problem)) from None
    zeros = content[:200].count(0)
    try:
        if zeros <= len(content[:200]) / 4:
            return content.decode("utf-8-sig")
        at = content.index(0)
    except UnicodeDecodeError as problem:
        at = problem.start
    encoding = _encoding(content, zeros)
    raise DataError(
        f"{path} is not in UTF-8 (byte {at}) but probably in {encoding}; convert it: "
        f"iconv -f {encoding.split()[0]} -t UTF-8 {shlex.quote(path.name)} > NEW"
    )


def _encoding(content: bytes, zeros: int) -> str:
    """The name of an encoding that is not UTF-8, as far as its bytes tell."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    if zeros > len(content[:200]) / 4:
        return "UTF-16BE" if content[:1] == b"\0" else "UTF-16LE"
    high = sum(byte > 0x7F for byte in content[:10_000])
    if high > sum(chr(byte).isalpha() for byte in content[:10_000] if byte < 0x80):
        return "GB18030 (or SHIFT_JIS, EUC-KR, BIG5, WINDOWS-1251: look at the result)"
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in content) else "ISO-8859-1"


def read_json(path: File) -> Any:
    """The content of a JSON file in UTF-8. Raises DataError for one that cannot be read."""
    return parse_json(path, read_text(path))


def parse_json(path: File, text: str, where: str = "") -> Any:
    """The value that a text of a file holds. Raises DataError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise damaged(path, f"{where}not valid JSON: {problem}") from None


def damaged(path: File, reason: str) -> DataError:
    """The error about a file that is not what it should be."""
    return DataError(f"{path} cannot be read ({' '.join(reason.split())}); repair it or fetch it again")


def brief(value: object) -> str:
    """A value in a message."""
    return text if len(text := repr(value)) <= 80 else f"{text[:77]}..."


def names_of(row: Any) -> str:
    """The keys of a row in a message."""
    names = list(map(str, row))
    return f"{', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}" or "nothing"


def text_of(path: File, entry: int | str, what: str, value: Any) -> str:
    """`value`, which must be a text. Raises DataError that names the entry of the file."""
    if not isinstance(value, str):
        raise damaged(path, f"the {what} of entry {entry} is {brief(value)}, not a text")
    return value


def field_of(path: File, entry: int | str, row: Any, key: str) -> Any:
    """`row[key]`. Raises DataError that names the entry of the file and what it lacks."""
    if not isinstance(row, dict):
        raise damaged(path, f"entry {entry} is not an object")
    if key not in row:
        raise damaged(path, f"entry {entry} lacks {key!r}, it has {names_of(row)}")
    return row[key]


def texts_of(path: File, entry: int | str, what: str, value: Any) -> list[str]:
    """`value`, which must be a list of texts, or of objects with the text `answer`."""
    if not isinstance(value, list):
        raise damaged(path, f"the {what} of entry {entry} are {brief(value)}, not a list")
    return [
        text_of(path, entry, what, field_of(path, entry, text, "answer") if isinstance(text, dict) else text)
        for text in value
    ]


def id_of(path: File, entry: int | str, value: Any) -> str:
    """`value`, which must be a text or a whole number, as a text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise damaged(path, f"the id of entry {entry} is {brief(value)}, not a number or text")
    return str(value)
