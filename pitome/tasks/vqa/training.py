"""Training of vision-language models on questions and answers, in stages."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pitome.config import Config
from pitome.errors import DataError, UsageError
from pitome.merge.schedule import Reduction
from pitome.tasks.devices import of_whole_batch, own_rows
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe
from pitome.tasks.training import train, train_folder
from pitome.tasks.vqa.benchmarks import benchmark_of
from pitome.tasks.vqa.data import build_vqa
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.models import build_llava, build_model, fit_state
from pitome.tasks.vqa.questions import Question
from pitome.tasks.vqa.training_data import IGNORED, Packed, PackedBatches, Turn, VqaTrainingData

_VALIDATION_BATCH = 50


class VqaTraining(Trainable):
    """Trains all of a vision-language model to predict the tokens of answers; measures how many answers of
    the validation split it gets right to the last token.

    A tower that starts from random weights learns next to nothing from answers alone within a few
    thousand steps. So the mean of an image's rows, through the language model's own head, has to say what
    is seen in it: the first words of its answers but yes and no. Where the data know where something is seen,
    the row of that place has to say it.
    """

    monitor = "val_accuracy"
    betas = (0.9, 0.98)
    model: Llava

    def __init__(self, model: Llava, recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self._right: list[Tensor] = []

    def training_step(self, batch: Packed, index: int) -> Tensor:
        batch = batch.of_rows(own_rows(len(batch.ids)))

        def compute(some: slice) -> tuple[Tensor, ...]:
            return packed_logits(self.model, batch.of_rows(some))

        parts = self.in_parts(len(batch.ids), compute)
        rows, logits, targets = (torch.cat(columns) for columns in zip(*parts, strict=True))
        loss = functional.cross_entropy(logits.float(), targets)
        seen = seen_loss(self.model, rows, batch)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.ids))
        self.log("seen_loss", seen, prog_bar=True, batch_size=len(batch.ids))
        return of_whole_batch(loss, len(targets)) + of_whole_batch(seen, (batch.words != IGNORED).sum())

    def on_validation_epoch_start(self) -> None:
        self._right = []

    def validation_step(self, batch: Packed, index: int) -> None:
        _, logits, targets = packed_logits(self.model, batch)
        wrong = (logits.argmax(-1) != targets).long()
        last = targets == self.model.tokenizer.eos_token_id
        turn = last.long().cumsum(0) - last.long()  # an answer ends with its end token
        self._right.append(
            torch.zeros(int(last.sum()), dtype=torch.long).index_add_(0, turn.cpu(), wrong.cpu()) == 0
        )

    def on_validation_epoch_end(self) -> None:
        self.log("val_accuracy", float(torch.cat(self._right).double().mean()), prog_bar=True)


def packed_logits(model: Llava, batch: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """The rows [B, R, C] of a batch's images, as the language model reads them; logits [T, words] at the
    places in front of the T answer tokens, and these tokens [T]."""
    inner, size = model.model, len(batch.ids)
    encoded = model.encoded(batch.images)
    mask = torch.zeros(batch.allowed.shape, device=batch.ids.device)
    mask = mask.masked_fill(~batch.allowed, torch.finfo(mask.dtype).min)
    states = inner.model(
        input_ids=batch.ids,
        mm_encoder_outputs={"image": encoded},
        attention_mask=mask[:, None].expand(size, -1, -1, -1),
        position_ids=batch.positions[:, None].expand(-1, size, -1).squeeze(0),
        use_cache=False,
    ).last_hidden_state
    asked = batch.targets[:, 1:] != IGNORED
    rows = torch.stack(list(encoded.pooler_output))
    return rows, inner.lm_head(states[:, :-1][asked]), batch.targets[:, 1:][asked]


def seen_loss(model: Llava, rows: Tensor, batch: Packed) -> Tensor:
    """Cross entropy of the words seen in images, each from one of their rows [B, R, C] or the mean of all."""
    inner = model.model
    rows = torch.cat([rows, rows.mean(dim=1, keepdim=True)], dim=1)  # the last of them: the mean
    logits = inner.lm_head(inner.model.language_model.norm(rows)).float()
    known = batch.words != IGNORED
    image = torch.arange(len(known), device=known.device)[:, None].expand_as(known)[known]
    at = batch.at[known]
    return functional.cross_entropy(logits[image, at.where(at != IGNORED, -1)], batch.words[known])


def turn_of(model: Llava, prompt: str, answer: str) -> Turn:
    """Ids of what follows the image in a prompt, and of an answer with its end."""
    ids, marker = model.tokenizer(prompt)["input_ids"], model.model.config.image_token_id
    spoken = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return ids[ids.index(marker) + 1 :], [*spoken, model.tokenizer.eos_token_id]


def train_vqa(
    config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    It starts from random weights, or from weights=PATH or pretrained. The folder is
    results/train/<model>_<data>-<key>. The test split is not looked at. Raises UsageError for models and
    data that are tested as published, DataError for words that the model does not read.
    """
    if config.model.data is None or "train" not in benchmark_of(config.data.name).splits:
        raise UsageError(
            f"model={config.model.name} data={config.data.name} is tested as published; training is for "
            "model=llava_easyvqa data=easy_vqa and model=qwen3_vl_scenes data=scenes_qa, so use mode=test"
        )
    name = f"{config.model.name}_{config.data.name}"
    folder = train_folder(config, amount, name)
    start = build_llava(config.model, config.weights or "random", config.weights_key)
    splits = {
        split: build_vqa(config.data, source=config.source, split=split, limit=limit)
        for split, limit in (("train", config.limit_train), ("validation", None))
    }
    benchmark = splits["train"].benchmark
    images = {question.image for question in splits["validation"].questions}

    def prompt(question: Question) -> str:
        return start.model.prompt(benchmark.prompt(question))

    texts = {text for data in splits.values() for q in data.questions for text in (prompt(q), q.answers[0])}
    if unknown := start.model.unknown(sorted(texts)):
        raise DataError(
            f"model={config.model.name} does not know {', '.join(unknown[:10])}; add them to its words"
        )

    @functools.cache  # training asks few different questions
    def turn(text: str, answer: str) -> Turn:
        return turn_of(start.model, text, answer)

    def make(patch_size: int | None) -> nn.Module:
        model = build_model(config.model, patch_size=patch_size)
        if config.weights not in (None, "random"):
            model.load_state_dict(fit_state(start.model.state_dict(), model))
        return model

    def data(number: int, recipe: Recipe, model: nn.Module) -> VqaTrainingData:
        assert isinstance(model, Llava)
        ids = model.encode(model.prompt(""))  # an image has as many rows as the patched tower passes on
        prefix = ids[: len(ids) - ids[::-1].index(model.model.config.image_token_id)]

        def batches(split: str, size: int, questions: int, *, training: bool) -> PackedBatches:
            return PackedBatches(
                splits[split],
                start.preprocess,
                prefix,
                model.places_of(prefix),
                lambda question: turn(prompt(question), question.answers[0]),
                start.model.tokenizer.convert_tokens_to_ids,
                rows=model.image_rows,
                batch_size=size,
                questions=questions,
                flip=training and config.trainer.flip,
                hidden=recipe.hidden if training else 0.0,
                seed=1000 * config.seed + number if training else 0,
            )

        return VqaTrainingData(
            batches("train", recipe.batch_size, config.trainer.questions, training=True),
            batches(
                "validation", min(_VALIDATION_BATCH, len(images)), config.trainer.questions, training=False
            ),
            config.trainer.workers,
        )

    path = train(
        config,
        amount,
        device,
        folder / f"{config.model.name}.safetensors",
        logger=logger,
        build=make,
        data=data,
        module=lambda model, recipe: VqaTraining(model, recipe),  # type: ignore[arg-type]
        fit=fit_state,
    )
    return dataclasses.replace(config, weights=str(path), weights_key=None), folder
