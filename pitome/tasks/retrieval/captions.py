"""Captions as token ids: the byte pairs of CLIP, the pieces of SigLIP, or a short list of words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pitome.errors import CheckpointError, DataError

_END = "</s>"  # of SigLIP
_WORDS_AND_MARKS = re.compile(r"[a-z-]+|[^a-z\s-]")


@dataclass(frozen=True)
class Tokenizer:
    """Texts to token ids. Of CLIP the end is the highest id, because it reads a text where its id is largest;
    SigLIP has no start, and reads the last token."""

    encode: Callable[[str], list[int]]  # a text without its start and end
    start: int | None  # id; None: there is none
    end: int  # id
    context: int  # tokens a text may have, start and end counted
    fill: int = 0  # the id after the end

    @property
    def room(self) -> int:
        """Tokens of a text that are read, start and end not counted."""
        return self.context - (1 if self.start is None else 2)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids [T, context], `fill` after the end. A longer text is cut, and keeps its end.

        Raises DataError for a text with words that a list of words does not hold.
        """
        ids = torch.full((len(texts), self.context), self.fill)
        start = [] if self.start is None else [self.start]
        for row, text in zip(ids, texts, strict=True):
            whole = [*start, *self.encode(text)[: self.room], self.end]
            row[: len(whole)] = torch.tensor(whole)
        return ids

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of the texts are cut."""
        return sum(len(self.encode(text)) > self.room for text in texts)


def byte_pairs(context: int) -> Tokenizer:
    """The tokenizer of CLIP (Radford et al., 2021), from open_clip."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=context)
    return Tokenizer(tokenizer.encode, tokenizer.sot_token_id, tokenizer.eot_token_id, context)


def pieces(path: Path, context: int, vocabulary: int) -> Tokenizer:
    """The tokenizer of SigLIP (Zhai et al., 2023), from the tokenizer.json beside its weights: lower case,
    no punctuation; the end token follows a text as often as there is room.

    vocabulary: ids that the model embeds. Raises CheckpointError for a file that cannot be read or belongs
    to another model.
    """
    from tokenizers import Tokenizer as File

    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; put the tokenizer.json of the model's repository beside its weights"
        )
    try:
        file = File.from_file(str(path))
    except Exception as problem:  # tokenizers raises nothing more specific
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(problem).split())[:200]})") from None
    end = file.token_to_id(_END)
    if end is None or file.get_vocab_size() > vocabulary:
        raise CheckpointError(
            f"{path} holds {file.get_vocab_size()} pieces {'without' if end is None else 'with'} {_END}, the "
            f"model embeds {vocabulary}: take the tokenizer.json of its own repository"
        )
    file.no_padding()
    file.no_truncation()
    return Tokenizer(
        lambda text: file.encode(_canonical(text), add_special_tokens=False).ids, None, end, context, end
    )


def numbered_words(context: int, vocabulary: int) -> Tokenizer:
    """In place of `pieces` for a model with random weights, to which no piece means anything: every word is
    one token, its id a checksum."""
    return Tokenizer(
        lambda text: [2 + zlib.crc32(word.encode()) % (vocabulary - 2) for word in _canonical(text).split()],
        None,
        1,
        context,
        1,
    )


def _canonical(text: str) -> str:
    from open_clip.tokenizer import get_clean_fn

    clean: Callable[[str], str] = get_clean_fn("canonicalize")
    return clean(text)


def word_list(words: Sequence[str], context: int, model: str) -> Tokenizer:
    """Ids 1, 2, ... in the order of `words`, then start and end; `model`: its name, for the message.

    A text is lower-cased; a word is a run of letters and hyphens, any other mark stands alone.
    """
    ids = {word: index for index, word in enumerate(words, start=1)}

    def encode(text: str) -> list[int]:
        pieces = _WORDS_AND_MARKS.findall(text.lower())
        unknown = sorted({piece for piece in pieces if piece not in ids})
        if unknown:
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise DataError(
                f"model={model} knows {len(ids)} words, not {', '.join(unknown[:10])}{more}; "
                "use data=scenes, or another model"
            )
        return [ids[piece] for piece in pieces]

    return Tokenizer(encode, len(ids) + 1, len(ids) + 2, context)
