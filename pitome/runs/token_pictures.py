"""Pictures of tokens: of one run, and of a sweep's methods side by side at one amount of merging."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from pitome.config import Config
from pitome.errors import PitomeError, UsageError
from pitome.merge import registry
from pitome.merge.schedule import Reduction
from pitome.records.files import write_atomically
from pitome.records.identity import UNMERGED
from pitome.report.pictures.draw import draw, draw_subject
from pitome.runs.environment import resolve_device
from pitome.runs.validate import validate
from pitome.sources.images import Picture
from pitome.tasks.base import Task, task_class

_CLASSIFICATION = "classification"
_OWN, _SIDE_BY_SIDE = 3, 6  # test images of a run's own picture, and of a sweep's

log = logging.getLogger(__name__)


def picture(configs: Sequence[Config], folder: Path) -> Path | None:
    """Draw `folder`/tokens.png; None where no two methods of one model can be compared.

    configs: of the finished runs. Raises PitomeError.
    """
    methods = side_by_side(configs)
    if len(methods) < 2:
        return None
    config, path = methods[0][0], folder / "tokens.png"
    write_atomically(path, draw_runs(methods, resolve_device(config.device)))
    return path


def of_run(task: Task, config: Config) -> bytes | None:
    """A PNG of what one run merges in the first test samples; None where nothing merges, or where there is
    nothing to draw. The task's model is to be without a patch."""
    if not _merges(config):
        return None
    try:
        subject = task.subject(_OWN)
        methods = [(config, validate(config))]
        return None if subject is None else draw_subject(subject, methods, resolve_device(config.device))
    except PitomeError as problem:  # the run itself is done: its picture is worth a word, no more
        log.warning("no picture of the tokens: %s", problem)
        return None


def draw_runs(
    methods: Sequence[tuple[Config, Reduction]],
    device: torch.device,
    images: Sequence[Picture | int] | None = None,
    after: Sequence[int] | None = None,
) -> bytes:
    """A PNG of what `methods`, which share task, model, data and seed, do to the same test samples; `images`
    and `after` as `pitome.report.pictures.draw.draw` has them. Raises PitomeError for what does not fit."""
    config = methods[0][0]
    if config.task.name == _CLASSIFICATION:
        return draw(methods, device, images, after)
    assert images is None, "of classification alone"
    torch.manual_seed(config.seed)  # random weights
    subject = task_class(config.task.name)(dataclasses.replace(config, measure="none")).subject(_SIDE_BY_SIDE)
    if subject is None:
        raise UsageError(f"task={config.task.name} has nothing to draw")
    return draw_subject(subject, methods, device, after)


def side_by_side(configs: Sequence[Config]) -> list[tuple[Config, Reduction]]:
    """The runs that differ in their method alone: as many as there are, at the middle one of the amounts
    that so many share. Not of a training, which ends in weights that its configuration does not name."""
    alike: dict[str, dict[str, tuple[Config, Reduction]]] = defaultdict(dict)
    for config in configs:
        if _merges(config) and config.mode == "test":
            rest = dataclasses.replace(config, merge=configs[0].merge)
            alike[repr(rest)].setdefault(config.merge.name, (config, validate(config)))
    most = max((len(group) for group in alike.values()), default=0)
    largest = [list(group.values()) for group in alike.values() if len(group) == most]
    return largest[len(largest) // 2] if largest else []


def _merges(config: Config) -> bool:
    """Whether a run's method leaves groups to draw: what is kept after an image tower is none."""
    name = config.merge.name
    return (
        config.keep is None
        and name in set(registry.names()) - {UNMERGED}
        and registry.get(name).guarantees.groups
    )
