"""Vision transformers from timm: a configuration becomes a model with weights and preprocessing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pitome.config import ModelConfig
from pitome.errors import UsageError
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.weights import fetch_weights, find_weights
from pitome.tasks.built import Built, preprocess_of
from pitome.tasks.resize import fit_tower

OWN = "vision_transformer"  # arch of a model made from its args alone


def build_vision_model(
    config: ModelConfig, weights: str = "pretrained", key: str | None = None
) -> Built[nn.Module]:
    """Build the model of a file of conf/model: images [B, C, H, W] -> logits [B, classes], or
    features [B, C] where it has no classifier.

    config: name, arch, args, preprocess, checkpoint; weights: pretrained, random (drawn from
    torch's global generator) or a path. Where args give a model of timm another img_size, the
    position embeddings are resampled, as timm does. Raises CheckpointError when weights are
    missing, damaged, unsafe or of other shapes.
    """
    origin = fetch_weights(find_weights(config.name, config.checkpoint, weights))
    args = dict(config.args)
    model = build_timm(config.arch, args).eval()
    digest = None
    if origin.path is not None:
        checkpoint = load_checkpoint(origin.path, model, key)
        if "img_size" in args and config.arch != OWN:
            checkpoint = replace(checkpoint, state=_fit(checkpoint.state, model))
        load_into(model, checkpoint)
        digest = checkpoint.sha256
    return Built(model, preprocess_of(model, config.preprocess), origin, digest)


def build_timm(arch: str, args: dict[str, Any]) -> nn.Module:
    """A timm model with random weights. `arch` is a timm name, or `vision_transformer` for a
    VisionTransformer made from `args` alone.

    Raises UsageError for a name that timm does not know, and for arguments that it refuses.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    if arch != OWN and not timm.is_model(arch):
        close = difflib.get_close_matches(arch, timm.list_models(pretrained=True) + timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(
            f"model.arch={arch} is not a model of timm {timm.__version__}; {hint}see docs/models.md"
        )
    try:
        return VisionTransformer(**args) if arch == OWN else timm.create_model(arch, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise UsageError(f"timm cannot build model.arch={arch} with model.args={args} ({reason})") from None


def fit_state(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Resize patch and position embeddings of `state` to those of `model`; see `fit_tower`."""
    return _fit(state, model, patches="patch_embed.proj.weight")


def _fit(state: Mapping[str, Tensor], model: nn.Module, patches: str | None = None) -> dict[str, Tensor]:
    from timm.models.vision_transformer import VisionTransformer

    assert isinstance(model, VisionTransformer)
    prefix, grid = 0 if model.no_embed_class else model.num_prefix_tokens, model.patch_embed.grid_size
    return fit_tower(state, model, positions="pos_embed", patches=patches, prefix=prefix, grid=grid)
