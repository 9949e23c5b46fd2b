"""Errors a user can act on: one line that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

INSTALLED = (Path(__file__).parent / "conf").is_dir()
"""Whether this is an installed package, which holds conf/ itself; else it is a clone."""
_COMMANDS = {  # of a clone, and as they are called where the package is installed
    "run `make setup`, then use .venv/bin/python run.py": "pip install 'pitome[experiments]'",
    "run `make setup`, then use .venv/bin/python": "pip install 'pitome[experiments]'",
    "python run.py": "pitome run",
    "python scripts/report.py": "pitome report",
    "python scripts/show_tokens.py": "pitome tokens",
    "run `make demo`": "run `pitome run`",
}

_HIDDEN = "***"
_SECRET = r"[\w-]*(?:token|api_?key|access_?key|secret|passw(?:or)?d|pwd|signature|credentials?|auth)"
_GIVEN = (  # each with what may be read, and what not
    re.compile(r"(\b\w{2,}:/{1,3})[^\s/]+(?=@)"),  # before the host; as a path an address loses a slash
    re.compile(rf"([?&;]{_SECRET}=)[^\s&;#'\"]+", re.IGNORECASE),
    re.compile(r"(\b[A-Z][A-Z0-9_]*(?:TOKEN|API_KEY|ACCESS_KEY|SECRET|PASSWORD)\s*[=:]\s*)[^\s,;]+"),
    re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"()\b(?:hf_|gh[pousr]_|github_pat_|glpat-|wandb_v1_)\w{16,}"),  # as their makers mark them
)
_VARIABLE = re.compile(rf"(?:{_SECRET}|\w+_key)$", re.IGNORECASE)  # of the environment
_FOLDERS = ("PWD", "OLDPWD")  # the shell's, not passwords
_SHORTEST = 8  # a shorter value of such a variable may be an ordinary word


def redact(text: str) -> str:
    """A text without passwords and keys: those in addresses and their queries, those that look like one, and
    the values of environment variables such as HF_TOKEN. For whatever is printed or recorded."""
    for given in _GIVEN:
        text = given.sub(rf"\g<1>{_HIDDEN}", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and _is_secret(name, value):
            text = text.replace(value, _HIDDEN)
    return text


def _is_secret(name: str, value: str) -> bool:
    """Whether a variable of the environment holds a secret, and not the path of a file with one."""
    return name not in _FOLDERS and bool(_VARIABLE.search(name)) and not os.path.exists(value)


def redacted(value: Any) -> Any:
    """Plain values, with `redact` applied to every text in them."""
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value


class PitomeError(Exception):
    """Base of all errors that are shown as one line, with exit code 2, and without passwords."""

    def __init__(self, *words: object) -> None:
        super().__init__(*(redact(word) if isinstance(word, str) else word for word in words))


class UsageError(PitomeError, ValueError):
    """A name, number, key or combination that cannot be used."""


class MissingDeviceError(UsageError):
    """A device that this machine does not have."""


class MemoryShortageError(PitomeError):
    """Memory that does not suffice, or room in /dev/shm, however small the batch."""


class DivergedError(PitomeError):
    """A training whose loss or gradient is no number, from which it cannot go on."""


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
    """The message of an error without passwords, line breaks and other control characters, with long
    words cut; the name of its kind if it has none."""
    text = redact(" ".join(str(problem).split())) or type(problem).__name__
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return re.sub(r"\S{400,}", lambda word: f"{word[0][:120]}...{word[0][-40:]}", text)


def as_typed(text: str, installed: bool = INSTALLED) -> str:
    """A text that names commands of a clone, with their names where the package is installed."""
    for clone, package in _COMMANDS.items() if installed else ():
        text = text.replace(clone, package)
    return text


def print_error(problem: object) -> int:
    """Print an error of the user's as one line. Returns the exit code of all commands for it, 2."""
    print(f"error: {as_typed(one_line(problem))}", file=sys.stderr)
    return 2
