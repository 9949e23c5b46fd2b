"""scripts/spectral.py: distance and loss of one merging layer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import timm
import torch

import pitome
from pitome.merge import registry
from pitome.paper import spectral as theory
from scripts import spectral
from scripts.tables.spectral import interval, spearman, within


def test_rank_correlation_is_scipys_also_with_ties() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, (2, 40)).astype(float)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert np.isnan(spearman(a, np.zeros(40)))


def test_groups_of_settings_are_compared_within_and_constant_ones_left_out() -> None:
    rows = [{"layer": layer, "method": method} for layer in range(3) for method in "abc"]
    groups = within(rows, ["layer"])
    assert groups == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    distance = np.tile([1.0, 2.0, 3.0], 3)[:, None] * np.ones(4)
    loss = np.array([1, 2, 3, 3, 2, 1, 0, 0, 0])[:, None] * np.ones(4)
    assert interval(distance, loss, groups) == (0.0, 0.0, 0.0)


def test_one_layer_merges_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()  # all are there before one comes that leaves again
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    pitome.register("probe")(spectral.probe)
    assert {"tome", "pitome", "atc", "random"} <= set(spectral.methods()) and "tofu" not in spectral.methods()
    monkeypatch.setattr(spectral, "methods", lambda: ["pitome", "tome"])  # other tests register others
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=24, num_heads=2, img_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    rows = list(spectral.measure(model, model, images, ratios=[0.5]))
    assert [row["layer"] for row in rows[:: len(spectral.methods())]] == [0, 1]
    by = {(row["layer"], row["method"]): row for row in rows}
    assert all(len(row["distance"]) == len(row["loss"]) == 2 for row in rows)
    assert min(by[0, "tome"]["loss"]) > 0 and pitome.patched(model) is None
    assert max(by[1, "tome"]["loss"]) == pytest.approx(0, abs=1e-6)  # the class token has read all by then
    with torch.no_grad(), pitome.patch(model, "tome", ratio=0.5, layers=[0], trace=True) as patched:
        keys: list[torch.Tensor] = []
        hook = model.blocks[0].attn.k_norm.register_forward_hook(lambda *a: keys.append(a[-1]))
        model(images)
        hook.remove()
    tokens = keys[0].mean(dim=1)[:, 1:].double()
    rows_of = patched.sources.argmax(dim=1)[:, 1:]
    expected = [
        theory.distance(theory.graph(x), groups.unique(return_inverse=True)[1])
        for x, groups in zip(tokens, rows_of, strict=True)
    ]
    assert by[0, "tome"]["distance"] == pytest.approx(expected)


@pytest.mark.parametrize("words", [["images=x"], ["images=0"], ["images="], ["nope"]])
def test_a_wrong_word_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert spectral.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
