"""Held-out images on which a search compares the features of the image tower with and without merging."""

from __future__ import annotations

from typing import Any

import torch

from pitome.config import Config
from pitome.search.probe import SAMPLES, Probe, describe
from pitome.tasks.built import weights_of
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.models import build_retrieval_model


def build_probe(config: Config, device: torch.device) -> Probe:
    """Images of the validation split."""
    built = build_retrieval_model(config.model, config.weights or "pretrained", config.weights_key)
    model: Any = built.model.to(device)
    data = RetrievalData(config.data, built.preprocess, config.batch_size, source=config.source)
    loader, info = data.held_out(config.limit or SAMPLES)
    batches = [images for images, _ in loader]
    return Probe(
        model=model,
        batches=batches,
        run=lambda images: model.encode_image(images),
        compare="cosine",
        facts=describe(info, sum(map(len, batches))) | weights_of(built.weights, built.sha256),
        timed=lambda: (model.image_tower, batches[0]),
        precision=config.precision,
        device=device,
    )
