"""Text encoders with a classifier, from transformers: a configuration becomes model and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from pitome.config import ModelConfig
from pitome.errors import CheckpointError, UsageError
from pitome.sources.checkpoint_files import sha256_of
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.hub import fetch_folder
from pitome.sources.minilm import fetch_minilm
from pitome.sources.weights import Weights, find_text_weights
from pitome.tasks.text.lora import merge_adapter, read_lora
from pitome.tasks.tokenizers import _line, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGE = "package"  # as a `base`: the encoder of MINILM
_ELSE = "give the file with weights=PATH, or use weights=random"
_FILES = ("model.safetensors", "pytorch_model.bin")
_WORDS = ("tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class BuiltText:
    """A classifier with its tokenizer."""

    model: nn.Module  # in eval mode
    tokenizer: PreTrainedTokenizerBase
    weights: Weights
    sha256: str | None  # of the weights; None if random


def build_text_model(
    config: ModelConfig, data: str, classes: int, weights: str = "pretrained", key: str | None = None
) -> BuiltText:
    """Build the model of a text file of conf/model: token ids [B, N] -> logits [B, classes].

    key: of the file, see `load_checkpoint`.
    config: name, arch (`bert`, `distilbert`), args (transformers' settings of the architecture),
    base, checkpoints; data: the data set the classifier is for; weights: pretrained (its
    checkpoint for `data`), random (drawn from torch's global generator) or a file, a whole model
    or an adapter for `base`. A whole-model file goes with the tokenizer beside it, one without and a
    random model with the vocabulary of uncased BERT, which is that of the package. Raises
    CheckpointError when weights or tokenizer are missing, damaged, unsafe, or do not belong together.
    """
    entry = config.checkpoints.get(data)
    origin = find_text_weights(config.name, data, entry.source if entry else None, weights)
    if origin.source == "hub" and entry is not None:
        built = _from_hub(config, origin, classes, cased=entry.cased)
    elif origin.path is not None and (lora := read_lora(origin.path)) is not None:
        base, tokenizer = load_base(config, classes)
        model, digest = merge_adapter(base, lora, origin.path)
        built = BuiltText(model, tokenizer, origin, digest)
    else:
        model, sha256 = from_args(config, classes), None
        if origin.path is not None:
            checkpoint = load_checkpoint(origin.path, model, key)
            load_into(model, checkpoint)
            sha256 = checkpoint.sha256
        beside = origin.path.parent if origin.source == "file" and origin.path is not None else None
        words = beside if beside and any((beside / file).is_file() for file in _WORDS) else fetch_minilm()
        built = BuiltText(model, load_tokenizer(words), origin, sha256)
    check_vocabulary(built.model, built.tokenizer, config.name)
    built.model.requires_grad_(False).eval()
    return built


def from_args(config: ModelConfig, classes: int) -> nn.Module:
    """The architecture with random weights, from the configuration alone."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    settings = AutoConfig.for_model(config.arch, **config.args, num_labels=classes)
    model: nn.Module = AutoModelForSequenceClassification.from_config(settings)
    return model


def load_base(config: ModelConfig, classes: int) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The pretrained encoder `config.base` with a new classifier, for training, and its tokenizer."""
    base = config.base
    if base is None:
        raise UsageError(
            f"model={config.name} has no `base` to train from; give weights=PATH or weights=random"
        )
    if base == PACKAGE:
        folder = fetch_minilm()
    else:
        repo, _, revision = base.removeprefix("hub:").partition("@")
        folder, _ = _fetch_hub(repo, revision or "main")
    model, _ = _load_folder(folder, config, classes)
    tokenizer = load_tokenizer(folder)
    check_vocabulary(model, tokenizer, config.name)
    return model, tokenizer


def check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise CheckpointError where the tokenizer has more or fewer words than the model's embedding."""
    words = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if len(tokenizer) != words:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} words and model={name} embeds {words}: they do not belong "
            "together; choose weights that were trained with this tokenizer"
        )


def _from_hub(config: ModelConfig, weights: Weights, classes: int, *, cased: bool) -> BuiltText:
    folder, file = _fetch_hub(weights.name, weights.revision or "main")
    model, missing = _load_folder(folder, config, classes)
    if missing:
        raise CheckpointError(
            f"{weights.name} holds no trained classifier ({missing[0]} is missing); "
            f"choose another checkpoint, {_ELSE}"
        )
    tokenizer = load_tokenizer(folder)
    normalizer = tokenizer.backend_tokenizer.normalizer
    if (normalizer is None or normalizer.normalize_str("Ab") == "Ab") is not cased:
        kind = ("lower-cases", "keeps case")
        raise CheckpointError(
            f"the tokenizer of {weights.name} {kind[not cased]}, model.checkpoints says that it "
            f"{kind[cased]}; correct `cased` there"
        )
    origin = Weights("hub", weights.name, folder / file, folder.name)
    return BuiltText(model, tokenizer, origin, sha256_of(folder / file))


def _fetch_hub(repo: str, revision: str) -> tuple[Path, str]:
    """Configuration, tokenizer and weights in the hub's cache: their folder, and the weights' file."""
    folder = fetch_folder(
        repo, "*.json", _WORDS, _FILES, revision=revision, error=CheckpointError, otherwise=_ELSE
    )
    return folder, next(file for file in _FILES if (folder / file).is_file())


def _load_folder(folder: Path, config: ModelConfig, classes: int) -> tuple[nn.Module, list[str]]:
    """The model in a folder with transformers' files, and the names of tensors that were not there.

    Raises CheckpointError for another architecture than the configuration's, and for damaged files.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        wanted = AutoConfig.for_model(config.arch, **config.args)
        sizes = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for key in sizes:
            if getattr(settings, key) != getattr(wanted, key):
                raise CheckpointError(
                    f"{folder.name}: {key} is {getattr(settings, key)}, model={config.name} has "
                    f"{getattr(wanted, key)}; choose a checkpoint of that architecture"
                )
        settings.num_labels = classes
        logging.set_verbosity_error()  # its remarks on a new classifier; what is missing is returned
        logging.disable_progress_bar()
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, config=settings, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except CheckpointError:
        raise
    except Exception as problem:  # of safetensors, torch and transformers alike
        raise CheckpointError(
            f"the model in {folder} cannot be read ({_line(problem)}); fetch it again"
        ) from None
    return model, sorted(report["missing_keys"])
