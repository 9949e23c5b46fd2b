"""The paper's six sets as they are on the hub: parquet files with questions, answers and images.

The repositories are those that lmms-eval reads; their commits are pinned in conf/data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pitome.errors import DataError, Unreadable
from pitome.sources.images import ImageRules
from pitome.sources.json_files import id_of, text_of, texts_of
from pitome.sources.parquet import ParquetImages, load_parquet
from pitome.sources.rows import Row
from pitome.tasks.vqa.questions import Question, check_ids, choices_answer, make_question

Make = Callable[[Path, int, Row, bool], Question]
"""File, number of the row, row, and whether its answers are public -> question."""


@dataclass(frozen=True)
class ParquetSet:
    """How a set lies on the hub."""

    files: str  # of questions, {} the hub's name of a split
    columns: tuple[str, ...]  # that are read
    make: Make
    splits: Mapping[str, str] = field(default_factory=dict)  # ours -> the hub's, where they differ
    images: str | None = None  # files of images with their `id`, where they are apart (GQA)

    def patterns(self, split: str) -> list[str]:
        """Of the files of a split."""
        name = self.splits.get(split, split)
        return [pattern.format(name) for pattern in (self.files, self.images) if pattern is not None]


def _answered(
    path: Path, number: int, row: Row, scored: bool, extra: Mapping[str, Any] | None = None
) -> Question:
    """VQAv2, VizWiz, TextVQA: an id, a question and the annotators' answers."""
    id = id_of(path, number, row["question_id"])
    answers = texts_of(path, number, "answers", row["answers"]) if scored else []
    image = row.get("image_id")
    text = text_of(path, number, "question", row["question"])
    return make_question(id, id if image is None else str(image), text, answers, extra, scored=scored)


def _textvqa(path: Path, number: int, row: Row, scored: bool) -> Question:
    tokens = texts_of(path, number, "OCR tokens", row["ocr_tokens"])
    return _answered(path, number, row, scored, {"ocr_tokens": tuple(tokens)})


def _gqa(path: Path, number: int, row: Row, scored: bool) -> Question:
    texts = [text_of(path, number, key, row[key]) for key in ("imageId", "question", "answer")]
    return make_question(id_of(path, number, row["id"]), texts[0], texts[1], texts[2:])


def _scienceqa(path: Path, number: int, row: Row, scored: bool) -> Question:
    choices = texts_of(path, number, "choices", row["choices"])
    answers, defect = choices_answer(choices, row["answer"])
    extra = {"choices": tuple(choices), "hint": row["hint"] or ""}
    text = text_of(path, number, "question", row["question"])
    return make_question(number, f"row {number}", text, answers, extra, defect=defect)


def _mme(path: Path, number: int, row: Row, scored: bool) -> Question:
    texts = [
        text_of(path, number, key, row[key]) for key in ("question_id", "question", "answer", "category")
    ]
    # Both questions of an image bear its id.
    return make_question(f"{texts[0]} {number}", texts[0], texts[1], texts[2:3], {"category": texts[3]})


_ANSWERED = ("question_id", "question", "answers")
SETS = {
    "vqav2": ParquetSet("data/{}-*.parquet", (*_ANSWERED, "image_id"), _answered, {"val": "validation"}),
    "gqa": ParquetSet(
        "testdev_balanced_instructions/{}-*.parquet",
        ("id", "imageId", "question", "answer"),
        _gqa,
        images="testdev_balanced_images/{}-*.parquet",
    ),
    "vizwiz": ParquetSet("data/{}-*.parquet", _ANSWERED, _answered),
    "scienceqa": ParquetSet(
        "ScienceQA-IMG/{}-*.parquet",
        ("question", "choices", "answer", "hint"),
        _scienceqa,
        {"val": "validation"},
    ),
    "textvqa": ParquetSet(
        "data/{}-*.parquet", (*_ANSWERED, "image_id", "ocr_tokens"), _textvqa, {"val": "validation"}
    ),
    "mme": ParquetSet("data/{}-*.parquet", ("question_id", "question", "answer", "category"), _mme),
}


def parquet_questions(
    name: str, split: str, folder: Path, *, scored: bool, rules: ImageRules
) -> tuple[list[Question], Callable[[Question], Any]]:
    """The questions of a split in a folder laid out as the hub's repository, and what reads their images.

    scored: answers are to be there. Raises DataError for damaged files, missing columns and fields.
    """
    data = SETS[name]
    patterns = data.patterns(split)
    files = sorted(folder.glob(patterns[0]))
    if not files:
        raise DataError(f"{folder} holds no {patterns[0]} with the questions; fetch them as well")
    where = files[0] if len(files) == 1 else folder / patterns[0]
    table = load_parquet(files, data.columns)
    questions = [data.make(where, number, row, scored) for number, row in enumerate(table.to_list())]
    check_ids(questions, str(folder))
    if data.images is None:
        rows = {question.id: row for row, question in enumerate(questions)}
        images = ParquetImages(files, rules)
        return questions, lambda question: images.read(rows[question.id], question.image)
    apart = sorted(folder.glob(patterns[1]))
    if not apart:
        raise DataError(f"{folder} holds no {patterns[1]} with the images; fetch them as well")
    by_name = {name: row for row, name in enumerate(load_parquet(apart, ["id"])["id"])}
    images = ParquetImages(apart, rules)

    def read(question: Question) -> Any:
        if question.image not in by_name:
            raise Unreadable(f"{question.image}: no such image")
        return images.read(by_name[question.image], question.image)

    return questions, read
