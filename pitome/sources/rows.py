"""Rows of tables: CSV, TSV, JSON lines, JSON lists and parquet, each as a dictionary by column. Imports no
torch.

Text tables are read here and not by `datasets`, whose readers guess types (a text "NA" becomes a missing
value, "007" a number), read a TSV's lone quotation marks as quotes and report errors in many lines. Nothing
is left out without a word: a table whose rows do not have the header's fields is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pitome.sources.hub import say
from pitome.sources.json_files import File, damaged, parse_json, read_text

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
_LONGEST = 1 << 30  # characters of one field
_LISTS = ("data", "rows", "examples")  # of an object that holds a table, the key of its rows


def read_rows(path: File, delimiter: str | None = None) -> list[Row]:
    """All rows of a table. delimiter: of a text table, None takes a tab in a .tsv, else a comma or, where the
    header has none, another one that it has.

    Raises DataError, one line, for a file that is damaged, not in UTF-8, or no table, naming the line.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet" and isinstance(path, Path):
        from pitome.sources.parquet import load_parquet

        rows: list[dict[str, Any]] = load_parquet([path]).to_list()
        return rows
    text = read_text(path)
    if suffix in (".jsonl", ".json"):
        return _json_rows(path, text)
    if delimiter is None:
        header = next((line for line in text.splitlines() if line.strip()), "")
        usual = "\t" if suffix == ".tsv" else ","
        delimiter = next((mark for mark in (usual, "\t", ";", ",") if mark in header), usual)
    return _text_rows(path, text, delimiter)


def _json_rows(path: File, text: str) -> list[Row]:
    """A list of objects, perhaps in an object, or one object a line."""
    whole = None
    if path.suffix.lower() == ".json" or text.lstrip()[:1] == "[":
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            if text.lstrip()[:1] == "[":
                parse_json(path, text)
    if isinstance(whole, dict):
        lists = [whole[key] for key in _LISTS if isinstance(whole.get(key), list)]
        whole = lists[0] if lists else [whole]
    if whole is not None and not isinstance(whole, list):
        raise damaged(path, "expected a list of objects or one object a line")
    if whole is None:
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        whole = [parse_json(path, line, f"line {n}: ") for n, line in lines]
        numbers = [f"line {n}" for n, _ in lines]
    else:
        numbers = [f"entry {n}" for n in range(1, len(whole) + 1)]
    for number, row in zip(numbers, whole, strict=True):
        if not isinstance(row, dict):
            raise damaged(path, f"{number} is not an object; expected a list of objects or one object a line")
    return whole


def _text_rows(path: File, text: str, delimiter: str) -> list[Row]:
    """A header and rows with as many fields. Whether quotation marks enclose fields, or are letters as in
    the TSV files of GLUE, is seen from the file: see `_quoted`."""
    csv.field_size_limit(_LONGEST)
    plain = list(_plain(text, delimiter))
    quoted = _quoted(text, delimiter)
    fits, regular = (rows is not None and _even(rows) for rows in (quoted, plain))
    if delimiter == "\t" and regular:
        use_quotes = fits and quoted is not None and _enclosed(quoted, plain)
    else:
        use_quotes = fits or not regular
    rows = quoted if use_quotes else plain
    if rows is None or not _even(rows):
        raise damaged(path, _uneven(plain if rows is None else rows, quoted is None))
    filled = [fields for _, fields in rows if fields]
    if not filled:
        raise damaged(path, "it is empty; expected a header and rows")
    last = max(at for at, (_, fields) in enumerate(rows) if fields)
    if blank := sum(not fields for _, fields in rows[:last]):
        say(f"{path}: {len(filled) - 1} rows read, {blank} empty lines left out")
    header = [name.strip() for name in filled[0]]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise damaged(path, f"two of its columns are called {twice[0]}")
    return [dict(zip(header, fields, strict=True)) for fields in filled[1:]]


def _plain(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the line, from 1, and its fields; none of an empty line."""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        yield number, line.split(delimiter) if line.strip() else []


def _quoted(text: str, delimiter: str) -> list[tuple[int, list[str]]] | None:
    """The same with fields that quotation marks enclose; None where marks stand elsewhere as well."""
    for escape in (
        (None, "\\") if '\\"' in text else (None,)
    ):  # marks inside a field are doubled, or after a \\
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True, escapechar=escape
        )
        try:
            return [
                (reader.line_num, fields if len(fields) > 1 or any(map(str.strip, fields)) else [])
                for fields in reader
            ]
        except csv.Error:
            continue
    return None


def _even(rows: Sequence[tuple[int, list[str]]]) -> bool:
    return len({len(fields) for _, fields in rows if fields}) <= 1


def _enclosed(quoted: Sequence[tuple[int, list[str]]], plain: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether the marks of a table that can be read both ways enclose fields: no row spans lines, and the
    header has marks as well or those inside a field are doubled."""
    if len(quoted) != len(plain) - (not plain[-1][1]):
        return False
    both = [
        (read, raw)
        for (_, reads), (_, raws) in zip(quoted, plain, strict=False)
        for read, raw in zip(reads, raws, strict=True)
    ]
    header = next(fields for _, fields in plain if fields)
    return any(name.startswith('"') for name in header) or any(
        '"' in read and read != raw for read, raw in both
    )


def _uneven(rows: Sequence[tuple[int, list[str]]], marks: bool) -> str:
    header = next((fields for _, fields in rows if fields), [])
    number, fields = next(((n, f) for n, f in rows if f and len(f) != len(header)), (1, header))
    why = "; its quotation marks do not enclose whole fields" if marks else ""
    return f"line {number} has {len(fields)} fields and the header {len(header)}{why}"
