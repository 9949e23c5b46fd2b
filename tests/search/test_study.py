"""The search: uniform first, never worse than it, resumed after a kill, refused where it is another one."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import pitome
from pitome.errors import PitomeError, UsageError
from pitome.merge import registry
from pitome.merge.methods.tome import tome
from pitome.search import study
from pitome.search.probe import Probe, disagreements
from pitome.search.space import options_of
from tests.search.support import options_for, space_for, tiny_probe


def search(method: str = "tome", target: float = 0.7, **changes: Any) -> list[study.Tried]:
    probe = changes.pop("probe", None) or tiny_probe()
    space = space_for(probe, method, by_ratio=changes.pop("by_ratio", False))
    kept = {name: changes.pop(name) for name in ("folder", "identity") if name in changes}
    return study.search(probe, space, study.SearchPlan(target, {}, **{"trials": 6, **changes}), **kept)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
@pytest.mark.parametrize("by_ratio", [False, True])
def test_the_uniform_schedule_comes_first_and_bounds_the_result(sampler: str, by_ratio: bool) -> None:
    tried = search(sampler=sampler, trials=12, by_ratio=by_ratio)
    assert [t.role for t in tried[:3]] == [study.UNIFORM, study.FILLED, study.PUBLISHED] and len(tried) == 12
    best = study.best_of(tried)
    assert best.disagreement <= tried[0].disagreement
    assert all(0.68 < t.share <= 0.7 for t in tried) and len({t.amount for t in tried}) > 6
    probe = tiny_probe()
    with pitome.patch(probe.model, "tome", **tried[0].amount.arguments()):
        merged = torch.cat(list(probe.outputs()))
    plain = torch.cat(list(probe.outputs()))
    p = plain.softmax(-1)
    by_hand = (p * (p.log() - merged.softmax(-1).log())).sum(-1).mean()
    assert tried[0].disagreement == pytest.approx(float(by_hand), rel=1e-4)


def test_the_same_seed_tries_the_same() -> None:
    assert search(trials=14) == search(trials=14) != search(trials=14, seed=1)


def test_it_leaves_the_callers_warnings_and_optunas_lines_as_they_were(
    capfd: pytest.CaptureFixture[str],
) -> None:
    filters, verbosity = list(warnings.filters), optuna.logging.get_verbosity()
    search(trials=4)
    assert warnings.filters == filters and optuna.logging.get_verbosity() == verbosity
    assert "study" not in capfd.readouterr().err


def test_options_are_searched_and_start_at_their_defaults() -> None:
    options = options_of(registry.get("pitome"), ["protect", "margin", "prop_attn"])
    tried = search("pitome", searched=options, trials=14)
    assert tried[0].options == {"protect": "all", "margin": 0.9, "prop_attn": True}
    assert len({t.options["protect"] for t in tried}) > 1


def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    plan = study.SearchPlan(0.7, {}, trials=5)
    interrupted = study._open(tmp_path, {})
    space = space_for(tiny_probe(), "tome")
    study._begin(interrupted, space, plan, options_for(space))
    interrupted.ask()  # the first trial never ends
    tried = search(folder=tmp_path, trials=3)
    assert [t.role for t in tried].count(study.UNIFORM) == 1
    more = search(folder=tmp_path, trials=13)
    assert more[:3] == tried and len(more) == 13
    assert search(folder=tmp_path, trials=13) == more, "nothing is left to do"
    undisturbed = search(trials=13)
    assert [t.amount for t in more] == [t.amount for t in undisturbed], "the same seed tries the same"


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    search(folder=tmp_path, identity={"seed": 0, "samples": 6}, trials=1)
    with pytest.raises(
        UsageError, match=r"something else \(samples was 6, is 7\); give another search.folder"
    ):
        search(folder=tmp_path, identity={"seed": 0, "samples": 7}, trials=1)


def test_minutes_end_it() -> None:
    assert len(search(trials=None, minutes=1e-6)) == 1


def broken(*, after: int) -> Probe:
    """A probe whose outputs are NaN from the forward number `after` on."""
    probe, calls = tiny_probe(), 0

    def run(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return probe.model(images) * (math.nan if calls > after else 1)

    return dataclasses.replace(probe, run=run)


@pytest.mark.parametrize(("after", "says"), [(0, "the unmerged model's outputs"), (2, "uniform schedule")])
def test_nan_is_said(after: int, says: str) -> None:
    with pytest.raises(UsageError, match=f"{says}.*not finite"):
        search(probe=broken(after=after))


def test_a_trial_with_nan_fails_alone() -> None:
    tried = search(probe=broken(after=8), trials=5)
    assert [math.isnan(t.disagreement) for t in tried] == [False] * 3 + [True] * 2
    assert not math.isnan(study.best_of(tried).disagreement)


def test_counts_that_depend_on_the_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(tokens: Any, remove: int, options: Any) -> Any:
        return tome(tokens, remove - (float(tokens.x.sum()) > 0), options)

    entry = dataclasses.replace(registry.get("tome"), plan=picky)
    monkeypatch.setattr(registry, "get", lambda name: entry if name == "tome" else registry._METHODS[name])
    with pytest.raises(PitomeError, match=r"depends on the data|were asked for"):
        search(probe=tiny_probe(16))


def test_cosine_of_features() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert disagreements("cosine", features, features * 3).abs().max() < 1e-6
    assert disagreements("cosine", features, features.flip(0)).tolist() == [1.0, 1.0]
