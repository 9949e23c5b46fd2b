"""Contrastive training of image-text models, in stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from pitome.config import Config
from pitome.merge.schedule import Reduction
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.clip import build_clip, build_model, fit_state
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.module import RetrievalTraining
from pitome.tasks.training import train, train_folder


def train_retrieval(
    config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    It starts from random weights, or from weights=PATH or pretrained. The folder is
    results/train/<model>_<data>-<key>. The test split is not looked at.
    """
    name = f"{config.model.name}_{config.data.name}"
    folder = train_folder(config, amount, name)
    start = build_clip(config.model, config.weights or "random", config.weights_key)
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
        model = build_model(config.model, patch_size=patch_size)
        if config.weights not in (None, "random"):
            model.load_state_dict(fit_state(start.model.state_dict(), model))
        return model

    path = train(
        config,
        amount,
        device,
        folder / f"{config.model.name}.safetensors",
        logger=logger,
        build=make,
        data=data,
        module=lambda model, recipe: RetrievalTraining(model, lambda: opened[max(opened)].validation, recipe),
        fit=fit_state,
    )
    return dataclasses.replace(config, weights=str(path), weights_key=None), folder
