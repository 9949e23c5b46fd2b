"""Spectral distance of graphs, and Theorem 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pitome.errors import UsageError
from pitome.paper import spectral, theorem
from pitome.paper.verdicts import WITHIN, judge
from pitome.records.store import Store

CLUSTERS = torch.tensor([0, 0, 0, 1, 1, 2])
TIGHT = torch.eye(4, dtype=torch.float64)[CLUSTERS]


def test_equal_tokens_merged_leave_the_spectrum_as_it_was() -> None:
    weights = spectral.graph(TIGHT)
    assert spectral.distance(weights, CLUSTERS) == pytest.approx(0, abs=1e-12)
    mixed = torch.tensor([0, 0, 1, 1, 2, 2])
    assert spectral.distance(weights, mixed) > 0.1


def test_a_lifted_graph_has_the_coarse_spectrum_and_ones() -> None:
    """Lemma 1, for the graph with self-loops that lifting makes: eigenvalue 1 as often as nodes were lost."""
    torch.manual_seed(0)
    weights = spectral.graph(torch.randn(6, 3, dtype=torch.float64))
    lifted = spectral.lift(spectral.coarsen(weights, CLUSTERS), CLUSTERS)
    values = spectral.spectrum(lifted)
    assert int(((values - 1).abs() < 1e-9).sum()) >= 3
    assert torch.allclose(lifted, lifted.T)


def test_the_spectrum_of_a_complete_graph() -> None:
    """0 once and N / (N - 1), known in closed form."""
    values = spectral.spectrum(torch.ones(5, 5, dtype=torch.float64).fill_diagonal_(0))
    assert torch.allclose(values, torch.tensor([0, 1.25, 1.25, 1.25, 1.25], dtype=torch.float64))


def test_groups_of_several_layers_hold_all_tokens() -> None:
    tokens, _ = theorem.draw("shuffled", 0.1, 0)
    groups = spectral.merged_groups(tokens, "tome", ratio=0.9, layers=3)
    assert len(groups) == 64 and groups.unique().numel() == 64 - 6 - 5 - 5
    with pytest.raises(UsageError, match="leaves no partition"):
        spectral.merged_groups(tokens, "tofu", ratio=0.9)


def test_theorem_1_where_the_largest_cluster_is_on_even_positions() -> None:
    pitome, tome = (theorem.trial("even", 0.01, method, 0) for method in ("pitome", "tome"))
    assert pitome[0] < 1e-3 and pitome[1] == 1
    assert tome[0] > 0.01 and tome[1] == 0


def test_in_any_order_both_distances_vanish() -> None:
    assert all(theorem.trial("shuffled", 0.01, method, 0)[0] < 1e-3 for method in ("pitome", "tome"))


def test_records_give_the_experiment_its_verdicts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record in theorem.measure(trials=2):
        store.save(record)
    rows = judge("theorem", store.all()).rows
    assert len(rows) == 3 and {row.verdict for row in rows} == {WITHIN}
    assert {row.command for row in rows} == {"python run.py experiment=theorem"}
