"""DiffRate's learned rates: the masked model is the merged one, the cost is the closed form, gradients reach
every number, and learning meets the target and goes on after a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pitome
from pitome.errors import UsageError
from pitome.merge.schedule import Schedule
from pitome.search import rates as learning
from pitome.search.probe import Probe
from tests.search.support import options_for, space_for, tiny_probe

COUNTS = {"prune_kept": [35, 26, 20, 15], "merge_kept": [30, 22, 16, 12]}


def labelled() -> Probe:
    probe = tiny_probe()

    def training() -> Iterator[tuple[Any, Tensor]]:
        images = torch.cat(probe.batches)
        while True:
            yield images, torch.arange(len(images))

    return dataclasses.replace(probe, training=training)


def rates_at(counts: dict[str, list[int]]) -> learning.Rates:
    """With distributions so narrow that they are these counts."""
    rates = learning.Rates(torch.tensor(list(counts.values())).float() - 1, 36)
    with torch.no_grad():
        rates.logits.mul_(100)
    return rates


def test_the_masked_model_is_the_merged_one() -> None:
    probe = labelled()
    space, rates = space_for(probe, "diffrate"), rates_at(COUNTS)
    with pitome.patch(probe.model, "diffrate", **COUNTS):
        merged = torch.cat(list(probe.outputs()))
    with learning._masked(probe, space, {}, rates):
        masked = torch.cat([probe.run(batch) for batch in probe.batches])
    assert (masked - merged).abs().max() < 2e-3 < (masked - torch.cat(probe.reference)).abs().max()
    masked.square().sum().backward()
    assert rates.logits.grad is not None and rates.logits.grad.isfinite().all()
    # The last layer's tokens no longer reach the class token, so only the cost moves its numbers.
    assert (rates.logits.grad.abs().sum(dim=-1)[:, :-1] > 0).all(), "both numbers of every other layer"
    assert all(parameter.grad is None and parameter.requires_grad for parameter in probe.model.parameters())


def test_the_cost_is_the_closed_form() -> None:
    space = space_for(tiny_probe(), "diffrate")
    expected = space.share(Schedule(kept=tuple(COUNTS["merge_kept"])), options_for(space))
    share = learning.cost(space.architecture, torch.tensor(COUNTS["merge_kept"]).float() - 1)
    assert float(share) == pytest.approx(expected, rel=1e-5)


def test_learning_meets_the_target_and_goes_on(tmp_path: Path) -> None:
    probe = labelled()
    space = space_for(probe, "diffrate")
    how: dict[str, Any] = {"minutes": None, "folder": tmp_path, "identity": "a"}
    lists, done = learning.learn(probe, space, {}, 0.7, steps=10, **how)
    share = space.share(Schedule(kept=tuple(lists["merge_kept"])), options_for(space))
    assert done == 10 and 0.64 < share <= 0.7
    with pitome.patch(probe.model, "diffrate", **lists):
        assert all(output.isfinite().all() for output in probe.outputs())
    assert learning.learn(probe, space, {}, 0.7, steps=10, **how) == (lists, 10), "nothing is left to do"
    assert learning.learn(probe, space, {}, 0.7, steps=12, **how)[1] == 12
    with pytest.raises(UsageError, match="something else"):
        learning.learn(probe, space, {}, 0.7, steps=12, **(how | {"identity": "b"}))


def test_it_needs_labels() -> None:
    probe = tiny_probe()
    with pytest.raises(UsageError, match="labelled images"):
        learning.learn(
            probe, space_for(probe, "diffrate"), {}, 0.7, steps=1, minutes=None, folder=Path("."), identity=""
        )
