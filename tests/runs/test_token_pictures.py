"""The picture at the end of a sweep: which runs stand side by side, where it is written and logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pitome.config import Config
from pitome.runs.token_pictures import picture, side_by_side
from tests.test_conf import config_of

Run = Callable[..., int]


def sweep(methods: str, *ratios: float, words: tuple[str, ...] = ()) -> list[Config]:
    return [
        config_of(f"merge={method}", f"ratio={ratio}", "weights=random", *words)
        for method in methods.split()
        for ratio in ratios
    ]


def chosen(configs: list[Config]) -> list[tuple[str, object]]:
    return [(config.merge.name, amount.ratio) for config, amount in side_by_side(configs)]


def test_all_methods_at_the_middle_amount() -> None:
    assert chosen(sweep("none pitome tome", 0.95, 0.9, 0.85)) == [("pitome", 0.9), ("tome", 0.9)]


def test_the_amount_that_most_methods_have() -> None:
    assert chosen([*sweep("tome", 0.95), *sweep("tome random", 0.8)]) == [("tome", 0.8), ("random", 0.8)]


def test_nothing_to_compare() -> None:
    assert chosen([]) == []
    assert chosen(sweep("none", 0.9)) == []
    # another seed or another model is another comparison
    assert len(chosen([*sweep("tome", 0.9), *sweep("tofu", 0.9, words=("seed=1",))])) == 1
    assert len(chosen([*sweep("tome", 0.9), *sweep("tofu", 0.9, words=("model=deit_s",))])) == 1
    # the weights of a training are in no configuration
    assert chosen(sweep("tome tofu", 0.9, words=("mode=train",))) == []


def test_a_sweep_of_methods_ends_in_a_picture_that_is_logged(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("-m", "merge=tome,tofu", "ratio=0.9", "limit=20", "measure=none", "logger=wandb") == 0
    (path,) = (tmp_path / "results" / "sweeps").glob("*/tokens.png")
    assert f"tokens: {path.relative_to(tmp_path)}" in capsys.readouterr().out
    logged = list((tmp_path / "results" / "wandb").glob("offline-run-*/files/media/images/*.png"))
    assert len(logged) == 3 and all(one.name.startswith("tokens") for one in logged)  # each run's own too
    assert sorted(Image.open(one).size for one in logged)[-1] == Image.open(path).size
    (tables,) = {one.parents[3] for one in (tmp_path / "results" / "wandb").rglob("*.table.json")}
    assert tables in {one.parents[3] for one in logged if Image.open(one).size == Image.open(path).size}


def test_one_method_has_no_picture(tmp_path: Path) -> None:
    assert picture(sweep("none tome", 0.9), tmp_path) is None
    assert not list(tmp_path.iterdir())
