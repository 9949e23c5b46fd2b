"""Held-out questions on which a search compares the first word of the answers with and without merging."""

from __future__ import annotations

import torch
from torch import Tensor

from pitome.config import Config
from pitome.errors import DataError, UsageError
from pitome.search.probe import SAMPLES, Probe, describe
from pitome.tasks.built import weights_of
from pitome.tasks.vqa.benchmarks import benchmark_of, check_options
from pitome.tasks.vqa.data import build_vqa
from pitome.tasks.vqa.models import WEIGHT_TYPES, build_llava
from pitome.tasks.vqa.module import Asking, Batches


def build_probe(config: Config, device: torch.device) -> Probe:
    """Questions of the validation split, or else of the training split; speed is that of the image tower.
    Raises UsageError for a set that has neither besides the questions that are tested."""
    built = build_llava(
        config.model,
        config.weights or "pretrained",
        config.weights_key,
        dtype=WEIGHT_TYPES.get(str(config.precision), torch.float32),
        device_map=config.task.device_map,
    )
    model = built.model
    data = build_vqa(
        config.data, source=config.source, limit=config.limit or SAMPLES, split=_held_out(config)
    )
    if unknown := model.unknown([data.benchmark.prompt(q) for q in data.questions]):
        raise DataError(f"model={config.model.name} knows a fixed list of words, without {unknown[0]}")
    batches = Batches(data, model, built.preprocess, config.batch_size)
    asked = [batch for batch in map(batches.__getitem__, range(len(batches))) if batch.prompts]
    if not asked:
        raise DataError(f"none of the {len(data.questions)} questions of {data.info.name} can be asked")
    keep_positions = config.task.positions == "keep"

    def run(batch: Asking) -> Tensor:
        shown = [(image,) for image in batch.shown]
        return model.next_word(batch.prompts, batch.images, shown, keep_positions=keep_positions)

    return Probe(
        model=model.to(device),
        batches=asked,
        run=run,
        compare="kl",
        facts=describe(data.info, sum(len(batch.prompts) for batch in asked))
        | weights_of(built.weights, built.sha256),
        timed=lambda: (model.image_tower, asked[0].images),
        trace=keep_positions,
        precision=config.precision,
        device=device,
    )


def _held_out(config: Config) -> str:
    tested = check_options(config.data.name, config.data.split, config.data.ocr)
    known = benchmark_of(config.data.name, config.data.instruction).splits
    split = next((name for name in ("validation", "train") if name in known and name != tested), None)
    if split is None:
        raise UsageError(
            f"data={config.data.name} has no questions besides those that are tested ({', '.join(known)}), "
            "and a search must not look at these; search on data=easy_vqa, or on questions of your own"
        )
    return split
