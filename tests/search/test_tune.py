"""`pitome.tune`: the code in the README, what it chooses, and what it says where a speed cannot be had."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import pitome
from pitome.errors import UsageError
from pitome.measure.throughput import Timing
from pitome.search import speed as speeds
from pitome.search import tune as tuning
from pitome.search.tune import pareto
from tests import ROOT
from tests.adapters.tiny import randomise, vit

IMAGES = torch.randn(6, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def test_the_code_in_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n([^`]*pitome\.tune[^`]*)```", (ROOT / "README.md").read_text())
    assert code is not None and len(code[1].strip().splitlines()) <= 10
    small = timm.create_model("vit_tiny_patch16_224", embed_dim=64, depth=4, num_heads=2, num_classes=5)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: randomise(small))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1].replace("trials=20", "trials=2").replace("randn(32", "randn(4"), names)
    tuned = names["tuned"]
    assert pitome.patched(names["model"]) is tuned.patched and tuned.share <= 0.6
    assert tuned.method in str(tuned) and 0 <= tuned.agreement <= 1 and tuned.timing.pairs >= 6
    assert (tmp_path / "tuned.png").stat().st_size > 5_000
    assert {point.method for point in tuned.tried} == {"tome", "pitome"}
    assert tuned.disagreement == min(p.disagreement for p in tuned.tried if p.share <= 0.6)


def fake_timing(monkeypatch: pytest.MonkeyPatch, most: float) -> None:
    """A machine on which a share s of the cost is 1 + (most - 1) (1 - s) / 0.5 times as fast."""

    def measured(probe: Any, space: Any, amount: Any, options: Any) -> Timing:
        share = space.share(amount.rule(), space.resolve(options))
        faster = 1 + (most - 1) * (1 - share) / 0.5
        return Timing(1.0, 1.0, faster, faster, faster, 10, 6, "cpu", 1, "float32", 0, None)

    for module in (speeds, tuning):
        monkeypatch.setattr(module, "measured", measured)


def test_a_speed_that_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timing(monkeypatch, most=2.0)
    model = vit(grid=(6, 6))
    tuned = pitome.tune(model, [IMAGES[:4], IMAGES[4:]], speed=1.5, methods=["tome"], trials=3)
    assert tuned.speedup >= 1.5 and 0.65 < tuned.share <= 0.75
    assert any(point.timing and point.timing.speedup < 1.5 for point in tuned.tried)
    with torch.no_grad():
        assert model(IMAGES).shape == (6, 7) and tuned.patched.tokens[1:] == tuned.schedule


def test_a_speed_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timing(monkeypatch, most=1.6)
    model = vit(grid=(6, 6))
    with pytest.raises(
        UsageError, match=r"merge=\w+: merging all it can makes the model \d\.\d\d times as fast \(95 %"
    ):
        pitome.tune(model, IMAGES, speed=9, trials=2)
    assert pitome.patched(model) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "one target"),
        ({"speed": 2, "flops": 0.5}, "one target"),
        ({"flops": 0.05}, "cannot be reached"),
        ({"flops": 0.7, "methods": []}, "give the methods"),
        ({"flops": 0.7, "methods": ["tom"]}, "did you mean tome"),
        ({"flops": 0.7, "run": lambda batch: batch * torch.nan}, "not finite"),
    ],
)
def test_what_cannot_be_tuned(arguments: dict[str, Any], says: str) -> None:
    model = vit(grid=(6, 6))
    with pytest.raises(UsageError, match=says):
        pitome.tune(model, IMAGES, **arguments)
    assert pitome.patched(model) is None


def test_the_front_holds_what_no_point_beats() -> None:
    point = tuning.TriedPoint("tome", None, 0.5, 1.0)  # type: ignore[arg-type]
    points = [
        dataclasses.replace(point, share=s, disagreement=d) for s, d in ((0.5, 1), (0.6, 2), (0.7, 0.5))
    ]
    assert [p.share for p in pareto(points)] == [0.5, 0.7]
