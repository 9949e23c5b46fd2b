"""The paper's six sets as their authors publish them: annotation files and folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.sources.annotation_files import AnnotationFiles
from pitome.sources.folders import ignored, walk
from pitome.sources.hub import say
from pitome.sources.image_files import ImageFiles
from pitome.sources.images import DEFAULT, ImageRules, suffixes
from pitome.sources.json_files import File, damaged, field_of, id_of, read_json, read_text, text_of, texts_of
from pitome.tasks.vqa.benchmarks import COGNITION, PERCEPTION
from pitome.tasks.vqa.questions import Question, check_ids, choices_answer, make_question


class Files:
    """Where the questions of a split are."""

    def __init__(self, folder: Path, split: str, ocr: bool) -> None:
        self.folder, self.split, self.ocr = folder, split, ocr
        self.annotations = AnnotationFiles(folder)

    def find(self, name: str) -> File:
        """Raises DataError where there is no such file."""
        if (file := self.annotations.find(name)) is not None:
            return file
        raise DataError(
            f"{self.folder} holds no {name}, the annotations of the split {self.split}; put it there"
        )


def local_questions(
    name: str, split: str, folder: Path, *, ocr: bool, rules: ImageRules = DEFAULT
) -> tuple[list[Question], ImageFiles]:
    """The questions of a split from the set's own annotation files in `folder`, and their images.

    ocr: with the OCR tokens of TextVQA. Raises DataError, one line, for files that are missing, are
    damaged or lack a field, and for two questions with one id.
    """
    questions = _READERS[name](Files(folder, split, ocr))
    if not questions:
        raise DataError(f"{folder} holds no questions of the split {split} of {name}; give another folder")
    check_ids(questions, str(folder))
    return questions, ImageFiles(folder, {question.image for question in questions if question.image}, rules)


def _vqav2(files: Files) -> list[Question]:
    """Two files: questions, and, of the validation split, annotations."""
    kind, part = ("val2014", "val2014") if files.split == "val" else ("test-dev2015", "test2015")
    path = files.find(f"v2_OpenEnded_mscoco_{kind}_questions.json")
    answers: dict[str, list[str]] = {}
    scored = files.split == "val"
    if scored:
        file = files.find(f"v2_mscoco_{kind}_annotations.json")
        for number, entry in enumerate(_list(file, "annotations")):
            id = id_of(file, number, field_of(file, number, entry, "question_id"))
            texts = texts_of(file, number, "answers", field_of(file, number, entry, "answers"))
            if answers.setdefault(id, texts) != texts:
                raise damaged(file, f"entry {number} has other answers to question {id} than one before it")
    questions = []
    for number, entry in enumerate(_list(path, "questions")):
        id = id_of(path, number, field_of(path, number, entry, "question_id"))
        image = field_of(path, number, entry, "image_id")
        if isinstance(image, bool) or not isinstance(image, int | None):
            raise damaged(path, f"the image of entry {number} is {image!r}, not a number")
        name = "" if image is None else f"COCO_{part}_{image:012d}.jpg"
        text = text_of(path, number, "question", field_of(path, number, entry, "question"))
        questions.append(make_question(id, name, text, answers.get(id, []), scored=scored))
    return questions


def _gqa(files: Files) -> list[Question]:
    """An object: id -> imageId, question, answer."""
    path = files.find("testdev_balanced_questions.json")
    questions = []
    for id, entry in _entries(path):
        name, text, answer = (
            text_of(path, id, key, field_of(path, id, entry, key))
            for key in ("imageId", "question", "answer")
        )
        questions.append(make_question(id, f"{name}.jpg" if name else "", text, [answer]))
    return questions


def _vizwiz(files: Files) -> list[Question]:
    """A list of image, question, and, but for the test split, answers."""
    path = files.find(f"{files.split}.json")
    scored = files.split == "val"
    questions = []
    for number, entry in enumerate(_list(path)):
        image = text_of(path, number, "image", field_of(path, number, entry, "image"))
        text = text_of(path, number, "question", field_of(path, number, entry, "question"))
        given = field_of(path, number, entry, "answers") if scored else []
        answers = texts_of(path, number, "answers", given)
        id = Path(image).stem or number
        questions.append(make_question(id, image, text, answers, scored=scored))
    return questions


def _scienceqa(files: Files) -> list[Question]:
    """An object: number -> question, choices, answer (index), hint, image (or null), split. Those with an
    image; its file is <split>/<number>/image.png, perhaps in a folder `images`."""
    path = files.find("problems.json")
    base = "images/" if (files.folder / "images" / files.split).is_dir() else ""
    questions = []
    for id, entry in _entries(path):
        values = {
            key: field_of(path, id, entry, key)
            for key in ("question", "choices", "answer", "hint", "image", "split")
        }
        if values["split"] != files.split or values["image"] is None:
            continue
        choices = texts_of(path, id, "choices", values["choices"])
        answers, defect = choices_answer(choices, values["answer"])
        image = text_of(path, id, "image", values["image"])
        questions.append(
            make_question(
                id,
                f"{base}{files.split}/{id}/{image}" if image else "",
                text_of(path, id, "question", values["question"]),
                answers,
                {"choices": tuple(choices), "hint": text_of(path, id, "hint", values["hint"] or "")},
                defect=defect,
            )
        )
    return questions


def _textvqa(files: Files) -> list[Question]:
    """Questions and answers in one file, OCR tokens (Rosetta, as LLaVA-1.5 was evaluated) in another."""
    path = files.find("TextVQA_0.5.1_val.json")
    tokens: dict[str, tuple[str, ...]] = {}
    if files.ocr:
        file = files.find("TextVQA_Rosetta_OCR_v0.2_val.json")
        for number, entry in enumerate(_list(file, "data")):
            image = id_of(file, number, field_of(file, number, entry, "image_id"))
            texts = texts_of(file, number, "OCR tokens", field_of(file, number, entry, "ocr_tokens"))
            tokens[image] = tuple(texts)
    questions = []
    for number, entry in enumerate(_list(path, "data")):
        id = id_of(path, number, field_of(path, number, entry, "question_id"))
        image = text_of(path, number, "image_id", field_of(path, number, entry, "image_id"))
        text = text_of(path, number, "question", field_of(path, number, entry, "question"))
        answers = texts_of(path, number, "answers", field_of(path, number, entry, "answers"))
        extra = {"ocr_tokens": tokens.get(image, ())}
        questions.append(make_question(id, f"{image}.jpg" if image else "", text, answers, extra))
    return questions


def _mme(files: Files) -> list[Question]:
    """A folder per category, in which <image>.txt holds two lines: question, tab, answer. Images beside
    the texts, or both in folders `images` and `questions_answers_YN`."""
    categories = (*PERCEPTION, *COGNITION)
    parts = [name.split("/") for name in walk(files.folder, depth=5)]
    roots = {tuple(path[:at]) for path in parts for at, part in enumerate(path[:-1]) if part in categories}
    root = files.folder.joinpath(*min(roots, key=lambda path: (len(path), path), default=()))
    questions = []
    for category in categories:
        folder = root / category
        texts, images = folder / "questions_answers_YN", folder / "images"
        if not texts.is_dir():
            texts = images = folder
        known: dict[str, Path] = {}
        for name in map(Path, walk(images, depth=1) if images.is_dir() else ()):
            if (
                name.suffix.lower() in suffixes()
                and (other := known.setdefault(name.stem, images / name)).name != name.name
            ):
                raise DataError(f"{images} holds {other.name} and {name}; remove one")
        for path in sorted(path for path in texts.glob("*.txt") if not ignored(path.name)):
            image = known.get(path.stem)
            if image is None and "\t" not in (content := read_text(path)):
                say(f"{path} is not read: it has neither an image nor questions ({content[:30]!r})")
                continue
            shown = "" if image is None else image.relative_to(files.folder).as_posix()
            for number, (text, answer) in enumerate(_lines(path)):
                id = f"{category}/{path.stem} {number}"
                questions.append(make_question(id, shown, text, [answer], {"category": category}))
    if not questions:
        raise DataError(
            f"{files.folder} holds no <category>/<image>.txt with the questions of MME ({PERCEPTION[0]}, "
            f"{PERCEPTION[1]}, ...); give its folder MME_Benchmark_release_version"
        )
    return questions


_READERS: dict[str, Callable[[Files], list[Question]]] = {
    "vqav2": _vqav2,
    "gqa": _gqa,
    "vizwiz": _vizwiz,
    "scienceqa": _scienceqa,
    "textvqa": _textvqa,
    "mme": _mme,
}


def _list(path: File, key: str | None = None) -> list[Any]:
    """The entries of a file: a list, or the list `key` of an object."""
    entries = read_json(path)
    if key is not None:
        entries = entries.get(key) if isinstance(entries, dict) else None
    if not isinstance(entries, list):
        raise damaged(path, "expected a list" if key is None else f'expected an object with the list "{key}"')
    return entries


def _entries(path: File) -> list[tuple[str, Any]]:
    """The entries of a file that is one object."""
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise damaged(path, "expected an object of questions by their ids")
    return list(entries.items())


def _lines(path: Path) -> list[tuple[str, str]]:
    """Question and answer of every line of a file of MME."""
    pairs = []
    for number, line in enumerate(line for line in read_text(path).split("\n") if line.strip()):
        text, tab, answer = line.rpartition("\t")
        if not tab or answer.strip().lower() not in ("yes", "no"):
            raise damaged(path, f"line {number + 1} is not a question, a tab, and yes or no")
        pairs.append((text.strip(), answer.strip()))
    return pairs
