"""A sweep's picture: the methods on one test image per class, side by side at one amount of merging."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pitome.config import Amount, Config, portable, validate
from pitome.merge import registry
from pitome.pictures.draw import draw
from pitome.records.files import write_atomically
from pitome.records.identity import UNMERGED
from pitome.tasks.environment import resolve_device
from pitome.tasks.loggers import log_picture

TASK = "classification"


def picture(configs: Sequence[Config], folder: Path) -> Path | None:
    """Draw `folder`/tokens.png and log it; None where no two methods of one model can be compared.

    configs: of the finished runs. Raises PitomeError.
    """
    methods = side_by_side(configs)
    if len(methods) < 2:
        return None
    config, path = methods[0][0], folder / "tokens.png"
    write_atomically(path, draw(methods, resolve_device(config.device)))
    log_picture(config.logger, path, portable(config), folder.parent.parent)
    return path


def side_by_side(configs: Sequence[Config]) -> list[tuple[Config, Amount]]:
    """The runs of image classification that differ in their method alone: as many as there are, at
    the middle one of the amounts that so many share."""
    alike: dict[str, dict[str, tuple[Config, Amount]]] = defaultdict(dict)
    for config in configs:
        # A training ends in weights that its configuration does not name.
        tested = config.task.name == TASK and config.mode == "test"
        if tested and config.merge.name in set(registry.names()) - {UNMERGED}:
            rest = dataclasses.replace(config, merge=configs[0].merge)
            alike[repr(rest)].setdefault(config.merge.name, (config, validate(config)))
    most = max((len(group) for group in alike.values()), default=0)
    largest = [list(group.values()) for group in alike.values() if len(group) == most]
    return largest[len(largest) // 2] if largest else []
