"""The paper's six sets of questions: from the hub, or from a folder in either of two forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from PIL import Image

from pitome.errors import DataError, UsageError, nearest
from pitome.sources.checksums import checksum
from pitome.sources.folders import check_source, stamp
from pitome.sources.hub import fetch_folder
from pitome.sources.images import DEFAULT, ImageRules
from pitome.sources.json_files import id_of
from pitome.tasks.tables import image_rows, texts_in
from pitome.tasks.vqa.benchmarks import BENCHMARKS, benchmark_of
from pitome.tasks.vqa.local import local_questions
from pitome.tasks.vqa.parquet import SETS, parquet_questions
from pitome.tasks.vqa.questions import Question, Questions, check_ids, make_question

# Of a table of one's own, besides the image: our name -> usual names; `?`: may be missing.
COLUMNS = {
    "question": ("question", "query", "prompt", "text"),
    "answers": ("answers", "answer", "label"),
    "?id": ("question_id", "id"),
}


def file_questions(
    name: str,
    split: str,
    *,
    ocr: bool,
    source: str,
    root: str | None,
    repository: str,
    revision: str,
    rules: ImageRules = DEFAULT,
) -> Questions:
    """The questions of a split.

    source: local (data.root with the set's own annotation files and images, or laid out as the hub's
    repository), hub, or auto: data.root if given, else the hub. ocr: with OCR tokens (TextVQA). rules: how
    images are read. Raises
    DataError, one line, for what is missing or damaged; images are looked at when read.
    """
    given = check_source(source, root)
    otherwise = (
        "give a folder with the annotation files and images with data.root=FOLDER, or use data=easy_vqa, "
        "which needs no hub"
    )
    if source == "package":
        raise DataError(f"no package holds {name}; use source=hub, or {otherwise}")
    scored = split not in benchmark_of(name).hidden
    patterns = SETS[name].patterns(split)
    if given is not None and not any(given.glob(patterns[0])):
        questions, images = local_questions(name, split, given, ocr=ocr, rules=rules)
        return _local(questions, lambda q: images.read(q.image), images.size, images.stamp)
    folder = given
    if folder is None:
        folder = fetch_folder(
            repository, *patterns, kind="dataset", revision=revision, error=DataError, otherwise=otherwise
        )
    questions, read = parquet_questions(name, split, folder, scored=scored, rules=rules)
    if not questions:
        raise DataError(f"{patterns[0]} in {folder} holds no questions; {otherwise}")
    if not ocr:
        questions = [_without_ocr(question) for question in questions]
    if given is None:
        return Questions("hub", folder.name, questions, read)
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    sizes = [str(file.stat().st_size) for file in files]
    return Questions("local", checksum([*_lines(questions), *sizes]), questions, read, stamp(files))


def custom_questions(
    name: str, split: str, *, source: str, root: str | None, rules: ImageRules = DEFAULT
) -> Questions:
    """A split of a set of one's own: tables with the columns image, question and answers (one or several).

    Raises UsageError without a folder, and DataError, one line, for what is missing or damaged.
    """
    given = check_source(source, root)
    if given is None:
        raise UsageError(f"unknown data {name!r}; {nearest(name, BENCHMARKS)}")
    table = image_rows(given, split, COLUMNS, rules)
    questions = []
    for number, row in enumerate(table.rows, 1):
        id = number if row.get("id") is None else id_of(given, number, row["id"])
        text = "" if row["question"] is None else id_of(given, number, row["question"])
        answers = [text for text in texts_in(name, number, "answer", row["answers"]) if text.strip()]
        questions.append(make_question(id, row["image"], text, answers))
    if not questions:
        raise DataError(f"{given} holds no questions of the split {split}; call their table {split}.csv")
    check_ids(questions, str(given))
    return _local(questions, lambda q: table.read(q.image), table.size, table.stamp)


def _local(
    questions: list[Question],
    read: Callable[[Question], Image.Image],
    size: Callable[[str], str],
    stamp: Callable[[str], str],
) -> Questions:
    names = list(dict.fromkeys(question.image for question in questions))
    revision = checksum([*_lines(questions), *map(size, names)])
    return Questions("local", revision, questions, read, checksum(map(stamp, names)))


def _lines(questions: list[Question]) -> list[str]:
    """All texts of the questions, in order."""
    lines: list[str] = []
    for question in questions:
        lines += [question.id, question.image, question.text, *question.answers]
        lines += [f"{key} {value}" for key, value in sorted(question.extra.items())]
    return lines


def _without_ocr(question: Question) -> Question:
    if "ocr_tokens" not in question.extra:
        return question
    return dataclasses.replace(question, extra={})
