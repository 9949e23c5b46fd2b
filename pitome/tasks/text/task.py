"""task=text: texts and their classes, accuracy and F1; every text at its own length."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import torch

import pitome
from pitome.adapters.patch import AnyPatched, Patched
from pitome.config import Config
from pitome.errors import UsageError
from pitome.merge.schedule import Reduction
from pitome.records.schema import Cost, Headline, Throughput
from pitome.search.probe import Probe
from pitome.tasks.base import Evaluation, Layers, Task
from pitome.tasks.data import DataInfo
from pitome.tasks.devices import fewest
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.subject import Subject, TextSample
from pitome.tasks.text.data import TextData
from pitome.tasks.text.measuring import measure_cost, measure_throughput, tokens_per_layer
from pitome.tasks.text.models import build_text_model
from pitome.tasks.text.module import TextClassification
from pitome.tasks.text.probe import build_probe
from pitome.tasks.text.sets import text_set
from pitome.tasks.text.split import text_split
from pitome.tasks.text.training import train_text

_AT_A_GLANCE = 128  # tokens


class Text(Task):
    """A classifier on the test split: token ids [B, N] -> logits [B, classes].

    Costs are means over the texts, each at its own length, as if it were alone: padding is no part
    of them.
    """

    headline = Headline(name="accuracy", outcome="correct")

    def __init__(self, config: Config) -> None:
        self.config = config
        name = config.data.name
        self.classes = len(text_set(name, config.data.classes).classes)
        weights = config.weights or "pretrained"
        built = build_text_model(config.model, name, self.classes, weights, config.weights_key)
        self.model, self.weights, self.sha256 = built.model, built.weights, built.sha256
        settings: Any = built.model.config
        self.data = TextData(
            config.data,
            built.tokenizer,
            config.batch_size,
            split=text_split(config),
            source=config.source,
            limit=config.limit,
            max_length=settings.max_position_embeddings,
        )
        self.lengths = Counter(self.data.lengths)
        self.input_size = self.lengths
        with pitome.patch(self.model, "none", ratio=1.0) as handle:
            self.architectures = {n: handle.architecture(n) for n in sorted(self.lengths)}
        self.family = handle.family

    @staticmethod
    def train(
        config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
    ) -> tuple[Config, Path]:
        return train_text(config, amount, device, logger)

    @staticmethod
    def probe(config: Config, device: torch.device) -> Probe:
        return build_probe(config, device)

    @staticmethod
    def train_split(config: Config) -> str | None:
        return text_split(config)

    @property
    def info(self) -> DataInfo:
        return self.data.info

    @property
    def settings(self) -> dict[str, Any]:
        """The batch size: the `_repo` methods merge padding, so that a text's result depends on its batch."""
        return {"batch_size": int(self.config.batch_size)}

    def layers(self, patched: AnyPatched | None) -> Layers:
        tokens = tokens_per_layer(self.architectures, self.lengths, patched)
        if not isinstance(patched, Patched):
            return Layers(tokens, None)
        schedule = patched.schedule
        given = schedule.ratios or schedule.removals or schedule.kept
        if given is None:
            raise UsageError(f"merge={patched.method.name} has no schedule; give ratio or r")
        return Layers(tokens, list(given))

    def evaluate(self, trainer: lightning.Trainer) -> Evaluation:
        module = TextClassification(self.model, self.classes)
        trainer.test(module, self.data, verbose=False)
        return Evaluation(module.metrics(), module.outcomes(), fewest(module.parts.size))

    def cost(self, patched: AnyPatched | None) -> Cost:
        return measure_cost(self.model, self.architectures, self.lengths, patched)

    def subject(self, count: int) -> Subject:
        """A third as many texts, of those that can be read at a glance."""
        dataset: Any = self.data.test_dataloader().dataset
        texts = dataset.samples
        short = [text for text in texts if len(text.tokens) <= _AT_A_GLANCE][: max(count // 3, 1)] or texts[
            :1
        ]
        words = self.data.tokenizer.convert_ids_to_tokens
        samples = [
            TextSample(torch.tensor([text.tokens]), list(words(text.tokens)), f"test {text.id}", text.label)
            for text in short
        ]
        names = self.data.set.classes
        return Subject(self.model, samples, self.weights, self.sha256, classes=names)

    def throughput(self, patched: AnyPatched | None) -> Throughput | None:
        if patched is None:
            return None
        batches = list(self.data.test_dataloader())
        batch = batches[len(batches) // 2]  # they are sorted by length: texts of median length
        device = next(self.model.parameters()).device
        inputs = {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}
        return measure_throughput(self.model, inputs, self.config.precision)


TASK = Text
