"""Points composed from copies are those that Hydra composes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pitome.config import choices
from pitome.runs import points
from pitome.runs.compose import register_schema
from pitome.runs.experiments import expand

POINTS = (
    [],
    ["ratio=0.9"],
    ["merge=tome", "ratio=0.9", "merge.options.prop_attn=false"],
    ["merge=tome", "ratio=[0.9,0.8]", "limit=10"],
    ["task=text", "ratio=0.8"],
    ["task=text", "model=distilbert", "data=sst2", "weights='a=b, c'"],
    ["data=imagenet", "model=deit_s", "data.root=/tmp/x", "trainer=imagenet"],
    ["trainer=imagenet", "trainer.lora.rank=4", "mode=train"],
    ["model.args.depth=4", "+model.args.qkv_bias=false", "merge=tome"],
    ["~model.args.num_heads", "ratio=0.5"],
    ["merge.options={alpha: 2.0}", "logger=csv", "logger.project=mine"],
    ["task=retrieval", "hydra.sweep.dir=/tmp/y", "seed=3"],
    ["task=vqa", "merge=tofu", "logger=none", "model=llava_7b", "model.name=x"],
    ["model=deit_s", "task=text"],
    ["merge=none", "merge=tome"],
    ["task=text", "model=minilm", "+model.args.max_position_embeddings=24"],
    ["model=deit_s", "~model.args.depth"],
    ["model=deit_t", "+model.args.depth=1"],
    ["model=vit_fmnist", "~model.args.num_heads", "merge=tome"],
    ["model=deit_t", "++model.args.depth=1", "logger=csv", "+logger.extra=1"],
    ["merge=tome", "+merge.options.later=1"],
    ["model=clip_l", "task=retrieval", "+experiment=null", "~trainer"],
)


SWEEPS = (
    ["merge=none,tome", "ratio=0.9,0.8", "limit=10"],
    [
        "merge=tome",
        "seed=range(0,3)",
        "model.args.depth=2",
        "hydra.sweep.dir=/tmp/y",
        "hydra/launcher=joblib",
    ],
    ["task=text", "model=distilbert,minilm", "logger.group=a"],
)
REFUSED = (["ratios=0.9"], ["merge.options.alfa=1"], ["model=nothing"], ["ratio=0.9,0.8"])


@pytest.fixture
def loaders() -> Iterator[list[ConfigLoader]]:
    """Ours and Hydra's."""
    register_schema()
    with points.hydra_of_conf() as hydra:
        yield [hydra.config_loader, ConfigLoaderImpl(hydra.config_loader.get_search_path())]


def load(loader: ConfigLoader, words: list[str], mode: RunMode = RunMode.RUN) -> Any:
    try:
        config = loader.load_configuration("config", list(words), mode)
    except (HydraException, OmegaConfBaseException, ValueError):  # the last by Hydra, of a choice of null
        return "refused"
    config.hydra.overrides.hydra.sort()
    return OmegaConf.to_container(config)


@pytest.mark.parametrize(("words", "mode"), [
    *((words, RunMode.RUN) for words in POINTS), *((words, RunMode.MULTIRUN) for words in SWEEPS)
], ids=str)  # fmt: skip
def test_a_point_is_what_hydra_composes(
    words: list[str], mode: RunMode, loaders: list[ConfigLoader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what Hydra says of itself and the words."""
    monkeypatch.setattr(points, "_composed", {})
    quick, slow = loaders
    load(quick, ["ratio=0.7", "merge.options.alpha=3.0"])  # leaves no trace in what is shared
    assert load(quick, words, mode) == load(quick, words, mode) == load(slow, words, mode)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"])
@pytest.mark.parametrize("group", ("model", "merge", "logger"))
def test_every_choice_is_what_hydra_composes(group: str, step: int, loaders: list[ConfigLoader]) -> None:
    """No file sets more than its own group."""
    for name in choices(group)[::step]:
        quick, slow = (load(loader, [f"{group}={name}"]) for loader in loaders)
        assert quick == slow, name


@pytest.mark.parametrize("words", REFUSED, ids=str)
def test_what_hydra_refuses_is_refused(words: list[str], loaders: list[ConfigLoader]) -> None:
    assert [load(loader, words) for loader in loaders] == ["refused", "refused"]


@pytest.mark.parametrize("word", ("table5_offline", "figure7_offline", "table6_offline"))
def test_points_of_an_experiment(word: str, loaders: list[ConfigLoader]) -> None:
    (chosen,) = (text for text in expand([f"experiment={word}", "limit=7"], True) if text.startswith("exp"))
    names = chosen.partition("=")[2].split(",")
    for name in names[:: max(len(names) // 3, 1)]:
        quick, slow = (load(loader, [f"experiment={name}", "limit=7"]) for loader in loaders)
        assert quick == slow


def test_what_changed_is_composed_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of the user's own, and the options of a method of the user's own."""
    monkeypatch.chdir(tmp_path)
    register_schema()
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", {**store.repo, "merge": dict(store.repo.get("merge", {}))})
    path = tmp_path / "conf" / "data" / "flowers.yaml"
    path.parent.mkdir(parents=True)
    for number in (1, 2):
        store.store(group="merge", name="mine", node={"name": "mine", "options": {"power": number}})
        path.write_text(f"name: flowers\ntask: classification\nroot: place{number}\nclasses: [a, b]\n")
        os.utime(path, (number, number))
        with points.hydra_of_conf() as hydra:
            config = load(hydra.config_loader, ["merge=mine", "data=flowers"])
        assert (config["merge"]["options"]["power"], config["data"]["root"]) == (number, f"place{number}")
