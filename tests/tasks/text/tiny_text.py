"""A BERT of two narrow layers with a vocabulary of a few words, in transformers' form of folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "b",
    "good",
    "bad",
    "film",
    "the",
    "##s",
    "!",
    "🙂",
    "漢",
]

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "arch": "bert",
    "args": {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 24,
    },
    "base": "package",
    "checkpoints": {},
}


def tokenizer(words: list[str] = WORDS, *, cased: bool = False) -> Any:
    from transformers import BertTokenizer

    vocab = {word: number for number, word in enumerate(words)}
    return BertTokenizer(vocab=vocab, do_lower_case=not cased)


def write_folder(
    folder: Path, *, words: list[str] = WORDS, classifier: bool = True, cased: bool = False
) -> Path:
    """A folder as the hub gives it: model, configuration, tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", **CONFIG["args"], num_labels=2)
    kind = AutoModelForSequenceClassification if classifier else AutoModel
    kind.from_config(config).save_pretrained(folder)
    tokenizer(words, cased=cased).save_pretrained(folder)
    return folder
