"""Hydra's way in for plugins: a sweeper for points that were composed and checked before it starts."""

from __future__ import annotations

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class CheckedSweeper(BasicSweeper):
    """Hydra's own sweeper, which would compose every point once more only to see whether it can."""

    def validate_batch_is_legal(self, batch: object) -> None:
        """Done by `pitome.runs.compose` for all points."""
