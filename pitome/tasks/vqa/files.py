"""The paper's six sets of questions: from the hub, or from a folder in either of two forms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.checksums import checksum
from pitome.sources.folders import check_source
from pitome.sources.hub import fetch_folder
from pitome.sources.images import DEFAULT, ImageRules
from pitome.tasks.vqa.benchmarks import benchmark_of
from pitome.tasks.vqa.local import local_questions
from pitome.tasks.vqa.parquet import SETS, parquet_questions
from pitome.tasks.vqa.questions import Question, Questions


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
        questions, read, size = local_questions(name, split, given, ocr=ocr, rules=rules)
        bytes_of = {question.image: size(question) for question in questions}
        return Questions("local", checksum([*_lines(questions), *bytes_of.values()]), questions, read)
    folder = given
    if folder is None:
        for pattern in patterns:
            folder = fetch_folder(
                repository, pattern, kind="dataset", revision=revision, error=DataError, otherwise=otherwise
            )
    assert isinstance(folder, Path)
    questions, read = parquet_questions(name, split, folder, scored=scored, rules=rules)
    if not questions:
        raise DataError(f"{patterns[0]} in {folder} holds no questions; {otherwise}")
    if not ocr:
        questions = [_without_ocr(question) for question in questions]
    if given is None:
        return Questions("hub", folder.name, questions, read)
    sizes = [str(file.stat().st_size) for pattern in patterns for file in sorted(folder.glob(pattern))]
    return Questions("local", checksum([*_lines(questions), *sizes]), questions, read)


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
