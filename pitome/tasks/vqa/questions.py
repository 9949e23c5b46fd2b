"""Questions about images, wherever they come from. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pitome.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Question:
    """A question about an image."""

    id: str  # unique in its split
    image: str  # what the image is called; empty where there is none
    text: str
    answers: tuple[str, ...]  # of the annotators; none where they are not public
    extra: Mapping[str, Any] = field(default_factory=dict)  # choices and hint, category, OCR tokens
    defect: str = ""  # why it cannot be asked or scored; empty if it can


@dataclass(frozen=True)
class Sight:
    """Something that is seen in an image."""

    row: float  # of its middle, as a share of the image's height
    column: float  # of its middle, as a share of the width
    words: tuple[str, ...]  # that name it


@dataclass(frozen=True)
class Questions:
    """One split, in the order of its file."""

    source: str  # hub, local or package
    revision: str  # a commit or checksum
    questions: Sequence[Question]
    read: Callable[[Question], Image.Image]  # the image of a question in mode RGB; raises Unreadable
    stamp: str = ""  # changes whenever the pixels may have
    sights: Callable[[str], Sequence[Sight]] | None = None  # in an image, for training; None: not known


def make_question(
    id: object,
    image: str,
    text: str,
    answers: Sequence[str],
    extra: Mapping[str, Any] | None = None,
    *,
    scored: bool = True,
    defect: str = "",
) -> Question:
    """A question with what is wrong with it; scored: its answers are to be public."""
    if not text.strip():
        defect = "empty question"
    elif not image:
        defect = "no image"
    elif scored and not answers:
        defect = defect or "no answers"
    return Question(str(id), image, text, tuple(answers), extra or {}, defect)


def check_ids(questions: Sequence[Question], where: str) -> None:
    """Raise DataError where two questions have the same id."""
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"{where} holds two questions with the id {question.id}; remove one")
        seen.add(question.id)


def choices_answer(choices: Sequence[str], answer: object) -> tuple[tuple[str, ...], str]:
    """The letter of the option number `answer`, counted from 0, or what is wrong with it."""
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        return (), f"answer {answer} is none of the {len(choices)} options"
    return (chr(ord("A") + answer),), ""
