"""Training of image classifiers, in stages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from pitome.config import Config
from pitome.merge.schedule import Reduction
from pitome.tasks.classification.data import ClassData, build_image_data
from pitome.tasks.classification.models import build_timm, build_vision_model, fit_state
from pitome.tasks.classification.module import Classification
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.training import train, train_folder


def train_from_config(
    config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    The folder is results/train/<model>-<key>.
    """
    folder = train_folder(config, amount, config.model.name)
    weights = config.weights or "random"
    preprocess = build_vision_model(config.model, "random").preprocess

    def data(batch_size: int, stage: int = 0) -> ClassData:
        return build_image_data(
            config.data,
            preprocess,
            batch_size,
            source=config.source,
            workers=config.trainer.workers,
            limit_train=config.limit_train,
            seed=1000 * config.seed + stage,
        )

    classes = data(1).train_info.classes

    def make(patch_size: int | None) -> nn.Module:
        args = dict(config.model.args) | {"num_classes": classes}
        if config.trainer.drop_path:
            args["drop_path_rate"] = config.trainer.drop_path
        if patch_size is not None:
            args["patch_size"] = patch_size
        model = build_timm(config.model.arch, args)
        if weights != "random":
            start = fit_state(
                build_vision_model(config.model, weights, config.weights_key).model.state_dict(), model
            )
            fresh = model.state_dict()
            # A head for other classes starts afresh.
            model.load_state_dict({k: v if v.shape == fresh[k].shape else fresh[k] for k, v in start.items()})
        return model

    path = train(
        config,
        amount,
        device,
        folder / f"{config.model.name}.safetensors",
        logger=logger,
        build=make,
        data=lambda number, recipe, model: data(recipe.batch_size, number),
        module=lambda model, recipe: Classification(model, classes, recipe),
        fit=fit_state,
    )
    args = dict(config.model.args) | {"num_classes": classes}
    return dataclasses.replace(
        config, weights=str(path), weights_key=None, model=dataclasses.replace(config.model, args=args)
    ), folder
