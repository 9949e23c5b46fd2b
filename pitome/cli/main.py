"""What `python run.py` does: help, checks, jobs, the table at the end, the exit code."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pitome.cli.lightning_flags import translated
from pitome.errors import Interrupted, PitomeError, UsageError, nearest, print_error, redact

if TYPE_CHECKING:
    from pitome.config import Config

_MULTIRUN = ("-m", "--multirun")
_SHOWING = {"--cfg": 1, "-c": 1, "--info": 1, "-i": 1, "--package": 1, "-p": 1, "--resolve": 0}
"""Hydra's flags that show the configuration instead of running it, and how many words follow each."""


@dataclass(frozen=True)
class Command:
    """A command line in its parts."""

    overrides: list[str]
    flags: list[str]  # that show the configuration, with their words
    multirun: bool


def main(argv: list[str]) -> int:
    """Run the command line `argv`. Returns the exit code: 0, 2 for a user's error, 1 for any other."""
    if {"-h", "--help"} & set(argv):
        return _help()
    if "--version" in argv:
        from pitome.cli.help import version_text

        print(version_text())
        return 0
    # Hydra then raises its errors instead of printing them over many lines and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
    except ModuleNotFoundError as problem:
        return print_error(
            f"{problem.name} is not installed; run `make setup`, then use .venv/bin/python run.py"
        )
    try:
        with _sigterm_raises():
            return _main(argv)
    except PitomeError as problem:
        return print_error(problem)
    except OSError as problem:  # of a file that Hydra writes
        from pitome.records.files import write_error

        return print_error(write_error(Path(problem.filename or "outputs/."), problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return print_error(problem.__cause__ or problem)
    except (KeyboardInterrupt, Interrupted) as stop:
        print("\nstopped; finished runs are recorded, the same command continues from there", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143  # 128 + the signal, as shells have it


def split_flags(argv: Sequence[str]) -> Command:
    """Overrides and flags of a command line. Raises UsageError for a flag that does not exist."""
    overrides: list[str] = []
    flags: list[str] = []
    following = 0
    for word in argv:
        name, equals, _ = word.partition("=")
        if following:
            flags.append(word)
            following -= 1
        elif not word.startswith("-"):
            overrides.append(word)
        elif name in _SHOWING:
            flags.append(word)
            following = 0 if equals else _SHOWING[name]
        elif word not in _MULTIRUN:
            raise UsageError(
                f"unknown flag {word}; {nearest(name, [*_MULTIRUN, *_SHOWING, '--help', '--version'])}"
            )
    return Command(overrides, flags, multirun=bool(set(_MULTIRUN) & set(argv)))


def with_new_names(argv: Sequence[str]) -> list[str]:
    """The words of a command line, with the new names of options that had another one, which is said."""
    words = []
    for word in argv:
        if word.startswith("rerun="):
            new = f"overwrite={'all' if word.lower() in ('rerun=true', 'rerun=1') else 'null'}"
            print(f"{word} is now called {new}", file=sys.stderr)
            word = new
        words.append(word)
    return words


def _main(argv: Sequence[str]) -> int:
    from pitome.runs import experiments
    from pitome.runs.compose import (
        check_command_line,
        check_places,
        data_of_model,
        merge_of_training,
        register_schema,
    )
    from pitome.runs.paths import quote_paths

    command = split_flags(translated(with_new_names(argv)))
    register_schema()
    if command.multirun and command.flags:
        raise UsageError(f"-m and {command.flags[0]} do not go together; leave out -m and give one point")
    chosen = experiments.chosen_in(command.overrides)
    if len(chosen) == 1 and (code := experiments.without_sweep(chosen[0], command.overrides)) is not None:
        return code
    overrides = experiments.expand(quote_paths(command.overrides, command.multirun), command.multirun)
    overrides = data_of_model(overrides)
    without_merge, overrides = overrides, merge_of_training(overrides)
    points = check_command_line(overrides, command.multirun)
    if command.flags:
        return _show(command.flags, overrides)
    configs = [config for config, _ in points]
    check_places(configs)
    if overrides != without_merge:
        trained = any(config.trained_with is not None for config in configs)
        does, would = ("testing", "tests") if trained else ("training", "trains")
        print(f"{does} without merging, since merge= is not given; merge=pitome {would} with it")
    if any(config.mode == "search" for config in configs):
        return _search(configs, overrides, command.multirun)
    return _run(overrides, configs, command.multirun, [experiment.name for experiment in chosen])


def _run(overrides: Sequence[str], configs: list[Config], multirun: bool, experiments: list[str]) -> int:
    """Run the points and show what came out. Returns the exit code."""
    from pitome.runs.progress import announcement
    from pitome.runs.sweep import launch

    print(announcement(configs), flush=True)
    group = group_of(overrides, experiments) if multirun else None
    done, folder = launch(overrides, configs, multirun=multirun, group=group, since=datetime.now(UTC))
    runs = [run for point in done for run in point.finished.runs]
    for point in done:
        for run in point.finished.runs:
            if run.exit_code:
                note = f" ({point.note})" if point.note and run.exit_code == 1 else ""
                print_error(f"{run.record.error}{note}")
    if any(run.record.done for run in runs):
        from pitome.runs.summary import show

        show([point.finished for point in done], [point.config for point in done], folder)
    if experiments:
        from pitome.report.items import show_item
        from pitome.runs.sweep_log import log_sweep

        store = done[0].finished.store
        tables = [show_item(name, store) for name in experiments]
        log_sweep(done[0].config.logger, tables, None, store.folder.parent)
    if configs[0].logger.name == "wandb" and any(run.repeated for run in runs):
        from pitome.sources.hub import say
        from pitome.tasks.loggers import offline_hint

        if (hint := offline_hint()) is not None:
            say(hint)
    return max((run.exit_code for run in runs), default=0)


def _search(configs: list[Config], overrides: list[str], multirun: bool) -> int:
    """mode=search: the points one after the other. Returns the exit code."""
    from pitome.runs import words

    if {config.mode for config in configs} != {"search"}:
        raise UsageError("mode=search is for a command of its own; leave out the other modes")
    parsed = words.parse(overrides, multirun)
    if words.chosen(parsed, words.LAUNCHER):
        raise UsageError(f"mode=search runs its points one after the other; leave out {words.LAUNCHER}")
    points = words.points(parsed, multirun)
    from pitome.runs.search import run_all

    return run_all(list(zip(configs, points, strict=True)))


def _show(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Hydra's --cfg and --info."""
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from pitome.cli.arguments import parse
    from pitome.config import CONF

    version.setbase("1.3")
    parser, message, shown = get_args_parser(), io.StringIO(), io.StringIO()
    arguments = parse(parser, [*flags, *overrides])
    try:
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(shown):
            _run_hydra(arguments, parser, lambda config: None, str(CONF.resolve()), "config")
    except (ValueError, SystemExit) as problem:  # several of the flags; a package that is not there
        raise UsageError(message.getvalue() or str(problem)) from None
    print(redact(shown.getvalue()), end="")
    return 0


def group_of(overrides: Sequence[str], experiments: Sequence[str]) -> str:
    """The name of a sweep in W&B: its experiments, or what it asks for; the same when it goes on."""
    if experiments:
        return " ".join(experiments)
    elsewhere = ("logger", "results", "overwrite", "device", "devices", "hydra")
    words = [word for word in overrides if re.split(r"[=./]", word)[0] not in elsewhere]
    text = redact(" ".join(sorted(words)))
    return text if len(text) <= 100 else f"{text[:91]} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within it SIGTERM, with which schedulers end a job, raises Interrupted."""

    def stop(*_: object) -> None:
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _help() -> int:
    from pitome.cli.help import help_text
    from pitome.config import CONF, custom_folder

    with contextlib.suppress(BrokenPipeError):  # `| head` has read enough
        print(help_text(CONF, custom_folder()), flush=True)
        return 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is Python to try at its end
    return 0
