"""Questions about images, wherever they come from. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Question:
    """A question about an image.

    id: unique in its split; image: what the image is called, empty where there is none; answers: those
    of the annotators, none where they are not public; extra: what else a benchmark needs (choices and
    hint, category, OCR tokens).
    """

    id: str
    image: str
    text: str
    answers: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Questions:
    """One split, in the order of its file.

    source: hub, local or package; revision: a commit or checksum; read: the image of a question in
    mode RGB, raises `pitome.data.loading.Unreadable`.
    """

    source: str
    revision: str
    questions: Sequence[Question]
    read: Callable[[Question], Image.Image]
