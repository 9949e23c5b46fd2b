"""Pictures of tokens: of one run, and of a sweep's methods side by side at one amount of merging."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pitome.config import Amount, Config, validate
from pitome.errors import PitomeError
from pitome.merge import registry
from pitome.pictures.draw import draw
from pitome.records.files import write_atomically
from pitome.records.identity import UNMERGED
from pitome.tasks.environment import resolve_device

TASK = "classification"
_FIRST = (0, 1, 2)  # test images of a run's own picture

log = logging.getLogger(__name__)


def picture(configs: Sequence[Config], folder: Path) -> Path | None:
    """Draw `folder`/tokens.png; None where no two methods of one model can be compared.

    configs: of the finished runs. Raises PitomeError.
    """
    methods = side_by_side(configs)
    if len(methods) < 2:
        return None
    config, path = methods[0][0], folder / "tokens.png"
    write_atomically(path, draw(methods, resolve_device(config.device)))
    return path


def of_run(config: Config) -> bytes | None:
    """A PNG of what one run merges in the first test images; None where nothing merges, or where there
    are no images to draw."""
    if not _drawable(config):
        return None
    try:
        return draw([(config, validate(config))], resolve_device(config.device), _FIRST)
    except PitomeError as problem:  # the run itself is done: its picture is worth a word, no more
        log.warning("no picture of the tokens: %s", problem)
        return None


def side_by_side(configs: Sequence[Config]) -> list[tuple[Config, Amount]]:
    """The runs of image classification that differ in their method alone: as many as there are, at
    the middle one of the amounts that so many share."""
    alike: dict[str, dict[str, tuple[Config, Amount]]] = defaultdict(dict)
    for config in configs:
        if _drawable(config):
            rest = dataclasses.replace(config, merge=configs[0].merge)
            alike[repr(rest)].setdefault(config.merge.name, (config, validate(config)))
    most = max((len(group) for group in alike.values()), default=0)
    largest = [list(group.values()) for group in alike.values() if len(group) == most]
    return largest[len(largest) // 2] if largest else []


def _drawable(config: Config) -> bool:
    """Whether a run of this configuration merges tokens of images. A training ends in weights that its
    configuration does not name."""
    merges = config.merge.name in set(registry.names()) - {UNMERGED}
    return merges and config.task.name == TASK and config.mode == "test"
