"""Training of text classifiers: whole models or adapters."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import torch
from torch import nn

from pitome.config import Config
from pitome.merge.schedule import Reduction
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.recipe import stages
from pitome.tasks.text.data import TextData
from pitome.tasks.text.lora import Lora, adapter_state, add_lora, metadata, targets_of
from pitome.tasks.text.models import build_text_model, load_base
from pitome.tasks.text.module import TextClassification
from pitome.tasks.text.sets import text_set
from pitome.tasks.text.split import text_split
from pitome.tasks.training import save_model, save_weights, train, train_folder


def train_text(
    config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    It starts from weights=PATH, from random ones, or, weights=null, from the model's pretrained encoder
    with a new classifier; adapters are added to the latter alone. The folder is
    results/train/<model>_<data>-<key>.
    """
    split = text_split(config)
    name = f"{config.model.name}_{config.data.name}"
    path = train_folder(config, amount, name, split) / f"{name}.safetensors"
    tested = dataclasses.replace(
        config, weights=str(path), weights_key=None, data=dataclasses.replace(config.data, split=split)
    )
    if path.exists():
        return tested, path.parent
    classes = len(text_set(config.data.name, config.data.classes).classes)
    model: nn.Module
    lora = None
    if config.weights is None:
        model, tokenizer = load_base(config.model, classes)
        given = config.trainer.lora
        if given.rank:
            lora = Lora(given.rank, given.alpha, targets_of(model, given.targets), given.dropout)
            add_lora(model, lora)
    else:
        built = build_text_model(config.model, config.data.name, classes, config.weights, config.weights_key)
        model, tokenizer = built.model.requires_grad_(True), built.tokenizer
    data = TextData(
        config.data,
        tokenizer,
        stages(config.trainer)[0].batch_size,
        split=split,
        source=config.source,
        max_length=model.config.max_position_embeddings,  # type: ignore[union-attr, arg-type]
        limit_train=config.limit_train,
        seed=config.seed,
    )

    def save(model: nn.Module, path: Path) -> Path:
        if lora is None:
            return save_model(model, path)
        return save_weights(adapter_state(model), path, metadata(lora))

    train(
        config,
        amount,
        device,
        path,
        logger=logger,
        build=lambda patch_size: model,
        data=lambda number, recipe, model: data,
        module=lambda model, recipe: TextClassification(model, classes, recipe),
        save=save,
        input_size=lambda: Counter(data.lengths),
        split=split,
    )
    return tested, path.parent
