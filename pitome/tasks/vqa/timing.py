"""How fast a LLaVA model answers: the whole question, its first token, and the tokens after it."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pitome.measure.copies import evaluating, unmerged_copy
from pitome.measure.throughput import LEAST_PAIRS, Timing, computing, throughput
from pitome.records.schema import Throughput
from pitome.tasks.measuring import recorded
from pitome.tasks.memory import Parts
from pitome.tasks.vqa.llava import Llava

_WARM = 2  # runs before those that are timed


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
        parts: dict[str, Any] = {}
        if model.places:
            asked = Answers(model, prompts[: whole.batch], 1), shown_images[: whole.batch]
            parts = _parts(*asked, precision)

    def later(all_per_s: float, first_per_s: float) -> float | None:
        seconds = 1 / all_per_s - 1 / first_per_s
        return (tokens - 1) / seconds if seconds > 0 else None  # noise, where a token costs next to nothing

    return dataclasses.replace(
        recorded(whole),
        first_token_s=whole.batch / first.images_per_s,
        first_token_s_unmerged=whole.batch / first.images_per_s_unmerged,
        decode_tokens_per_s=later(whole.images_per_s, first.images_per_s),
        decode_tokens_per_s_unmerged=later(whole.images_per_s_unmerged, first.images_per_s_unmerged),
        **parts,
    )


def _parts(asking: Answers, images: Tensor, precision: str) -> dict[str, float]:
    """Seconds of the parts of the time to the first token, medians, with the patch and without: image tower
    with projector, the method after them, and everything else, which is the prompt."""
    out: dict[str, float] = {}
    for suffix, model in (("", asking), ("_unmerged", cast(Answers, unmerged_copy(asking)))):
        runs = []
        with evaluating(model), computing(images.device, precision):
            for _ in range(_WARM + LEAST_PAIRS):
                runs.append(_timed_parts(model, images))
        encoder, method, prefill = (statistics.median(part) for part in zip(*runs[_WARM:], strict=True))
        out |= {f"encoder_s{suffix}": encoder, f"prefill_s{suffix}": prefill}
        out |= {} if suffix else {"method_s": method}
    return out


def _timed_parts(asking: Answers, images: Tensor) -> tuple[float, float, float]:
    llava, spent = asking.model, 0.0

    def now() -> float:
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return time.perf_counter()

    features = llava.model.model.get_image_features

    @functools.wraps(features)  # whose arguments are looked at
    def clocked(*args: object, **kwargs: object) -> object:
        nonlocal spent
        start = now()
        made = features(*args, **kwargs)
        spent += now() - start
        return made

    handles = list(llava.places.values())
    llava.model.model.get_image_features = clocked
    for handle in handles:
        handle.timed = True
    try:
        start = now()
        asking(images)
        total = now() - start
    finally:
        del llava.model.model.get_image_features
        for handle in handles:
            handle.timed = False
    method = sum(handles[0].seconds.values()) if handles else 0.0
    return spent, method, total - spent - method
