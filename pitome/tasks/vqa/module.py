"""Questions to a LLaVA model in Lightning: batches of questions, answers and their scores."""

from __future__ import annotations

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
from pitome.tasks.vqa.data import VqaData
from pitome.tasks.vqa.log import Answered, SampleLog
from pitome.tasks.vqa.models import Llava
from pitome.tasks.vqa.questions import Question


class Asking(NamedTuple):
    """A batch of questions as the model gets them."""

    questions: list[Question]
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
        return Asking(questions, prompts, images, shown, reasons)

    def _too_long(self, prompt: str) -> str | None:
        tokens = len(self.model.encode(prompt))
        if tokens <= self.room:
            return None
        return f"prompt of {tokens} tokens, of which {self.room} fit the context"


def loader(batches: Batches, start: int) -> DataLoader[Asking]:
    """The batches from number `start` on."""
    return DataLoader(batches, batch_size=None, sampler=range(start, len(batches)), collate_fn=identity)


class VqaTest(lightning.LightningModule):
    """Answers and scores the questions of `Asking` batches and logs them; `rows` afterwards."""

    def __init__(self, model: Llava, data: VqaData, log: SampleLog, *, keep_positions: bool) -> None:
        super().__init__()
        self.model, self.data, self.log_file, self.keep_positions = model, data, log, keep_positions
        self.rows: list[Answered] = []

    def transfer_batch_to_device(self, batch: Asking, device: torch.device, dataloader_idx: int) -> Asking:
        return batch._replace(images=batch.images.to(device))

    def test_step(self, batch: Asking, index: int) -> None:
        answers = iter(
            self.model.generate(
                batch.prompts,
                batch.images,
                [(image,) for image in batch.shown],
                max_new_tokens=self.data.benchmark.max_new_tokens,
                keep_positions=self.keep_positions,
            )
            if batch.prompts
            else []
        )
        rows = []
        for question, reason in zip(batch.questions, batch.reasons, strict=True):
            if reason is None:
                answer = next(answers)
                score = self.data.benchmark.score(question, answer.text)
                columns = (answer.text, score, answer.tokens, answer.prompt_tokens, "")
            else:
                self.data.skip(question, reason)
                columns = ("", 0.0, 0, 0, reason)
            rows.append(Answered(question.id, question.text, list(question.answers), *columns))
        self.log_file.append(rows)
        self.rows += rows


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
