"""Tokenizers that LLaVA models without files of their own read with: a list of words, or single bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE = "<image>"
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", IMAGE)  # in the order of their ids


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerBase:
    """Ids 5, 6, ... in the order of `words`, after the special tokens.

    A text is lower-cased and begins with <s>; a word is a run of anything but spaces and punctuation,
    every mark of which stands alone. What is not in the list becomes <unk>.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    backend: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL[1]))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return _wrap(backend)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token for every byte of a text, which begins with <s>: for models with random weights, whose
    words are on the hub."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend: Any = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _wrap(backend)


def _wrap(backend: Any) -> PreTrainedTokenizerBase:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    pad, unknown, begin, end, image = _SPECIAL
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, _SPECIAL.index(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=[image],
    )
