"""The committed costs are those of the architectures: some are computed again."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from torch import nn

from pitome.config import CONF
from pitome.paper import costs

DEIT = {"task": "classification", "data": "imagenet", "model": "deit_t"}
TEXT = {"task": "text", "model": "distilbert", "merge": "tome_repo"}
POINTS: dict[str, dict[str, Any]] = {
    "unmerged": DEIT | {"merge": "none"},
    "a ratio": DEIT | {"merge": "pitome_repo", "ratio": 0.925},
    "another method": DEIT | {"merge": "diffrate_repo", "ratio": 0.925},
    "a fixed number": DEIT | {"model": "deit_s", "merge": "tome", "r": 13},
    "IMDb": TEXT | {"data": "imdb", "ratio": 0.8},
    "SST-2": TEXT | {"data": "sst2", "ratio": 0.75},
}


@pytest.mark.parametrize("case", POINTS)
def test_a_cost_is_as_committed(case: str) -> None:
    path = CONF.parent / "scripts" / "experiment_costs.py"
    spec = importlib.util.spec_from_file_location("experiment_costs", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    models: dict[str, nn.Module] = {}
    assert script.compute(POINTS[case], models) == costs.table()[costs.key(POINTS[case])]


def test_the_logged_costs_of_deit_are_met_to_the_digit() -> None:
    """5cac99d:deit_eval.csv."""
    for model, logged in {"deit_t": 0.81, "deit_b": 11.9}.items():
        cost = costs.find(DEIT | {"model": model, "merge": "pitome_repo", "ratio": 0.925}, "gmacs")
        assert cost is not None and float(f"{cost.value:.3g}") == pytest.approx(logged, abs=0.005)


def test_what_a_cost_does_not_depend_on() -> None:
    trained = DEIT | {"mode": "train", "weights": "pretrained", "merge": "none", "ratio": 0.9}
    assert costs.key(trained) == costs.key(DEIT | {"merge": "none"})
    assert costs.find(DEIT | {"merge": "none", "model": "no_such_model"}, "gmacs") is None
