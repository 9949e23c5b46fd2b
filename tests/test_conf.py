"""Every file in conf/ composes, is valid and gives what it names; every key is read by code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import pitome
from pitome.cli.compose import register_schema
from pitome.config import CONF, Config, choices, validate
from pitome.data.base import Preprocess
from pitome.data.build import build as build_data
from pitome.merge import registry
from pitome.models.vision import build_timm, preprocess_of
from pitome.tasks.loggers import close_logger, open_logger
from pitome.tasks.training import _stage

ROOT = Path(__file__).parents[1]
BACKBONES = ("dinov2_s", "siglip_b")  # models without a classifier
GROUPS = ("task", "model", "merge", "data", "trainer", "logger")


def config_of(*overrides: str) -> Config:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(compose("config", overrides=list(overrides)))  # type: ignore[return-value]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in choices(group)])
def test_composes_and_is_named_after_its_file(group: str, name: str) -> None:
    head = ["task.head=knn"] if name in BACKBONES else []
    config = config_of(f"{group}={name}", "weights=random", *head)
    if group != "trainer":
        assert getattr(config, group).name == name
    validate(config)


@pytest.mark.parametrize("name", choices("model"))
def test_every_model_is_built_patched_and_described(name: str) -> None:
    config = config_of(f"model={name}").model
    with torch.device("meta"):
        model = build_timm(config.arch, dict(config.args))
    preprocess = preprocess_of(model, config.preprocess)
    with pitome.patch(model, "pitome", ratio=0.9) as patched:
        architecture = patched.architecture()
    assert patched.family == ("mae" if name.startswith("mae") else "deit")
    assert architecture.patches * architecture.patch_inputs == preprocess.channels * preprocess.size**2
    assert architecture.classes == (10 if name == "vit_fmnist" else 0 if name in BACKBONES else 1000)


@pytest.mark.parametrize("name", choices("data"))
def test_every_data_set_has_a_module(name: str) -> None:
    data = build_data(dataclasses.asdict(config_of(f"data={name}").data), Preprocess(224), batch_size=1)
    assert type(data).__name__.lower() == name.replace("_", "")


@pytest.mark.parametrize("name", choices("trainer"))
def test_every_trainer_has_stages(name: str) -> None:
    trainer = config_of(f"trainer={name}").trainer
    stages = [_stage(stage, trainer) for stage in trainer.stages]
    assert stages and all(stage.recipe.epochs > 0 and stage.recipe.lr > 0 for stage in stages)


@pytest.mark.parametrize("name", choices("logger"))
def test_every_logger_opens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = open_logger(config_of(f"logger={name}").logger, "run", {"ratio": 0.9}, tmp_path)
    close_logger(logger, {"top1": 0.5, "top5": None})
    assert (logger is None) is (name == "none")
    assert any(tmp_path.iterdir()) is (name != "none")


def test_every_method_can_be_chosen() -> None:
    assert set(registry.names()) == set(choices("merge"))


def test_every_key_is_read_by_code() -> None:
    """A field of the configuration that no other module mentions would be a dead option."""
    code = "".join(path.read_text() for path in (ROOT / "pitome").rglob("*.py"))
    for field in dataclasses.fields(Config):
        assert f"config.{field.name}" in code, field.name


def test_the_pairs_of_the_default_are_offline() -> None:
    config = config_of()
    assert (config.model.name, config.data.name, config.merge.name) == (
        "vit_fmnist",
        "fashion_mnist",
        "pitome",
    )
