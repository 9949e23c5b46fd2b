"""Vision-language models of transformers, built from conf/model: weights, tokenizer, settings."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pitome.config import ModelConfig
from pitome.errors import CheckpointError, UsageError
from pitome.sources.checkpoint_files import sha256_of_files
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.hub import fetch_folder
from pitome.sources.llava_family import check_arch
from pitome.sources.weights import Weights
from pitome.sources.weights_folder import find_model, weight_files
from pitome.tasks.built import Built, preprocess_of
from pitome.tasks.resize import fit_tower
from pitome.tasks.tokenizers import load_tokenizer
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.qwen import QwenVl
from pitome.tasks.vqa.tokenizers import IMAGE, byte_tokenizer, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ELSE = "give a folder with weights=PATH, or use weights=random"
_FILES = ("*.json", "*.safetensors")
WEIGHT_TYPES = {
    "32": torch.float32,
    "64": torch.float64,
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
}
"""`precision` -> the type of a model's weights; with another one (mixed), float32."""
_PATCHES = ("embeddings.patch_embedding.weight", "patch_embed.proj.weight")
_POSITIONS = "embeddings.position_embedding.weight"


def build_llava(
    config: ModelConfig,
    weights: str = "pretrained",
    key: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device_map: str | None = None,
) -> Built[Llava]:
    """Build the model of a file of conf/model for task=vqa, a `Llava` in eval mode.

    key: of the file, see `load_checkpoint`.
    config: name, arch (see `check_arch`), args (see `build_model`), preprocess, checkpoint; weights:
    pretrained, random (drawn from torch's global generator), a folder with transformers' files, or a file
    with the weights; dtype: of the weights; device_map: `auto` spreads a folder's model over the devices
    there are (accelerate). Raises CheckpointError when weights or words are missing, damaged, unsafe or of
    other shapes or settings, UsageError for an `arch` that cannot be built.
    """
    check_arch(config.arch)
    origin, digest = find_model(config.name, config.checkpoint, weights, config.arch), None
    folder = None
    if origin.source == "hub":
        folder = _fetch(origin)
        origin = Weights("hub", origin.name, folder, folder.name)
    elif origin.path is not None and origin.path.is_dir():
        folder = origin.path
    if folder is not None:
        model, tokenizer = _from_folder(config, folder, dtype, device_map)
        digest = _digest(folder)
    else:
        if device_map is not None:
            raise UsageError("device_map=auto is for models of the hub or of a folder with weights=PATH")
        random = build_model(config, dtype=dtype)
        model, tokenizer = random.model, random.tokenizer
        if origin.path is not None:
            checkpoint = load_checkpoint(origin.path, model, key)
            load_into(model, checkpoint)
            digest = checkpoint.sha256
    whole = _asked(config, model, tokenizer)
    whole.requires_grad_(False).eval()
    return Built(whole, preprocess_of(whole, config.preprocess), origin, digest)


def build_model(
    config: ModelConfig, *, patch_size: int | None = None, dtype: torch.dtype = torch.float32
) -> Llava:
    """The model of a configuration with random weights, in training mode; `patch_size` instead of its
    own, for training that starts with fewer tokens.

    args: settings of its configuration; prompt, its template; words, if it reads a list of words: else a
    model without files reads bytes. Raises UsageError for too small a vocabulary.
    """
    from transformers import AutoModelForImageTextToText

    check_arch(config.arch)
    words = config.args.get("words")
    tokenizer: Any = byte_tokenizer() if words is None else word_tokenizer(words)
    settings = _settings(config, patch_size)
    settings.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    if len(tokenizer) > settings.text_config.vocab_size:
        raise UsageError(
            f"model={config.name}: text_config.vocab_size={settings.text_config.vocab_size} is too small for "
            f"its words; give {len(tokenizer)}"
        )
    model = AutoModelForImageTextToText.from_config(settings, dtype=dtype).train()
    return _asked(config, model, tokenizer)


def _asked(config: ModelConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Llava:
    """A model of transformers with its tokenizer and prompt."""
    if config.arch == "llava":
        return Llava(model, tokenizer, config.args["prompt"])
    assert config.preprocess is not None  # as checked
    return QwenVl(model, tokenizer, config.args["prompt"], config.preprocess.size)


fit_state = functools.partial(fit_tower, patches=_PATCHES, positions=_POSITIONS)
"""Weights of a model with other patches, for a model."""


def _settings(config: ModelConfig, patch_size: int | None = None) -> Any:
    """transformers' configuration of a file of conf/model."""
    from transformers import AutoConfig

    args = {key: value for key, value in config.args.items() if key not in ("prompt", "words")}
    if patch_size is not None:
        args["vision_config"] = {**args["vision_config"], "patch_size": patch_size}
    if config.arch == "llava":
        args["vision_config"] = {"model_type": "clip_vision_model", **args["vision_config"]}
    return AutoConfig.for_model(config.arch, **args)


def _from_folder(
    config: ModelConfig, folder: Path, dtype: torch.dtype, device_map: str | None
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Model and tokenizer of a folder with transformers' files, without network and without its code."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    _check_settings(config, folder, AutoConfig.from_pretrained(folder, local_files_only=True))
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=weight_files(folder)[0].suffix == ".safetensors",  # else tensors only as well
            dtype=dtype,
            device_map=device_map,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise CheckpointError(f"{folder} cannot be loaded: {reason}") from None
    model, report = loaded
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise CheckpointError(f"{folder} does not fit this model: {lacking[0]} is not in its files")
    return model, load_tokenizer(folder)


def _check_settings(config: ModelConfig, folder: Path, settings: Any) -> None:
    """Raise CheckpointError where the folder's settings are not those of conf/model."""
    expected, theirs = _settings(config).to_dict(), settings.to_dict()
    for part in ("vision_config", "text_config", None):
        names = (
            config.args.get(part, {}) if part else ("vision_feature_layer", "vision_feature_select_strategy")
        )
        for name in names:
            mine, other = (side[part].get(name) if part else side.get(name) for side in (expected, theirs))
            if mine != other:
                where = f"{part}.{name}" if part else name
                raise CheckpointError(
                    f"model={config.name} has {where}={mine} and {folder.name} {other}; "
                    "choose the model it was made for"
                )


def _fetch(weights: Weights) -> Path:
    assert weights.revision is not None
    return fetch_folder(
        weights.name, *_FILES, revision=weights.revision, error=CheckpointError, otherwise=_ELSE
    )


@functools.lru_cache(maxsize=4)
def _digest(folder: Path) -> str:
    """One checksum of all weights in a folder; read once for all runs of a sweep."""
    return sha256_of_files(weight_files(folder))
