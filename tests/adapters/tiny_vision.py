"""Tiny image towers of transformers with weights large enough for attention to be uneven."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    Blip2VisionModel,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
)

torch.set_num_threads(1)

_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "encoder_hidden_size": 16,
}


def seeded(model: Any, seed: int = 0) -> Any:
    """`model` in eval mode with seeded weights of the size of its widths."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):  # norms
                parameter.copy_(1 + 0.1 * noise)
            elif "embed" in name and "patch" not in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1))
    return model.eval()


def clip(**kwargs: Any) -> Any:
    """CLIP's image tower with its projection: 3 layers, width 16, 17 tokens."""
    return seeded(CLIPVisionModelWithProjection(CLIPVisionConfig(**_SIZES, projection_dim=6, **kwargs)))


def siglip(**kwargs: Any) -> Any:
    """SigLIP's image tower: 16 tokens, an attention pool."""
    return seeded(SiglipVisionModel(SiglipVisionConfig(**_SIZES, **kwargs)))


def vit(**kwargs: Any) -> Any:
    """A ViT classifier of 17 tokens, 7 classes."""
    return seeded(ViTForImageClassification(ViTConfig(**_SIZES, num_labels=7, **kwargs)))


def blip(**kwargs: Any) -> Any:
    """BLIP's image tower, 17 tokens."""
    return seeded(BlipVisionModel(BlipVisionConfig(**_SIZES, **kwargs)))


def eva(**kwargs: Any) -> Any:
    """BLIP-2's image tower, 17 tokens."""
    return seeded(Blip2VisionModel(Blip2VisionConfig(**_SIZES, **kwargs)))


def dinov2(**kwargs: Any) -> Any:
    """DINOv2, 17 tokens."""
    return seeded(Dinov2Model(Dinov2Config(**_SIZES, mlp_ratio=2, **kwargs)))


BUILD = {"clip": clip, "siglip": siglip, "vit": vit, "blip": blip, "eva": eva, "dinov2": dinov2}


def blip_retrieval() -> Any:
    """BLIP with both of its heads for retrieval."""
    config = BlipConfig(
        text_config=BlipTextConfig(**_TEXT, bos_token_id=1, sep_token_id=2).to_dict(),
        vision_config=BlipVisionConfig(**_SIZES).to_dict(),
        image_text_hidden_size=8,
    )
    return seeded(BlipForImageTextRetrieval(config))


def blip2_retrieval() -> Any:
    """BLIP-2 with both of its heads for retrieval and 3 query tokens."""
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**_SIZES).to_dict(),
        qformer_config=Blip2QFormerConfig(
            **_TEXT, cross_attention_frequency=1, use_qformer_text_input=True
        ).to_dict(),
        num_query_tokens=3,
        image_text_hidden_size=8,
        image_token_index=None,
    )
    return seeded(Blip2ForImageTextRetrieval(config))


def images(batch: int = 2, seed: int = 1) -> Tensor:
    """Noise images [B, 3, 16, 16]."""
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def output(model: Any, x: Tensor) -> Tensor:
    """What a tower or a classifier makes of images, [B, D]."""
    with torch.no_grad():
        found = model(x)
    for name in ("image_embeds", "logits"):
        if name in found:
            return found[name]
    return found.pooler_output
