"""Points composed from copies are those that Hydra composes."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pitome.config import CONF, choices
from pitome.runs.compose import register_schema
from pitome.runs.experiments import expand
from pitome.runs.points import Composer

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
    ["model=deit_t", "+model.args.depth=1"],
    ["model=vit_fmnist", "~model.args.num_heads", "merge=tome"],
    ["model=deit_t", "++model.args.depth=1", "logger=csv", "+logger.extra=1"],
    ["model=clip_l", "task=retrieval", "+experiment=null", "~trainer"],
)


def outcome(make):  # type: ignore[no-untyped-def]
    try:
        return make()
    except (HydraException, OmegaConfBaseException):
        return "refused"


@pytest.mark.parametrize("words", POINTS, ids=" ".join)
def test_a_point_is_what_hydra_composes(words: list[str]) -> None:
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composer = Composer()
        composer(["ratio=0.7", "merge.options.alpha=3.0"])  # leaves no trace in what is shared
        assert composer(words) == compose("config", overrides=words)


@pytest.mark.parametrize("group", ("model", "merge", "logger"))
def test_every_choice_is_what_hydra_composes(group: str) -> None:
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composer = Composer()
        for name in choices(group):
            assert composer([f"{group}={name}"]) == compose("config", overrides=[f"{group}={name}"]), name


@pytest.mark.parametrize("words", (["ratios=0.9"], ["merge.options.alfa=1"], ["model=nothing"]), ids=str)
def test_what_hydra_refuses_is_refused(words: list[str]) -> None:
    register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        assert outcome(lambda: Composer()(words)) == outcome(lambda: compose("config", overrides=words))
        assert outcome(lambda: Composer()(words)) == "refused"


@pytest.mark.parametrize("word", ("table5_offline", "figure7_offline", "table6_offline"))
def test_points_of_an_experiment(word: str) -> None:
    register_schema()
    (choices,) = (text for text in expand([f"experiment={word}", "limit=7"], True) if text.startswith("exp"))
    names = choices.partition("=")[2].split(",")
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        composer = Composer()
        for name in names[:: max(len(names) // 5, 1)]:
            words = [f"experiment={name}", "limit=7"]
            assert composer(words) == compose("config", overrides=words)
