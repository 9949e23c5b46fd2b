"""Training of image-text models: CLIP in stages, BLIP in one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from torch import nn

from pitome.config import Config
from pitome.merge.schedule import Reduction
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.blip import Blip
from pitome.tasks.retrieval.blip_training import BlipTraining
from pitome.tasks.retrieval.clip import build_model, fit_state
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.models import build_retrieval_model
from pitome.tasks.retrieval.module import RetrievalTraining
from pitome.tasks.training import save_model, train, train_folder


def train_split(config: Config) -> str | None:
    """What an epoch is of: of photographs every caption. Keys of trainings name it, because an epoch once was
    every image, with one of its captions."""
    return None if config.data.name == "scenes" else "every caption"


def train_retrieval(
    config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    It starts from random weights, or from weights=PATH or pretrained. The folder is
    results/train/<model>_<data>-<key>. The test split is not looked at.
    """
    name = f"{config.model.name}_{config.data.name}"
    folder = train_folder(config, amount, name, train_split(config))
    start = build_retrieval_model(config.model, config.weights or "random", config.weights_key)
    opened: dict[int, RetrievalData] = {}

    def data(number: int, recipe: Recipe, model: nn.Module) -> RetrievalData:
        # A seed for each stage, so that none sees the scenes of the one before.
        opened[number] = RetrievalData(
            config.data,
            start.preprocess,
            recipe.batch_size,
            source=config.source,
            seed=1000 * config.seed + number,
            workers=config.trainer.workers,
            limit_train=config.limit_train,
        )
        return opened[number]

    def make(patch_size: int | None) -> nn.Module:
        if isinstance(start.model, Blip):
            return copy.deepcopy(start.model).requires_grad_(True)
        model = build_model(config.model, patch_size=patch_size)
        if config.weights not in (None, "random"):
            model.load_state_dict(fit_state(start.model.state_dict(), model))
        return model

    def module(model: nn.Module, recipe: Recipe) -> RetrievalTraining:
        kind = BlipTraining if isinstance(model, Blip) else RetrievalTraining
        return kind(model, lambda: opened[max(opened)].validation, recipe)  # type: ignore[arg-type]

    def save(model: nn.Module, path: Path) -> Path:
        return save_model(model.model if isinstance(model, Blip) else model, path)

    path = train(
        config,
        amount,
        device,
        folder / f"{config.model.name}.safetensors",
        logger=logger,
        build=make,
        data=data,
        module=module,
        fit=lambda state, model: state if isinstance(model, Blip) else fit_state(state, model),
        save=save,
    )
    return dataclasses.replace(config, weights=str(path), weights_key=None), folder
