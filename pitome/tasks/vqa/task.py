"""task=vqa: questions about images, answered by generating text and scored as their benchmark says."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import torch

from pitome.adapters.patch import AnyPatched, tower_patch
from pitome.adapters.place_patch import PatchedPlace
from pitome.config import Config
from pitome.errors import DataError
from pitome.fields import recorded
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.merge.schedule import Reduction
from pitome.records.files import write_atomically
from pitome.records.schema import AnsweringCost, Cost, Headline, Throughput
from pitome.search.probe import Probe
from pitome.tasks import measuring
from pitome.tasks.base import Evaluation, ImageTask, Layers
from pitome.tasks.data import DataInfo
from pitome.tasks.devices import everywhere, fewest, gather, rank
from pitome.tasks.images import prepare
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.subject import Subject, tower
from pitome.tasks.vqa.costs import (
    Answering,
    Encoder,
    answering,
    answering_after_tower,
    answering_as_run,
    layer_tokens,
)
from pitome.tasks.vqa.data import build_vqa
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.log import SampleLog
from pitome.tasks.vqa.models import WEIGHT_TYPES, build_llava
from pitome.tasks.vqa.module import Batches, VqaTest, loader, outcomes
from pitome.tasks.vqa.probe import build_probe
from pitome.tasks.vqa.timing import Answers, measure_throughput
from pitome.tasks.vqa.training import train_vqa

KEEP = "keep"


class VisualQuestions(ImageTask):
    """A vision-language model and questions about images; its image tower merges, or tokens go after it.

    `macs` are of the tower for one image; the rest of a question, at the median length of its text,
    stands apart, and all of it in the total.
    """

    headline: ClassVar[Headline] = Headline(name="accuracy", outcome="score")

    def __init__(self, config: Config) -> None:
        self.config = config
        built = build_llava(
            config.model,
            config.weights or "pretrained",
            config.weights_key,
            dtype=WEIGHT_TYPES.get(str(config.precision), torch.float32),
            device_map=config.task.device_map,
        )
        self.weights, self.sha256, self.preprocess = built.weights, built.sha256, built.preprocess
        self.model: Llava = built.model
        self.data = build_vqa(config.data, source=config.source, limit=config.limit)
        self._check_words()
        self.family = self.model.model.config.model_type
        if self.model.tower_merges:
            self.architecture = measuring.architecture_of(self.model)
            self.family = self.architecture.family
        self.keep_positions = config.task.positions == KEEP
        self.shape = (1, self.preprocess.channels, self.preprocess.size, self.preprocess.size)
        self.answer_tokens = 1  # of the answers that were given, the mean
        self.unmerged_macs = 0
        if config.measure != "none" and self.model.tower_merges:
            self.unmerged_macs = count_flops(meta_copy(self.tower), self._image()).macs

    @property
    def tower(self) -> Any:
        """The image tower: images [B, C, H, W] -> hidden states."""
        return self.model.image_tower

    @staticmethod
    def train(
        config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
    ) -> tuple[Config, Path]:
        return train_vqa(config, amount, device, logger)

    @staticmethod
    def probe(config: Config, device: torch.device) -> Probe:
        return build_probe(config, device)

    @property
    def settings(self) -> dict[str, Any]:
        """Also the batch size: padding in front of a prompt rounds differently."""
        settings = {"batch_size": int(self.config.batch_size), **self.data.settings}
        return settings | ({"positions": KEEP} if self.keep_positions else {})

    @property
    def info(self) -> DataInfo:
        return self.data.info

    def layers(self, patched: AnyPatched | None) -> Layers:
        """After the tower: tokens of an image before and after the projector place, or of a prompt of the
        median length entering each layer of the language model, and the final count."""
        if isinstance(patched, PatchedPlace) or not self.model.tower_merges:
            tokens = [self.model.image_rows, self.model.read_rows]
            if "language" in self.model.places:
                tokens = layer_tokens(self.model, self._text_tokens)
            left: list[Any] | None = None
            if isinstance(patched, PatchedPlace):
                left = [patched.place, self.model.left_rows, *self._merged_in_tower()]
            return Layers([float(n) for n in tokens], left)
        if patched is not None and self.keep_positions:
            patched.state.trace = True
        return super().layers(patched)

    def _merged_in_tower(self) -> list[Any]:
        """Of a method in the tower beside one after it: its name, options and what each layer removes."""
        handle = tower_patch(self.tower)
        if handle is None:
            return []
        removed = super().layers(handle).schedule
        return [{"tower": handle.method.name, "options": recorded(handle.options), "schedule": removed}]

    def evaluate(self, trainer: lightning.Trainer) -> Evaluation:
        """Answers the batches that a killed run has not left in `partial`."""
        questions, size = self.data.questions, int(self.config.batch_size)
        log = SampleLog(self.partial)
        # One rank reads, before any has written.
        known = everywhere(log.read([question.id for question in questions], size) if rank() == 0 else {})[0]
        module = VqaTest(self.model, self.data, log, keep_positions=self.keep_positions)
        batches = Batches(self.data, self.model, self.preprocess, size)
        missing = [number for number in range(len(batches)) if number not in known]
        if missing:
            trainer.test(module, loader(batches, missing), verbose=False)
            if trainer.interrupted:
                raise KeyboardInterrupt
        answered = known | dict(zip(missing, gather(module.batches), strict=True))
        rows = [row for number in range(len(batches)) for row in answered[number]]
        for row, question in zip(rows, questions, strict=True):
            if row.skipped:
                self.data.skip(question, row.skipped)
        if len(self.info.skipped) == len(rows):
            raise DataError(
                f"none of the {len(rows)} questions of {self.info.name} can be asked: {rows[0].skipped}"
            )
        self.answer_tokens = round(statistics.mean(row.tokens for row in rows if not row.skipped))
        metrics: dict[str, float | None] = {"accuracy": None}
        if self.data.scored:
            metrics |= self.data.benchmark.metrics(questions, [row.score for row in rows])
        elif rank() == 0:
            self._submit([row.prediction for row in rows])
        return Evaluation(metrics, outcomes(rows, scored=self.data.scored), fewest(module.parts.size))

    def cost(self, patched: AnyPatched | None) -> Cost:
        if not self.model.tower_merges:
            return self._cost_as_run()
        tower = measuring.measure_cost(
            meta_copy(self.tower),
            self.architecture,
            tower_patch(self.tower),
            self.unmerged_macs,
            self._image(),
        )
        merged, plain = self._answering(self.model.image_rows), self._answering(self.model.unmerged_rows)
        if isinstance(patched, PatchedPlace):
            merged = answering_after_tower(
                self.model, self._text_tokens, merged, tower.macs, self._counted_answer
            )
        return self._cost(tower, merged, plain)

    def _cost_as_run(self) -> Cost:
        """Of a model whose tower has no closed form: all of it counted while it answers."""
        image = self._whole_batch().images[:1].to(next(self.model.parameters()).device)
        macs = count_flops(Encoder(self.model), image).macs
        tower = Cost(macs=macs, flops=2 * macs, unmerged_macs=macs, unmerged_flops=2 * macs, share=1.0)
        merged, plain = answering_as_run(self.model, self._text_tokens, macs, self._counted_answer)
        return self._cost(tower, merged, plain)

    def _cost(self, tower: Cost, merged: Answering, plain: Answering) -> Cost:
        return dataclasses.replace(
            tower,
            total_macs=tower.macs + merged.projector + merged.method + merged.prefill,
            unmerged_total_macs=tower.unmerged_macs + plain.projector + plain.prefill,
            answering=AnsweringCost(
                image_tokens=merged.rows,
                unmerged_image_tokens=plain.rows,
                prompt_tokens=merged.prompt,
                unmerged_prompt_tokens=plain.prompt,
                projector_macs=merged.projector,
                unmerged_projector_macs=plain.projector,
                prefill_macs=merged.prefill,
                prefill_macs_closed_form=merged.prefill_closed,
                unmerged_prefill_macs=plain.prefill,
                decode_macs=merged.decode,
                decode_macs_closed_form=merged.decode_closed,
                unmerged_decode_macs=plain.decode,
                left_image_tokens=self.model.left_rows if "language" in self.model.places else None,
                method_macs=merged.method,
                method_macs_closed_form=merged.method_closed,
            ),
        )

    def subject(self, count: int) -> Subject | None:
        if not self.model.tower_merges:
            return None
        shown: dict[str, tuple[np.ndarray, str]] = {}
        for question in self.data.questions:
            if len(shown) == count:
                break
            if question.image not in shown and (image := self.data.image(question)) is not None:
                shown[question.image] = prepare(image, self.preprocess), f"{question.id}: {question.text}"
        if not shown:
            return None
        names = [line.partition(":")[0] for _, line in shown.values()]
        return tower(
            self.model,
            self.tower,
            np.stack([pixels for pixels, _ in shown.values()]),
            [f"question {name}" for name in names],
            self.preprocess,
            self.weights,
            self.sha256,
            [line for _, line in shown.values()],
        )

    def throughput(self, patched: AnyPatched | None) -> Throughput | None:
        if patched is None:
            return None
        asking = self._whole_batch()
        return measure_throughput(
            self.model, asking.prompts, asking.images, asking.shown, self.answer_tokens, self.config.precision
        )

    @functools.cached_property
    def _text_tokens(self) -> int:
        """Tokens of a prompt without those of its image, the median."""
        rows = self.model.image_rows
        prompts = [self.model.prompt(self.data.benchmark.prompt(q)) for q in self.data.questions]
        lengths = {prompt: len(self.model.encode(prompt)) - rows for prompt in set(prompts)}
        return statistics.median_low([lengths[prompt] for prompt in prompts])

    def _counted_answer(self, tokens: int, model: Llava | None = None) -> int:
        """Multiply-accumulates of an answer of so many tokens to a prompt of median length, as it runs."""
        asking, rows = self._whole_batch(), self.model.image_rows
        prompts = (self.model.prompt(self.data.benchmark.prompt(q)) for q in self.data.questions)
        prompt = next(p for p in prompts if len(self.model.encode(p)) - rows == self._text_tokens)
        device = next(self.model.parameters()).device
        return count_flops(Answers(model or self.model, [prompt], tokens), asking.images[:1].to(device)).macs

    def _answering(self, rows: int) -> Answering:
        return answering(self.model.model, rows, self._text_tokens)

    def _image(self) -> torch.Tensor:
        return torch.zeros(self.shape, device="meta")

    def _whole_batch(self) -> Any:
        """The first batch with a question that can be asked."""
        batches = Batches(self.data, self.model, self.preprocess, int(self.config.batch_size))
        return next(batch for batch in map(batches.__getitem__, range(len(batches))) if batch.prompts)

    def _check_words(self) -> None:
        """Raise DataError for questions that a model of a list of words cannot read."""
        unknown = self.model.unknown([self.data.benchmark.prompt(q) for q in self.data.questions])
        if unknown:
            some = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
            raise DataError(
                f"model={self.config.model.name} knows a fixed list of words, without {some}; "
                f"use data={self.config.model.data}, or another model"
            )

    def _submit(self, predictions: list[str]) -> None:
        """The file that the set's own server scores, beside the records."""
        if self.partial is None:
            return
        content = self.data.benchmark.submission(self.data.questions, predictions)
        path = self.partial.with_name(self.partial.name.partition(".")[0] + ".submission.json")
        write_atomically(path, json.dumps(content).encode())


TASK = VisualQuestions
