"""The command `pitome`: one word says what is done, the rest are words of that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from pitome.config import CODE
from pitome.errors import INSTALLED, UsageError, nearest, print_error

COMMANDS = {  # word -> the module whose main(words) does it, and what that is
    "run": ("pitome.cli.main", "evaluate or train a model with merged tokens; with -m a sweep"),
    "report": ("pitome.cli.report", "tables, plots and the page of what was run"),
    "tokens": ("pitome.runs.show_tokens", "a picture of which tokens end up together"),
    "tune": ("pitome.cli.main", "a schedule of merging found for a model at a target of cost (mode=search)"),
    "bench": ("scripts.bench.command", "speed beside the unmerged model (in a clone of the repository)"),
}
_EXAMPLES = """\
examples:
  pitome run                                        the default: works offline
  pitome run -m merge=none,pitome,tome ratio=0.9,0.95 limit=500
  pitome run task=retrieval model=clip_l merge=pitome ratio=0.925
  pitome report table5_offline                      an experiment beside the paper's values
  pitome tokens image=photo.jpg merge=pitome,tome ratio=0.9

Results go to ./results. `pitome COMMAND --help` says more of each command."""


def help_text() -> str:
    """What `pitome --help` prints."""
    lines = ["Token merging in transformers: reproduced, compared and used.", ""]
    lines += ["usage: pitome COMMAND [WORDS ...]", "       pitome --version", ""]
    lines += [f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([*lines, "", _EXAMPLES])


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words ask for. Returns the exit code: 0, 2 for a user's error, 1 for any other."""
    words = list(sys.argv[1:] if argv is None else argv)
    name, rest = (words[0], words[1:]) if words else ("help", [])
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name in ("--version", "version"):
        from pitome.cli.help import version_text

        print(version_text())
        return 0
    if name not in COMMANDS:
        as_run = f"write pitome run {name} ...; " if "=" in name or name.startswith("-") else ""
        return print_error(f"unknown command {name}; {as_run}{nearest(name, COMMANDS)}")
    if name == "bench":
        if INSTALLED:
            return print_error(
                UsageError("benchmarks are not in the package; `make bench` in a clone runs them")
            )
        sys.path.insert(0, str(CODE))
    if name == "tune" and not {"-h", "--help", "--version"} & set(rest):
        rest = ["mode=search", *rest]
    return int(importlib.import_module(COMMANDS[name][0]).main(rest))
