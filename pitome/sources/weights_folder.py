"""Weights that may be a folder with transformers' files, as large models have them. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from pitome.errors import CheckpointError
from pitome.sources.checkpoint_files import check_checkpoint
from pitome.sources.llava_family import ARCHS, MISSING
from pitome.sources.weights import Weights, find_weights


def find_model(name: str, checkpoint: str, weights: str, arch: str = "llava") -> Weights:
    """As `pitome.sources.weights.find_weights`, where `weights` may also be one model's folder: config.json,
    weights (see `weight_files`), and the tokenizer. Raises CheckpointError likewise, and for a folder that
    holds another kind of model than `arch`, with what is missing for it."""
    folder = Path(weights).expanduser()
    if weights in ("pretrained", "random") or not (folder / "config.json").exists():
        return find_weights(name, checkpoint, weights, "vqa")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise CheckpointError(f"weights={folder} holds no config.json that can be read") from None
    if kind != arch:
        why = f": {MISSING[kind]}" if kind in MISSING and kind not in ARCHS else ""
        raise CheckpointError(
            f"weights={folder} holds a model of the kind {kind}, which cannot be used as model.arch={arch}"
            f"{why}"
        )
    if not (files := weight_files(folder)):
        raise CheckpointError(
            f"weights={folder} holds neither .safetensors files nor pytorch_model*.bin; save it as such"
        )
    for file in files:
        check_checkpoint(file)
    return Weights("file", folder.name, folder)


def weight_files(folder: Path) -> list[Path]:
    """A model's weights in a folder with transformers' files: in safetensors or, where none are, torch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
