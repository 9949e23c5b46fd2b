"""CLIP models of open_clip, and SigLIP: a configuration becomes image tower, text tower and tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pitome.config import ModelConfig
from pitome.errors import CheckpointError, UsageError, nearest
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.hub import fetch_folder
from pitome.sources.weights import Weights, fetch_weights, find_weights
from pitome.tasks.built import Built, preprocess_of
from pitome.tasks.resize import fit_tower
from pitome.tasks.retrieval.captions import Tokenizer, byte_pairs, numbered_words, pieces, word_list

OWN = "CLIP"  # arch of a model made from its args alone
_FILES = (  # of open_clip models on the hub
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_PIECES_FILE = "tokenizer.json"  # beside it, of SigLIP
_ENGLISH = 32_000  # in the vocabulary of SigLIP; its later, multilingual kinds have more
_CONV, _POSITION = "visual.conv1.weight", "visual.positional_embedding"


class ImageText(nn.Module):
    """An `open_clip.model.CLIP` or `CustomTextCLIP` with its tokenizer: images and captions to features
    of unit length.

    `pitome.patch` takes it as it is; its image tower merges.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer

    @property
    def image_tower(self) -> nn.Module:
        """Images [B, C, H, W] -> features [B, D], not yet of unit length."""
        tower: nn.Module = self.model.visual
        return tower

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of the factor on similarities, trained with the model."""
        scale: Tensor = self.model.logit_scale
        return scale

    def encode_image(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> features [B, D] of unit length."""
        return functional.normalize(self.model.visual(images), dim=-1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> features [T, D] of unit length. Raises DataError for words that the model's list
        of words does not hold."""
        return self.encode_tokens(self.tokenizer(captions).to(self.model.logit_scale.device))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids [T, context] -> features [T, D] of unit length."""
        return functional.normalize(self.model.encode_text(tokens), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_image(images)

    def count_truncated(self, captions: Sequence[str]) -> int:
        """How many of the captions are longer than the text tower reads."""
        return self.tokenizer.count_truncated(captions)

    def feature_macs(self, tokens: int) -> int:
        """Multiply-accumulates between the image tower and an image's features: none, it ends in them."""
        return 0

    def text_macs(self) -> int:
        """Multiply-accumulates of one caption: always those of the whole context, which is padded."""
        tokens = torch.zeros(1, self.tokenizer.context, dtype=torch.long, device="meta")
        return count_flops(meta_copy(self.model), {"text": tokens}).macs


def build_clip(config: ModelConfig, weights: str = "pretrained", key: str | None = None) -> Built[ImageText]:
    """Build the model of a CLIP file of conf/model, an `ImageText` in eval mode.

    key: of the file, see `load_checkpoint`.
    config: name, arch, args, preprocess, checkpoint; weights: pretrained, random (drawn from
    torch's global generator) or a path, with the names of open_clip; SigLIP's tokenizer.json comes from
    the hub with weights of the hub, else stands beside the file. Raises CheckpointError when weights or
    tokenizer are missing, damaged, unsafe or of other shapes, UsageError for an `arch` that cannot be
    built.
    """
    origin = fetch_weights(find_weights(config.name, config.checkpoint, weights, config.task), _FILES)
    model, digest = build_model(config, weights=origin).eval(), None
    if origin.path is not None:
        checkpoint = load_checkpoint(origin.path, model.model, key)
        load_into(model.model, checkpoint)
        digest = checkpoint.sha256
    return Built(model, preprocess_of(model, config.preprocess), origin, digest)


def build_model(
    config: ModelConfig, patch_size: int | None = None, weights: Weights | None = None
) -> ImageText:
    """The model of a configuration with random weights, in training mode; `patch_size` instead of its
    own, for training that starts with fewer tokens; `weights` that it will get, whose tokenizer SigLIP
    needs.

    arch: a name of open_clip, or `CLIP` for a model made from `args` alone; args: what open_clip calls
    a model's configuration, and `words`, if the text tower reads a list of words. Raises UsageError.
    """
    from open_clip.model import CLIP, CustomTextCLIP

    args = {**_named(config.arch), **config.args}
    words = args.pop("words", None)
    kind = CustomTextCLIP if args.pop("custom_text", False) else CLIP
    if patch_size is not None:
        args["vision_cfg"] = {**args["vision_cfg"], "patch_size": patch_size}
    context, vocabulary = args["text_cfg"]["context_length"], args["text_cfg"]["vocab_size"]
    if words is not None:
        tokenizer = word_list(words, context, config.name)
    elif not args["text_cfg"].get("hf_tokenizer_name"):
        tokenizer = byte_pairs(context)
    elif weights is None or weights.path is None:
        tokenizer = numbered_words(context, vocabulary)
    else:
        tokenizer = pieces(_pieces_file(weights), context, vocabulary)
    if tokenizer.end >= vocabulary:
        raise UsageError(
            f"model={config.name}: text_cfg.vocab_size={vocabulary} is too small for "
            f"its words; give {tokenizer.end + 1}"
        )
    return ImageText(kind(**args), tokenizer)


def _pieces_file(weights: Weights) -> Path:
    assert weights.path is not None
    if weights.source == "hub":
        fetch_folder(
            weights.name,
            _PIECES_FILE,
            revision=weights.revision or "main",
            error=CheckpointError,
            otherwise="give the weights with weights=PATH and put it beside them, or use weights=random",
        )
    return weights.path.with_name(_PIECES_FILE)


fit_state = functools.partial(fit_tower, patches=_CONV, positions=_POSITION)
"""Weights of a model with other patches, for a model."""


def _named(arch: str) -> dict[str, Any]:
    """open_clip's own configuration of `arch`."""
    if arch == OWN:
        return {}
    import open_clip

    if arch not in open_clip.list_models():
        raise UsageError(f"model.arch={arch} is not known; {nearest(arch, [OWN, *open_clip.list_models()])}")
    args = dict(open_clip.get_model_config(arch) or {})
    text = args["text_cfg"]
    plain = not set(args) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    siglip = text.get("hf_tokenizer_name") and text.get("vocab_size") == _ENGLISH
    if "hf_model_name" in text or not (plain or siglip):
        raise UsageError(
            f"model.arch={arch} is neither a CLIP with open_clip's own text tower nor an English SigLIP; "
            "choose one, e.g. ViT-B-32 or ViT-B-16-SigLIP"
        )
    return args
