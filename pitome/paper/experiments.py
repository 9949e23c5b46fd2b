"""Step 5: what `experiment=<name>` names: an item of the paper, or a part of it. Imports no torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from pitome.errors import UsageError, nearest
from pitome.paper import files
from pitome.paper.checks import check_points, not_built
from pitome.paper.files import READ_ERRORS, ExperimentError, item_names, read_item
from pitome.paper.item import RUNS, PaperItem, parse_item
from pitome.paper.points import (
    Point,
    command,
    offline_points,
    sweep_points,
    trained_offline_points,
    training_points,
)
from pitome.sources.hub import say

OFFLINE, TRAINED = "_offline", "_trained"
TRAINED_OFFLINE = TRAINED + OFFLINE
_PARTS = (TRAINED_OFFLINE, OFFLINE, TRAINED)  # a name ends with the first that fits


@dataclass(frozen=True)
class Experiment:
    """An item of the paper, or the part of it that a suffix names."""

    name: str  # `table5`, `table5_offline`, `table5_trained`
    item: PaperItem
    # OFFLINE: on this project's own model; TRAINED: the points that train; TRAINED_OFFLINE: both
    part: str = ""

    @property
    def offline(self) -> bool:
        return self.part.endswith(OFFLINE)

    @property
    def sweeps(self) -> bool:
        """Whether its points are runs of run.py."""
        return self.item.kind == RUNS

    @functools.cached_property
    def points(self) -> list[Point]:
        """The points of its sweep that can be run: those whose model, method and data exist."""
        if not self.sweeps:
            return []
        of_part = {
            OFFLINE: offline_points,
            TRAINED: training_points,
            TRAINED_OFFLINE: trained_offline_points,
        }.get(self.part, sweep_points)
        return [point for point in of_part(self.item) if not_built(point) is None]

    @property
    def trains_only(self) -> bool:
        """Whether an item has no points but those that train."""
        return not self.points and not self.offline and bool(training_points(self.item))

    @property
    def command(self) -> str:
        """The command that runs it; the part that trains, where there is nothing else."""
        if not self.sweeps:
            return f"python run.py experiment={self.name}"
        return f"python run.py -m experiment={self.item.name + TRAINED if self.trains_only else self.name}"

    @property
    def why_no_points(self) -> str:
        """Why a sweep has no point, and what to do."""
        if training_points(self.item):
            return f"has only points that train; use experiment={self.item.name}{TRAINED}"
        if not self.item.values:
            return f"is of this project's own models alone; use experiment={self.item.name}{OFFLINE}"
        return f"has no point that can be run; python scripts/report.py {self.name} says why"

    def command_of(self, point: Point) -> str:
        """The command that gives a point: its own run, or the whole experiment where it is not a sweep."""
        return command(point) if self.sweeps else f"python run.py experiment={self.item.name}"


def choose(name: str) -> Experiment:
    """The experiment of this name. Raises UsageError for an unknown name, ExperimentError for a file with
    a mistake."""
    for part in _PARTS:
        stem = name.removesuffix(part)
        if stem != name and stem in item_names():
            experiment = Experiment(name, load(stem), part)
            empty = experiment.sweeps and not experiment.points
            if empty or part not in _parts(experiment.item):
                raise UsageError(f"experiment={stem} has no points for {name}; use experiment={stem}")
            return experiment
    if name not in item_names():
        raise UsageError(f"unknown experiment={name}; {nearest(name, experiment_names())}")
    return Experiment(name, load(name))


def experiment_names(*, skip_broken: bool = False) -> list[str]:
    """Everything that `experiment=` can be: `table5`, `table5_offline`, `table5_trained`, ...

    A file with a mistake counts as having all parts, so that the mistake is reported only when asked for.
    skip_broken: leave such files out, with one line each on stderr.
    """
    names = []
    for stem in item_names():
        try:
            parts = _parts(load(stem))
        except ExperimentError as problem:
            if skip_broken:
                say(f"left out: {problem}")
                continue
            parts = [OFFLINE, TRAINED, TRAINED_OFFLINE]
        names += [stem, *(stem + part for part in parts)]
    return names


def is_experiment(name: str) -> bool:
    """Whether a name can be that of an experiment, by the names of the files alone."""
    return any(name.removesuffix(part) in item_names() for part in ("", *_PARTS))


def load(name: str) -> PaperItem:
    """The item of a file. Raises ExperimentError, one line, for a mistake in it."""
    return load_file(files.item_paths()[name])


@functools.cache
def load_file(path: Path) -> PaperItem:
    """As `load`, by the path."""
    try:
        item = parse_item(read_item(path))
        check_points(item)
    except ExperimentError:  # in the file of labels
        raise
    except READ_ERRORS as problem:
        raise ExperimentError(path, problem) from None
    return item


def _parts(item: PaperItem) -> list[str]:
    exist = {
        OFFLINE: item.offline is not None,
        TRAINED: bool(training_points(item)),
        TRAINED_OFFLINE: bool(trained_offline_points(item)),
    }
    return [part for part, there in exist.items() if there]
