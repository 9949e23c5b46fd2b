"""Every file in conf/ composes, is valid and gives what it names; every key is read by code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf

import pitome
from pitome.config import CONF, PARTS, Config, TaskConfig, choices, defaults, load_model
from pitome.merge import registry
from pitome.merge.schedule import AMOUNTS
from pitome.runs.compose import register_schema, to_config
from pitome.runs.points import hydra_of_conf
from pitome.runs.validate import validate
from pitome.sources.llava_family import MISSING
from pitome.sources.yaml_files import read_yaml
from pitome.tasks.built import preprocess_of
from pitome.tasks.checks import checks_of
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.models import build_timm
from pitome.tasks.data import Preprocess
from pitome.tasks.loggers import close_logger, open_logger
from pitome.tasks.recipe import recipes
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.text.checks import SCHEDULES
from pitome.tasks.text.data import TextData
from pitome.tasks.text.models import from_args
from pitome.tasks.text.split import text_split
from tests import ROOT
from tests.tasks.text.tiny_text import tokenizer

BACKBONES = ("dinov2_s", "siglip_b")  # models without a classifier


def task_of(group: str, name: str) -> str:
    """The task that a file is for, as the override that chooses it."""
    file = OmegaConf.load(CONF / group / f"{name}.yaml")
    return f"task={OmegaConf.select(file, 'task', default='classification')}"


def of_task(group: str, task: str) -> list[str]:
    """The names of a group's files for one task."""
    return [name for name in choices(group) if task_of(group, name) == f"task={task}"]


def config_of(*overrides: str) -> Config:
    register_schema()
    with hydra_of_conf():
        return to_config(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in PARTS for name in choices(group)])
def test_composes_and_is_named_after_its_file(group: str, name: str) -> None:
    head = ["task.head=knn"] if name in BACKBONES else []
    task = [task_of(group, name)] if group in ("model", "data") else []
    if group == "model" and load_model(name).arch in MISSING:
        task.append("merge=none")  # nothing merges inside its tower
    if group == "merge" and "tower" not in registry.get(name).places:
        # deeper than the project's own model, for the layer that is the method's default
        task = ["task=vqa", "model=llava_7b", "keep=0.5"]
    config = config_of(f"{group}={name}", "weights=random", *head, *task)
    if group != "trainer":
        assert getattr(config, group).name == name
    validate(config)


@pytest.mark.parametrize("name", of_task("model", "text"))
def test_every_text_model_is_built_patched_and_described(name: str) -> None:
    config = config_of("task=text", f"model={name}").model
    with torch.device("meta"):
        model = from_args(config, classes=2)
    with pitome.patch(model, "pitome", ratio=0.9) as patched:
        architecture = patched.architecture(128)
    assert patched.family == config.arch and architecture.classes == 2
    assert len(architecture.layers) == config.args["num_hidden_layers"]
    assert architecture.layers[0].hidden_dim == config.args["hidden_size"]


@pytest.mark.parametrize("name", of_task("model", "text"))
def test_every_checkpoint_of_a_text_model_is_of_a_known_place(name: str) -> None:
    config = config_of("task=text", f"model={name}")
    model = config.model
    sources = [model.base, *(entry.source for entry in model.checkpoints.values())]
    assert all(
        source in ("package", "shipped") or (source.startswith("hub:") and source.count("@") == 1)
        for source in sources
    )
    assert set(model.checkpoints) <= set(of_task("data", "text"))
    if name != "minilm":  # the paper's models; of its own texts, each has seen the official training split
        assert all(
            text_split(config_of("task=text", f"model={name}", f"data={data}")) == "official"
            for data in model.checkpoints
        )


@pytest.mark.parametrize("name", of_task("model", "classification"))
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


@pytest.mark.parametrize("name", of_task("data", "text"))
def test_every_text_data_set_has_a_module(name: str) -> None:
    config = config_of("task=text", f"data={name}", "model=bert_base")
    data = TextData(config.data, tokenizer(), 1, split=text_split(config))
    assert data.set.name == name and (data.set.archive is not None) is ("package" in config.data.sources)
    assert len(config.data.revision) == 40, "pinned"


@pytest.mark.parametrize("name", of_task("data", "classification"))
def test_every_data_set_has_a_module(name: str) -> None:
    data = build_image_data(config_of(f"data={name}").data, Preprocess(224), batch_size=1)
    assert type(data).__name__.lower() == name.replace("_", "")


@pytest.mark.parametrize("name", of_task("data", "retrieval"))
def test_every_captioned_data_set_has_a_module(name: str) -> None:
    config = config_of("task=retrieval", f"data={name}").data
    data = RetrievalData(config, Preprocess(224), 1)
    assert data.name == name and ("package" in config.sources) is (name == "scenes")
    assert len(config.revision) == 40 or not config.repository or name == "scenes", "pinned"


@pytest.mark.parametrize("name", choices("trainer"))
def test_every_trainer_has_stages(name: str) -> None:
    trainer = config_of(f"trainer={name}").trainer
    stages = recipes(trainer)
    assert stages and all(stage.epochs > 0 and stage.lr > 0 for stage in stages)
    text = name.removesuffix("_tune") in of_task("data", "text")
    assert (trainer.schedule in SCHEDULES) is text and (len(stages) == 1 or not text)


@pytest.mark.parametrize("name", choices("logger"))
def test_every_logger_opens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = open_logger(config_of(f"logger={name}").logger, "run", {"ratio": 0.9}, tmp_path)
    close_logger(logger, {"top1": 0.5, "top5": None})
    assert (logger is None) is (name == "none")
    assert any(tmp_path.iterdir()) is (name != "none")


def test_every_method_can_be_chosen() -> None:
    ours = {name for name in registry.names(None) if registry.get(name).plan.__module__.startswith("pitome.")}
    assert ours == set(choices("merge"))


def test_every_key_is_read_by_code() -> None:
    """A field of the configuration that no other module mentions would be a dead option."""
    code = "".join(path.read_text() for path in (ROOT / "pitome").rglob("*.py"))
    assert "getattr(config, name) for name in AMOUNTS" in code
    for field in dataclasses.fields(Config):
        assert field.name in AMOUNTS or re.search(rf"\b(config|asked)\.{field.name}\b", code), field.name


def test_the_defaults_of_conf_are_those_of_the_dataclasses() -> None:
    written = read_yaml(CONF / "config.yaml")
    known = {key: value for key, value in defaults(Config).items() if key not in PARTS}
    assert {key: value for key, value in written.items() if key not in ("defaults", "hydra")} == known
    for name in choices("task"):
        task = read_yaml(CONF / "task" / f"{name}.yaml")
        own = {key: task[key] for key in checks_of(name).options if key in task}
        assert own == {key: getattr(TaskConfig, key) for key in own}, name


def test_the_pairs_of_the_default_are_offline() -> None:
    config = config_of()
    assert (config.model.name, config.data.name, config.merge.name) == (
        "vit_fmnist",
        "fashion_mnist",
        "pitome",
    )
    config = config_of("task=text")
    assert (config.model.name, config.data.name) == ("minilm", "rotten_tomatoes")
    assert config.trainer == config_of("trainer=rotten_tomatoes").trainer
    retrieval = config_of("task=retrieval")
    assert (retrieval.model.name, retrieval.data.name) == ("clip_scenes", "scenes")
    assert [stage.patch_size for stage in retrieval.trainer.stages] == [8, 4]
    assert config_of("task=text", "model=bert_base", "data=sst2").model.name == "bert_base"
