"""Questions to a LLaVA model in Lightning: batches of questions, answers and their scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pitome.tasks.data import Preprocess
from pitome.tasks.images import normalise
from pitome.tasks.loading import identity
from pitome.tasks.memory import Parts
from pitome.tasks.vqa.data import VqaData
from pitome.tasks.vqa.llava import Answer, Llava
from pitome.tasks.vqa.log import Answered, SampleLog


class Asking(NamedTuple):
    """A batch of questions as the model gets them."""

    start: int  # number of its first question; the questions themselves Lightning would search for tensors
    prompts: list[str]  # of the questions that can be asked
    images: Tensor  # [I, C, H, W] each once
    shown: list[int]  # which image each of the prompts shows
    reasons: list[str | None]  # why a question cannot be asked; None where it can


class Batches(Dataset[Asking]):
    """Item n: the n-th batch of `batch_size` questions of `data`, in their order."""

    def __init__(self, data: VqaData, model: Llava, preprocess: Preprocess, batch_size: int) -> None:
        self.data, self.model, self.preprocess, self.batch_size = data, model, preprocess, batch_size
        self.prepared = data.prepared(preprocess)
        self.room = model.context - data.benchmark.max_new_tokens

    def __len__(self) -> int:
        return -(-len(self.data.questions) // self.batch_size)

    def __getitem__(self, number: int) -> Asking:
        start = number * self.batch_size
        questions = list(self.data.questions[start : start + self.batch_size])
        prompts: list[str] = []
        shown: list[int] = []
        reasons: list[str | None] = []
        place: dict[str, int] = {}
        pixels: list[np.ndarray] = []
        for question in questions:
            image = self.prepared(question)
            prompt = self.model.prompt(self.data.benchmark.prompt(question))
            reason = self.data.reason(question) if image is None else self._too_long(prompt)
            reasons.append(reason)
            if image is None or reason is not None:
                continue
            if question.image not in place:
                place[question.image] = len(pixels)
                pixels.append(image)
            prompts.append(prompt)
            shown.append(place[question.image])
        images = normalise(np.stack(pixels), self.preprocess) if pixels else torch.empty(0)
        return Asking(start, prompts, images, shown, reasons)

    def _too_long(self, prompt: str) -> str | None:
        tokens = len(self.model.encode(prompt))
        if tokens <= self.room:
            return None
        return f"prompt of {tokens} tokens, of which {self.room} fit the context"


def loader(batches: Batches, numbers: Sequence[int]) -> DataLoader[Asking]:
    """The batches of these numbers."""
    return DataLoader(batches, batch_size=None, sampler=numbers, collate_fn=identity)


class VqaTest(lightning.LightningModule):
    """Answers and scores the questions of `Asking` batches and logs them; `batches` afterwards."""

    def __init__(self, model: Llava, data: VqaData, log: SampleLog, *, keep_positions: bool) -> None:
        super().__init__()
        self.model, self.data, self.log_file, self.keep_positions = model, data, log, keep_positions
        self.parts = Parts()
        self.batches: list[list[Answered]] = []

    def transfer_batch_to_device(self, batch: Asking, device: torch.device, dataloader_idx: int) -> Asking:
        return batch._replace(images=batch.images.to(device))

    def test_step(self, batch: Asking, index: int) -> None:
        def answer(rows: slice) -> list[Answer]:
            shown = sorted(set(batch.shown[rows]))
            return self.model.generate(
                batch.prompts[rows],
                batch.images[shown],
                [(shown.index(image),) for image in batch.shown[rows]],
                max_new_tokens=self.data.benchmark.max_new_tokens,
                keep_positions=self.keep_positions,
            )

        answers = itertools.chain.from_iterable(self.parts(len(batch.prompts), answer))
        rows = []
        questions = self.data.questions[batch.start : batch.start + len(batch.reasons)]
        for question, reason in zip(questions, batch.reasons, strict=True):
            if reason is None:
                given = next(answers)
                score = self.data.benchmark.score(question, given.text)
                columns = (given.text, score, given.tokens, given.prompt_tokens, "")
            else:
                columns = ("", 0.0, 0, 0, reason)
            rows.append(Answered(question.id, question.text, list(question.answers), *columns))
        self.log_file.append(rows)
        self.batches.append(rows)


def outcomes(rows: Sequence[Answered], *, scored: bool) -> dict[str, list[object]]:
    """Columns per question: id, question, answers, prediction, score (None unless the answers are public,
    `scored`), tokens."""
    return {
        "id": [row.id for row in rows],
        "question": [row.question for row in rows],
        "answers": [row.answers for row in rows],
        "prediction": [row.prediction for row in rows],
        "score": [row.score if scored else None for row in rows],
        "tokens": [row.tokens for row in rows],
    }
