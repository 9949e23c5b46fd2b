"""Command lines that argparse reads."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from pitome.errors import UsageError


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """As `parser.parse_args`, which prints its usage over many lines and exits. Raises UsageError."""

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists all options")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(words)
