"""A LLaVA of three vision and two language layers that reads easy-VQA's words: 17 image tokens."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf

from pitome.config import CONF
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.models import build_model
from tests.configs import model_of

SMALL = {
    "vision_config": {
        "num_hidden_layers": 3,
        "hidden_size": 16,
        "intermediate_size": 16,
        "image_size": 16,
        "projection_dim": 16,
    },
    "text_config": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    },
}
WORDS = tuple(f"model.args.{part}.{key}={value}" for part, own in SMALL.items() for key, value in own.items())
"""The same for the command line, with images of the size."""
TINY = (*WORDS, "model.preprocess.size=16")


def settings(**args: Any) -> dict[str, Any]:
    """A model of conf/, made small."""
    file: Any = OmegaConf.to_object(OmegaConf.load(CONF / "model" / "llava_easyvqa.yaml"))
    file["args"] |= {part: file["args"][part] | own for part, own in SMALL.items()}
    file["args"] |= args
    file["preprocess"]["size"] = 16
    return file


def llava(seed: int = 0, **args: Any) -> Llava:
    """With weights so uneven that merging changes answers."""
    torch.manual_seed(seed)
    model = build_model(model_of(settings(**args))).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.3)
    return model


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))
