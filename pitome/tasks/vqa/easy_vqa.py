"""easy-VQA (Zhou, 2019; MIT): questions about images of one coloured shape, out of its PyPI package.

4,000 training images with 38,575 questions, 1,000 test images with 9,673; 13 answers. One training
image in ten, by hash, is held out for validation with all its questions.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.checksums import checksum
from pitome.sources.folders import cache_folder, check_source, stamp
from pitome.sources.images import DEFAULT, ImageRules, read_file
from pitome.sources.json_files import damaged, read_json, text_of
from pitome.sources.pypi import Archive, fetch_archive
from pitome.tasks.vqa.questions import Question, Questions, make_question

ARCHIVE = Archive(
    "easy_vqa",
    "1.0",
    sdist=False,
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    megabytes=3.2,
)
_INSIDE = "easy_vqa/data/"
_HELD_OUT = 10  # percent of the training images


def easy_vqa_questions(
    split: str, *, source: str, root: str | None, rules: ImageRules = DEFAULT
) -> Questions:
    """The `test`, `train` or `validation` questions, each with one answer.

    source: local (data.root with train/ and test/: questions.json and images/), package, or auto:
    data.root if given, else the package. Raises DataError, one line.
    """
    otherwise = "give a folder with train/ and test/ (questions.json and images/) with data.root=FOLDER"
    folder = check_source(source, root)
    if source == "hub":
        raise DataError(f"easy_vqa is not on the hub; use source=package, or {otherwise}")
    local = folder is not None
    if folder is None:
        folder = fetch_archive(ARCHIVE, _unpack, cache_folder() / "easy_vqa", otherwise=otherwise)
    part = folder / ("test" if split == "test" else "train")
    path = part / "questions.json"
    if not path.is_file():
        raise DataError(f"{folder} holds no {part.name}/questions.json; {otherwise}")
    questions = _read(path, split)
    if not questions:
        raise DataError(f"{path} holds no questions of the split {split}; {otherwise}")
    names = sorted({question.image for question in questions})
    sizes = [str(file.stat().st_size) if (file := part / name).is_file() else "" for name in names]
    lines = [text for q in questions for text in (q.id, q.image, q.text, *q.answers)]
    return Questions(
        source="local" if local else "package",
        revision=checksum([*lines, *sizes]),
        questions=questions,
        read=lambda question: read_file(part, question.image, rules),
        stamp=stamp(part / name for name in names) if local else "",
    )


def held_out(image: int) -> bool:
    """Whether the training image of this number is one to validate on: one in ten, by SHA-256."""
    digest = hashlib.sha256(f"easy_vqa train {image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < _HELD_OUT


def _read(path: Path, split: str) -> list[Question]:
    """The form of the package: a list of [question, answer, number of the image]."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise damaged(path, "expected a list of [question, answer, image]")
    questions = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 3:
            raise damaged(path, f"entry {number} is not [question, answer, image]")
        image: Any = row[2]
        if isinstance(image, bool) or not isinstance(image, int):
            raise damaged(path, f"the image of entry {number} is {image!r}, not a number")
        if split == "test" or held_out(image) == (split == "validation"):
            text, answer = (
                text_of(path, number, what, row[at]) for at, what in enumerate(("text", "answer"))
            )
            questions.append(make_question(number, f"images/{image}.png", text, [answer]))
    return questions


def _unpack(wheel: Path, folder: Path) -> None:
    """Questions and images of both splits."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inside = name.removeprefix(_INSIDE)
                if inside != name and inside.startswith(("train/", "test/")) and not name.endswith("/"):
                    target = folder / inside
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file)
    except zipfile.BadZipFile as problem:
        raise DataError(f"the package {ARCHIVE.name} is damaged ({problem})") from None
    if not (folder / "test" / "questions.json").is_file():
        raise DataError(f"the package {ARCHIVE.name} does not hold {_INSIDE}test/questions.json")
