"""Paths on a command line, in the form that Hydra's grammar reads: whatever a shell can pass is a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from pitome.config import PATH_KEYS
from pitome.errors import UsageError

_NEVER_SWEPT = "results"  # all runs of a sweep are recorded in one folder
_PARTS = re.compile(r"""(?:'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|[^,])+""")


def quote_paths(words: Iterable[str], multirun: bool) -> list[str]:
    """The overrides, with the values of `PATH_KEYS` in quotes.

    With -m, a comma separates paths, unless it stands in the name of a file that exists. Raises UsageError
    where it could be either.
    """
    return [_quote_word(word, multirun) for word in words]


def _quote_word(word: str, multirun: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value.startswith("["):  # a list, of a schedule
        return word
    parts = list(_split(value)) if multirun and key != _NEVER_SWEPT else [value]
    if len(parts) > 1 and _exists(value):
        if all(_exists(part) for part in parts):
            raise UsageError(
                f"{word} is the name of one file and of {len(parts)}; put the one, or each, in quotes: "
                f"{key}=\"'NAME'\""
            )
        parts = [value]
    return f"{key}={','.join(_quoted(part) for part in parts)}"


def _split(value: str) -> Iterator[str]:
    """At the commas that are not in quotes."""
    return (match.group() for match in _PARTS.finditer(value)) if value else iter([value])


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _quoted(value: str) -> str:
    """Quotes around a path, unless Hydra's own stand there or the value is null."""
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if value in ("", "null") or is_quoted:
        return value
    # In text that OmegaConf reads, ${ begins an interpolation.
    return QuotedString(value.replace("${", r"\${"), Quote.single).with_quotes()


def shown(path: Path) -> str:
    """A path as short as it can be read from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
