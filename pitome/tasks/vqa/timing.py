"""How fast a LLaVA model answers: the whole question, its first token, and the tokens after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pitome.measure.throughput import Timing, throughput
from pitome.records.schema import Throughput
from pitome.tasks.measuring import recorded
from pitome.tasks.memory import Parts
from pitome.tasks.vqa.models import Llava


class Answers(nn.Module):
    """Images [I, C, H, W] -> answers of `tokens` tokens, neither more nor less, so that both sides of a
    comparison write equally much."""

    def __init__(self, model: Llava, prompts: Sequence[str], tokens: int) -> None:
        super().__init__()
        self.model, self.prompts, self.tokens = model, prompts, tokens

    def forward(self, images: Tensor) -> object:
        shown = [(at,) for at in range(len(images))]
        return self.model.generate(
            self.prompts, images, shown, max_new_tokens=self.tokens, min_new_tokens=self.tokens
        )


def measure_throughput(
    model: Llava, prompts: Sequence[str], images: Tensor, shown: Sequence[int], tokens: int, precision: str
) -> Throughput:
    """Merged against unmerged, timed alternately on one batch, every prompt with an image of its own.

    tokens: of an answer, 2 at least; the first comes with the image and the prompt, so the time of the
    others is what a whole answer takes longer.
    """
    tokens = max(tokens, 2)
    shown_images = images[list(shown)].to(next(model.parameters()).device)

    def timed(size: int) -> list[Timing]:
        return [
            throughput(Answers(model, prompts[:size], length), shown_images[:size], precision=precision)
            for length in (tokens, 1)
        ]

    with torch.no_grad():
        whole, first = Parts().first(len(shown_images), timed)

    def later(all_per_s: float, first_per_s: float) -> float | None:
        seconds = 1 / all_per_s - 1 / first_per_s
        return (tokens - 1) / seconds if seconds > 0 else None  # noise, where a token costs next to nothing

    return dataclasses.replace(
        recorded(whole),
        first_token_s=whole.batch / first.images_per_s,
        first_token_s_unmerged=whole.batch / first.images_per_s_unmerged,
        decode_tokens_per_s=later(whole.images_per_s, first.images_per_s),
        decode_tokens_per_s_unmerged=later(whole.images_per_s_unmerged, first.images_per_s_unmerged),
    )
