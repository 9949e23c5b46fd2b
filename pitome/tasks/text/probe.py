"""Held-out training texts on which a search compares the model with and without merging."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from pitome.config import Config
from pitome.search.probe import SAMPLES, Probe, describe
from pitome.tasks.built import weights_of
from pitome.tasks.text.data import TextData
from pitome.tasks.text.models import build_text_model
from pitome.tasks.text.sets import text_set
from pitome.tasks.text.split import text_split


def build_probe(config: Config, device: torch.device) -> Probe:
    """Texts kept for validation. Their lengths differ, so layers keep shares of their tokens; the target of
    cost holds for all texts together."""
    name, weights = config.data.name, config.weights or "pretrained"
    classes = len(text_set(name, config.data.classes).classes)
    built = build_text_model(config.model, name, classes, weights, config.weights_key)
    settings: Any = built.model.config
    data = TextData(
        config.data,
        built.tokenizer,
        config.batch_size,
        split=text_split(config),
        source=config.source,
        max_length=settings.max_position_embeddings,
    )
    loader, info, lengths = data.held_out(config.limit or SAMPLES)
    batches = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in loader]

    def run(batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = built.model(**batch).logits
        return logits

    return Probe(
        model=built.model.to(device),
        batches=batches,
        run=run,
        compare="kl",
        facts=describe(info, len(lengths)) | weights_of(built.weights, built.sha256),
        input_size=Counter(lengths),
        timed=lambda: (built.model, batches[len(batches) // 2]),  # sorted by length: of median length
        precision=config.precision,
        device=device,
    )
