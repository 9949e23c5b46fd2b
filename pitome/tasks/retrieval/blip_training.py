"""Training of BLIP for retrieval (Li et al., ICML 2022, arXiv 2201.12086, Section 3.2; numbers from its code,
salesforce/BLIP, models/blip_retrieval.py): contrast with a momentum model and queues, and matching."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from pitome.tasks.optimizers import adamw
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.blip import Blip
from pitome.tasks.retrieval.data import PairBatch, Split
from pitome.tasks.retrieval.module import RetrievalTraining

QUEUE = 57_600  # features of earlier batches that each batch is contrasted with
_MOMENTUM = 0.995  # share of the slow model that a step keeps
_SOFT = 0.4  # weight of what the slow model says in the targets, after two epochs; rises from 0
_RANGE = (0.001, 0.5)  # of the temperature


class BlipTraining(RetrievalTraining):
    """A batch is contrasted with the slow model's features of itself and of a queue, the targets being what
    is equal and what the slow model finds similar; the matching head sees each pair and two hard negatives of
    it. The slow model, a moving average, merges as the model does."""

    betas = (0.9, 0.999)
    model: Blip
    queued_images: Tensor  # [Q, D]
    queued_texts: Tensor  # [Q, D]
    queued: Tensor  # [Q] which image each is of
    place: Tensor  # where the queue goes on

    def __init__(
        self, model: Blip, validation: Callable[[], Split], recipe: Recipe, queue: int = QUEUE
    ) -> None:
        super().__init__(model, validation, recipe)
        self.slow = copy.deepcopy(model).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        width = model.model.text_proj.out_features
        # A queue begins with noise that is equal to nothing.
        for name in ("queued_images", "queued_texts"):
            self.register_buffer(name, functional.normalize(torch.randn(queue, width), dim=-1))
        self.register_buffer("queued", torch.full((queue,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: PairBatch, index: int) -> Tensor:
        images, captions, same = batch
        with torch.no_grad():
            self.temperature.clamp_(*_RANGE)
            self._follow()
            slow_images, slow_texts = self.slow.encode_image(images), self.slow.encode_text(captions)
        states = torch.cat(self.in_parts(len(captions), lambda rows: self.model.image_states(images[rows])))
        seen, read = self.model.encode_states(states), self.model.encode_text(captions)
        contrast = self._contrast(seen, read, slow_images, slow_texts, same)
        matching = self._matching(states, captions, seen @ read.T / self.temperature, same)
        self._enqueue(slow_images, slow_texts, same)
        loss = contrast + matching
        for name, value in (("train_loss", loss), ("itc_loss", contrast), ("itm_loss", matching)):
            self.log(name, value, prog_bar=name == "train_loss", batch_size=len(captions))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.recipe is not None, "training needs a recipe"
        trained = nn.ModuleList([self.model, _Holder(self.temperature)])
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(trained, self.recipe, steps, self.monitor, self.betas)

    def _contrast(
        self, seen: Tensor, read: Tensor, slow_images: Tensor, slow_texts: Tensor, same: Tensor
    ) -> Tensor:
        """Features [B, D] of the model and of the slow one; same [B]: equal numbers are equal images."""
        every_image = torch.cat([slow_images, self.queued_images])
        every_text = torch.cat([slow_texts, self.queued_texts])
        equal = (same[:, None] == torch.cat([same, self.queued])[None]).float()
        equal = equal / equal.sum(1, keepdim=True)
        soft = _SOFT * min(self.global_step / (2 * self.trainer.num_training_batches), 1.0)
        losses = []
        for own, slow, others in ((seen, slow_images, every_text), (read, slow_texts, every_image)):
            with torch.no_grad():
                targets = soft * (slow @ others.T / self.temperature).softmax(1) + (1 - soft) * equal
            losses.append(functional.cross_entropy((own @ others.T / self.temperature).float(), targets))
        return (losses[0] + losses[1]) / 2

    def _matching(self, states: Tensor, captions: list[str], similar: Tensor, same: Tensor) -> Tensor:
        """Cross entropy of the pairs, and of as many drawn for each image and each caption among those that
        do not belong to it, the more similar the likelier; similar [B, B]: images against captions."""
        with torch.no_grad():
            other = (same[:, None] != same[None, :]).float()
            rows = other.any(1).nonzero()[:, 0].tolist()  # none, where a batch shows but one image
            pairs = [(row, row) for row in range(len(captions))]
            if rows:
                texts = (similar.float().softmax(1) * other + 1e-9 * other)[rows].multinomial(1)[:, 0]
                seen = (similar.T.float().softmax(1) * other + 1e-9 * other)[rows].multinomial(1)[:, 0]
                pairs += [*zip(rows, texts.tolist(), strict=True), *zip(seen.tolist(), rows, strict=True)]
        labels = torch.tensor([int(image == text) for image, text in pairs], device=states.device)

        def match(some: slice) -> Tensor:
            chosen = pairs[some]
            ids, mask = self.model.tokens([captions[text] for _, text in chosen])
            return self.model.match_classes(states[[image for image, _ in chosen]], ids, mask)

        return functional.cross_entropy(torch.cat(self.in_parts(len(pairs), match)).float(), labels)

    def _follow(self) -> None:
        for slow, own in zip(self.slow.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(own, 1 - _MOMENTUM)

    def _enqueue(self, images: Tensor, texts: Tensor, same: Tensor) -> None:
        places = (self.place + torch.arange(len(same), device=self.place.device)) % len(self.queued)
        self.queued_images[places], self.queued_texts[places] = images.float(), texts.float()
        self.queued[places] = same.to(self.queued)
        self.place.copy_((places[-1] + 1) % len(self.queued))


class _Holder(nn.Module):
    """A parameter as a module."""

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value
