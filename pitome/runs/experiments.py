"""`experiment=` on the command line: an item's points become configurations that Hydra sweeps over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore

from pitome.config import Config
from pitome.errors import UsageError
from pitome.paper import values
from pitome.paper.loading import Chosen, choose
from pitome.paper.matching import word
from pitome.paper.outcome import nothing_to_run
from pitome.paper.schema import PICTURES, RUNS

GROUP = "experiment"
_GROUPS = ("task", "model", "data", "merge", "trainer", "logger")
_ONE_POINT = re.compile(r"(.+)-(\d{3})")


def chosen_in(argv: Sequence[str]) -> list[Chosen]:
    """The experiments that a command line names, `experiment=a,b`; a point of one, `a-007`, as a whole.

    Raises UsageError for an unknown one, ExperimentError for a file with a mistake.
    """
    given = [argument.partition("=")[2] for argument in argv if _key(argument) == GROUP]
    return [choose(_split(text)[0]) for one in given for text in one.split(",") if text not in ("", "null")]


def expand(argv: Sequence[str], multirun: bool) -> list[str]:
    """The command line with each experiment replaced by its points, which Hydra then knows.

    A model or data that points have choose those points; whatever else the command line gives itself is
    taken out of the points. Raises UsageError where no point is left, or several without -m.
    """
    words = [text for a in argv if _key(a) == GROUP for text in a.partition("=")[2].split(",")]
    if not words or words == ["null"]:
        return list(argv)
    given = {_key(argument) for argument in argv if "=" in argument} - {GROUP}
    named = {f"{name}-{i:03d}": point for text in words for name, i, point in _points(text)}
    told = {_key(a): a.partition("=")[2].split(",") for a in argv if _key(a) in values.SELECTING}
    try:
        found, selecting = values.selected(list(named.values()), told)
    except ValueError as problem:
        raise UsageError(f"experiment={','.join(words)} has {problem}") from None
    nodes: dict[str, values.Point] = {}
    for choice, point in named.items():
        left = values.reduced(point, given - selecting) if point in found else None
        if left is not None and left not in nodes.values():
            nodes[choice] = left
    if not nodes:
        what = " ".join(f"{key}=" for key in ("merge", *values.SELECTING) if key in given)
        raise UsageError(f"experiment={','.join(words)} has no point left with this {what}; give another")
    if len(nodes) > 1 and not multirun:
        raise UsageError(f"experiment={','.join(words)} has {len(nodes)} points; add -m to run all of them")
    for choice, point in nodes.items():
        ConfigStore.instance().store(group=GROUP, name=choice, node=node(point), package="_global_")
    before = [argument for argument in argv if _key(argument) not in selecting]
    place = next(i for i, argument in enumerate(before) if _key(argument) == GROUP)
    rest = [argument for argument in argv if _key(argument) not in (GROUP, *selecting)]
    return [*rest[:place], f"{GROUP}={','.join(nodes)}", *rest[place:]]


def _points(text: str) -> list[tuple[str, int, values.Point]]:
    """The experiment, number and overrides of what a word names: all points of a sweep, or one."""
    name, number = _split(text)
    chosen = choose(name)
    if chosen.experiment.kind != RUNS:
        raise UsageError(f"experiment={name} is no sweep; give it alone: python run.py experiment={name}")
    found = chosen.points
    if not found:
        raise UsageError(f"experiment={name} {nothing_to_run(chosen)}")
    if number is not None and not 1 <= number <= len(found):
        raise UsageError(f"experiment={name} has points 001 to {len(found):03d}, not {number:03d}")
    return [(name, i, point) for i, point in enumerate(found, 1) if number in (None, i)]


def node(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as a configuration of the group `experiment`."""
    chosen = [{f"override /{key}": value} for key, value in point.items() if key in _GROUPS]
    tree: dict[str, Any] = {"defaults": [*chosen, "_self_"]}
    for key, value in point.items():
        if key in _GROUPS:
            continue
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return tree


def _key(argument: str) -> str:
    """`ratio` of `ratio=0.9`; empty for a flag."""
    return "" if argument.startswith("-") else argument.partition("=")[0].lstrip("+~")


def _split(text: str) -> tuple[str, int | None]:
    match = _ONE_POINT.fullmatch(text)
    return (match.group(1), int(match.group(2))) if match else (text, None)


def without_sweep(chosen: Chosen, argv: Sequence[str]) -> int | None:
    """Carry out an experiment that is no sweep: pictures, or the theorem. Returns the exit code; None for
    a sweep."""
    if chosen.experiment.kind == RUNS:
        return None
    rest = [a for a in argv if _key(a) != GROUP and a not in ("-m", "--multirun")]
    if chosen.experiment.kind == PICTURES:
        from pitome.runs import show_tokens

        given = {_key(argument) for argument in rest}
        own = values.picture(chosen.experiment, offline=chosen.offline)
        return show_tokens.main([*(f"{k}={word(v)}" for k, v in own.items() if k not in given), *rest])
    results = [argument.partition("=")[2] for argument in rest if _key(argument) == "results"]
    if len(results) != len(rest):
        raise UsageError(f"experiment={chosen.word} takes no key but results=; leave out {' '.join(rest)}")
    from pitome.paper.theorem import run
    from pitome.records.store import Store
    from pitome.report.items import show_outcome

    store = Store(results[0] if results else Config.results)
    run(store)
    show_outcome(chosen.word, store)
    return 0
