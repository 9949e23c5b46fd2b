"""Errors a user can act on: one line that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable


class PitomeError(Exception):
    """Base of all errors that are shown as one line, with exit code 2."""


class UsageError(PitomeError, ValueError):
    """A name, number, key or combination that cannot be used."""


class MissingDeviceError(UsageError):
    """A device that this machine does not have."""


class MemoryShortageError(PitomeError):
    """Memory that does not suffice, or room in /dev/shm, however small the batch."""


class RankError(PitomeError):
    """A process of a run on several devices that was killed."""


class UnsupportedModelError(PitomeError, TypeError):
    """A model in which nothing can be merged; the message says what was looked for and found."""


class Interrupted(BaseException):
    """The process was asked to end (SIGTERM)."""


class MethodError(PitomeError):
    """A merge method whose plan breaks the contract, or that cannot be loaded."""


class DataError(PitomeError):
    """A data set that is missing, empty or unreadable."""


class CheckpointError(PitomeError):
    """Weights that are missing, damaged, unsafe or of other shapes."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Say which of `choices` a misspelt `name` may mean; always lists all of them."""
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}available: {', '.join(options)}"


class Unreadable(Exception):
    """A sample that cannot be decoded; its message is the reason."""


def one_line(problem: object) -> str:
    """The message of an error without line breaks and other control characters, and with long words cut; the
    name of its kind if it has none."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return re.sub(r"\S{400,}", lambda word: f"{word[0][:120]}...{word[0][-40:]}", text)


def print_error(problem: object) -> int:
    """Print an error of the user's as one line. Returns the exit code of all commands for it, 2."""
    print(f"error: {one_line(problem)}", file=sys.stderr)
    return 2
