"""Captions as token ids: the byte pairs of CLIP, or a short list of words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.errors import DataError

_PIECES = re.compile(r"[a-z-]+|[^a-z\s-]")


@dataclass(frozen=True)
class Tokenizer:
    """encode: a text without its start and end; start, end: their ids, end the highest of all, because
    CLIP reads a text where its id is largest; context: tokens a text may have, start and end counted."""

    encode: Callable[[str], list[int]]
    start: int
    end: int
    context: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids [T, context], 0 behind the end. A longer text is cut, and keeps its end.

        Raises DataError for a text with words that a list of words does not hold.
        """
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            inside = self.encode(text)[: self.context - 2]
            row[: len(inside) + 2] = torch.tensor([self.start, *inside, self.end])
        return ids

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are cut."""
        return sum(len(self.encode(text)) > self.context - 2 for text in texts)


def byte_pairs(context: int) -> Tokenizer:
    """The tokenizer of CLIP (Radford et al., 2021), from open_clip."""
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer(context_length=context)
    return Tokenizer(own.encode, own.sot_token_id, own.eot_token_id, context)


def word_list(words: Sequence[str], context: int, model: str) -> Tokenizer:
    """Ids 1, 2, ... in the order of `words`, then start and end; `model`: its name, for the message.

    A text is lower-cased; a word is a run of letters and hyphens, any other mark stands alone.
    """
    ids = {word: index for index, word in enumerate(words, start=1)}

    def encode(text: str) -> list[int]:
        pieces = _PIECES.findall(text.lower())
        unknown = sorted({piece for piece in pieces if piece not in ids})
        if unknown:
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise DataError(
                f"model={model} reads captions of {len(ids)} words, and not {', '.join(unknown[:10])}{more}; "
                "use data=scenes, or another model"
            )
        return [ids[piece] for piece in pieces]

    return Tokenizer(encode, len(ids) + 1, len(ids) + 2, context)
