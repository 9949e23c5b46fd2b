"""Tokenizers of transformers, without network and without code of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pitome.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder with transformers' files, without network and without code of the
    folder. Raises CheckpointError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as problem:
        raise CheckpointError(f"{folder} holds no tokenizer that can be read ({_line(problem)})") from None


def _line(problem: object) -> str:
    return " ".join(str(problem).split())[:200] or type(problem).__name__
