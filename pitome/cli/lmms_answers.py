"""A LLaVA model, patched or not, that answers questions about images for lmms-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pitome.adapters.patch import Patched
from pitome.errors import UsageError
from pitome.runs.compose import check_command_line, register_schema
from pitome.runs.environment import resolve_device
from pitome.runs.validate import HALVES
from pitome.tasks.base import patch_model
from pitome.tasks.images import normalise, prepare
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.models import WEIGHT_TYPES, build_llava
from pitome.tasks.vqa.tokenizers import IMAGE

Asked = tuple[str, Sequence[Image.Image]]
"""A question as a task of lmms-eval writes it, and the images it is about."""


class Answerer:
    """A LLaVA model, patched or not, that answers questions about images greedily."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """settings: as on run.py's command line (model, merge, ratio, weights, precision, device, ...), one
        run. Raises PitomeError for what does not fit; mixed precisions belong to run.py."""
        register_schema()
        words = [f"{key}={value}" for key, value in settings.items() if value is not None]
        [(config, amount)] = check_command_line(["task=vqa", *words], multirun=False)
        dtype = WEIGHT_TYPES.get(str(config.precision))
        if dtype is None:
            raise UsageError(f"precision={config.precision} is for run.py; give 32 or {' or '.join(HALVES)}")
        built = build_llava(
            config.model,
            config.weights or "pretrained",
            config.weights_key,
            dtype=dtype,
            device_map=config.task.device_map,
        )
        assert isinstance(built.model, Llava)
        self.model, self.preprocess, self.device = (
            built.model,
            built.preprocess,
            resolve_device(config.device),
        )
        self.patched = patch_model(self.model, config, amount)
        self.keep_positions = config.task.positions == "keep"
        if isinstance(self.patched, Patched):
            self.patched.state.trace = self.keep_positions
        self.model.to(self.device)

    def answer(self, asked: Sequence[Asked], max_new_tokens: int) -> list[str]:
        """The answers to a batch of questions, without special tokens."""
        prompts, shown = [], []
        pixels: list[np.ndarray] = []
        for text, images in asked:
            prompts.append(with_images(self.model.prompt(text), len(images)))
            shown.append(range(len(pixels), len(pixels) + len(images)))
            pixels += [prepare(image.convert("RGB"), self.preprocess) for image in images]
        batch = normalise(np.stack(pixels), self.preprocess) if pixels else torch.empty(0)
        with torch.inference_mode():
            answers = self.model.generate(
                prompts,
                batch.to(self.device),
                shown,
                max_new_tokens=max_new_tokens,
                keep_positions=self.keep_positions,
            )
        return [answer.text for answer in answers]


def with_images(prompt: str, images: int) -> str:
    """A prompt with one <image> as one about so many, or about none."""
    if images:
        return prompt.replace(IMAGE, " ".join([IMAGE] * images), 1)
    before, _, after = prompt.partition(IMAGE)
    return before + after.lstrip()
