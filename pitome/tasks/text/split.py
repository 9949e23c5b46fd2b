"""Which texts are trained, validated and tested on: no text on two sides. Imports no torch."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from pitome.config import Config
from pitome.errors import UsageError, nearest

SPLITS = ("train", "validation", "test")
# Percent of the hashes: larger than the usual tenth for testing, because methods are compared there.
_TEST, _VALIDATION = 20, 10


def normalise(text: str) -> str:
    """What makes two texts the same: their letters and digits, compatibility forms and case undone.

    Spaces, punctuation and tokenisation differ between copies of one data set. A text without
    letters and digits is compared as it is, without outer spaces.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded)) or folded.strip()


def hash_split(text: str) -> str:
    """`train` (70 %), `validation` (10 %) or `test` (20 %), by the SHA-256 of the normalised text."""
    digest = hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") % 100
    if place < _TEST:
        return "test"
    return "validation" if place < _TEST + _VALIDATION else "train"


def official_split(texts: Sequence[str], given: Sequence[str]) -> list[str | None]:
    """The given splits, with a validation split taken from the training texts where there is none.

    given: `train`, `validation` or `test` of each text. The test texts stay as they are; a training
    text that is also a test text belongs to no split (None), likewise a validation text, and a
    training text that is also a validation text.
    """
    keys = [normalise(text) for text in texts]
    tested = {key for key, split in zip(keys, given, strict=True) if split == "test"}
    out: list[str | None] = list(given)
    if "validation" not in given:
        out = ["validation" if s == "train" and _held_back(k) else s for s, k in zip(out, keys, strict=True)]
    validated = {key for key, split in zip(keys, out, strict=True) if split == "validation"}
    for row, (key, split) in enumerate(zip(keys, out, strict=True)):
        if (split != "test" and key in tested) or (split == "train" and key in validated):
            out[row] = None
    return out


def _held_back(key: str) -> bool:
    """One in ten training texts."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 100 < _VALIDATION


def text_split(config: Config) -> str:
    """The kind of split of a text run: `official` or `hash`.

    A classifier is tested on texts it has not seen: the split its checkpoint names. Raises
    UsageError for another one.
    """
    entry = config.model.checkpoints.get(config.data.name)
    trained = (
        entry.split if entry and config.mode != "train" and config.weights in (None, "pretrained") else None
    )
    given = config.data.split
    if given is None:
        return trained or ("hash" if "package" in config.data.sources else "official")
    check_kind(given)
    if trained is not None and given != trained:
        raise UsageError(
            f"model={config.model.name} was trained on the {trained} split of data={config.data.name}, "
            f"on texts that data.split={given} tests on; leave data.split out, or give weights=PATH"
        )
    return given


KINDS = ("official", "hash")


def check_kind(kind: str) -> None:
    """Raise UsageError for a split that does not exist."""
    if kind not in KINDS:
        raise UsageError(f"data.split={kind} is not known; {nearest(kind, KINDS)}")
