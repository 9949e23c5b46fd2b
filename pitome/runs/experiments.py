"""`experiment=` on the command line: an item's points become configurations that Hydra sweeps over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore

from pitome.config import PARTS, Config
from pitome.errors import UsageError
from pitome.merge.schedule import AMOUNTS
from pitome.paper.experiments import Experiment, choose
from pitome.paper.files import GROUP, is_hydra_experiment
from pitome.paper.item import PICTURES
from pitome.paper.points import Point, argument, has_options, picture_arguments
from pitome.records.identity import UNMERGED

_SELECTING = ("model", "data")  # keys whose values on a command line choose among the points
_ONE_POINT = re.compile(r"(.+)-(\d{3})")


def chosen_in(argv: Sequence[str]) -> list[Experiment]:
    """The experiments that a command line names, `experiment=a,b`; of a point `a-007` the whole experiment.

    Raises UsageError for an unknown one, ExperimentError for a file with a mistake.
    """
    names = [name for name in _named(argv) if name not in ("", "null") and not is_hydra_experiment(name)]
    return [choose(_split(name)[0]) for name in names]


def expand(argv: Sequence[str], multirun: bool) -> list[str]:
    """The command line with each experiment replaced by its points, which Hydra then knows.

    A model or data that points have choose those points; whatever else the command line gives itself is
    taken out of the points. Raises UsageError where no point is left, or several without -m.
    """
    names = _named(argv)
    if not names or names == ["null"] or any(map(is_hydra_experiment, names)):
        return list(argv)
    experiments = f"experiment={','.join(names)}"
    given = {_key(text): text.partition("=")[2].split(",") for text in argv if "=" in text}
    points = {f"{name}-{i:03d}": point for text in names for name, i, point in _points(text)}
    try:
        points, selecting = _select(points, given)
    except ValueError as problem:
        raise UsageError(f"{experiments} has {problem}") from None
    nodes: dict[str, Point] = {}
    for choice, point in points.items():
        rest = _reduce(point, set(given) - selecting)
        if rest is not None and rest not in nodes.values():
            nodes[choice] = rest
    if not nodes:
        what = " ".join(f"{key}=" for key in ("merge", *_SELECTING) if key in given)
        raise UsageError(f"{experiments} has no point left with this {what}; give another")
    if len(nodes) > 1 and not multirun:
        raise UsageError(f"{experiments} has {len(nodes)} points; add -m to run all of them")
    for choice, point in nodes.items():
        ConfigStore.instance().store(group=GROUP, name=choice, node=node(point), package="_global_")
    kept = [text for text in argv if _key(text) not in selecting]
    place = next(i for i, text in enumerate(kept) if _key(text) == GROUP)
    before, after = ([text for text in part if _key(text) != GROUP] for part in (kept[:place], kept[place:]))
    return [*before, f"{GROUP}={','.join(nodes)}", *after]


def _named(argv: Sequence[str]) -> list[str]:
    return [name for text in argv if _key(text) == GROUP for name in text.partition("=")[2].split(",")]


def _points(text: str) -> list[tuple[str, int, Point]]:
    """Name of the experiment, number and overrides of all points that a name stands for, or of one."""
    name, number = _split(text)
    experiment = choose(name)
    if not experiment.sweeps:
        raise UsageError(f"experiment={name} is not a sweep; give it alone: python run.py experiment={name}")
    points = experiment.points
    if not points:
        raise UsageError(f"experiment={name} {experiment.why_no_points}")
    if number is not None and not 1 <= number <= len(points):
        raise UsageError(f"experiment={name} has points 001 to {len(points):03d}, not {number:03d}")
    return [(name, i, point) for i, point in enumerate(points, 1) if number in (None, i)]


def _select(
    points: Mapping[str, Point], given: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Point], set[str]]:
    """The points with the model and the data of a command line, and which of these keys matched. A key
    that matches no point overrides that of all points instead.

    Raises ValueError if some of the values of a key are those of points and others are not.
    """
    matched = set()
    for key in _SELECTING:
        known = {str(point[key]) for point in points.values() if key in point}
        if not known & set(given.get(key, ())):
            continue
        if unknown := [value for value in given[key] if value not in known]:
            raise ValueError(f"no point with {key}={unknown[0]}; it has {', '.join(sorted(known))}")
        points = {name: point for name, point in points.items() if str(point.get(key)) in given[key]}
        matched.add(key)
    return dict(points), matched


def _reduce(point: Point, given: set[str]) -> Point | None:
    """What is left of a point where a command line gives these keys itself; None for a point to leave out.

    An amount replaces every kind of amount. Methods replace those of the experiment: its unmerged points
    and those with options of a method are left out.
    """
    if "merge" in given and (point.get("merge") == UNMERGED or has_options(point)):
        return None
    replaced = given | (set(AMOUNTS) if given & set(AMOUNTS) else set())
    return {key: value for key, value in point.items() if key not in replaced}


def node(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as a configuration of the group `experiment`."""
    groups = [{f"override /{key}": value} for key, value in point.items() if key in PARTS]
    tree: dict[str, Any] = {"defaults": [*groups, "_self_"]}
    for key, value in point.items():
        if key in PARTS:
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


def without_sweep(experiment: Experiment, argv: Sequence[str]) -> int | None:
    """Carry out an experiment that is not a sweep: pictures, or the theorem. Returns the exit code; None for
    a sweep."""
    if experiment.sweeps:
        return None
    rest = [text for text in argv if _key(text) != GROUP and text not in ("-m", "--multirun")]
    if experiment.item.kind == PICTURES:
        from pitome.runs import show_tokens

        given = {_key(text) for text in rest}
        defaults = picture_arguments(experiment.item, offline=experiment.offline)
        defaults = {key: value for key, value in defaults.items() if key not in given}
        return show_tokens.main([*(f"{key}={argument(value)}" for key, value in defaults.items()), *rest])
    name = experiment.name
    results = [text.partition("=")[2] for text in rest if _key(text) == "results"]
    if len(results) != len(rest):
        raise UsageError(f"experiment={name} takes no key but results=; leave out {' '.join(rest)}")
    from pitome.paper.theorem import run
    from pitome.records.store import Store
    from pitome.report.items import show_item

    store = Store(results[0] if results else Config.results)
    run(store)
    show_item(name, store)
    return 0
