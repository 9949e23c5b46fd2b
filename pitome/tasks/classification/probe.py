"""Held-out training images on which a search compares the model with and without merging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pitome.config import Config
from pitome.search.probe import SAMPLES, Probe, describe, regroup
from pitome.tasks import measuring
from pitome.tasks.built import weights_of
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.models import build_vision_model
from pitome.tasks.data import permuted_selection


def build_probe(config: Config, device: torch.device) -> Probe:
    """Images kept for validation; with task.head=knn the features are compared."""
    built = build_vision_model(config.model, config.weights or "pretrained", config.weights_key)
    data = build_image_data(
        config.data, built.preprocess, config.batch_size, source=config.source, workers=config.workers
    )
    features = config.task.head == "knn"
    if features:
        built.model.reset_classifier(0)  # type: ignore[operator]
    else:
        measuring.check_classes(
            int(built.model.num_classes),  # type: ignore[arg-type]
            data.train_info.classes,
            random=built.weights.source == "random",
            model=config.model.name,
            data=config.data.name,
        )
    loader: Any = data.val_dataloader()
    chosen = permuted_selection(config.data.name, len(loader.dataset), config.limit or SAMPLES)
    batches = regroup((batch[0] for batch in loader), chosen.tolist(), config.batch_size)

    def training() -> Iterable[tuple[Tensor, Tensor]]:
        while True:
            for images, labels, _ in data.train_dataloader():
                yield images, labels

    return Probe(
        model=built.model.to(device),
        batches=batches,
        run=lambda images: built.model(images),
        compare="cosine" if features else "kl",
        facts=describe(data.train_info, sum(map(len, batches)))
        | {"split": f"{data.train_info.split}, the part kept for validation"}
        | weights_of(built.weights, built.sha256),
        timed=lambda: (built.model, batches[0]),
        training=None if features else training,
        precision=config.precision,
        device=device,
    )
