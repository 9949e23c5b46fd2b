"""Visual question answering: questions, their images, and how they are asked and scored.

A sample that cannot be asked (no image, an image that cannot be read, an empty question, no answer) stays
among the questions: it is scored wrong, so that every run has the same denominator, and is counted and
named in `DataInfo`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pitome.config import DataConfig
from pitome.errors import Unreadable
from pitome.sources.cache import digest, limit_bytes
from pitome.sources.images import DEFAULT, ImageRules
from pitome.tasks.data import DataInfo, Preprocess, permuted_selection
from pitome.tasks.images import prepare, prepared_bytes, prepared_images
from pitome.tasks.vqa.benchmarks import BENCHMARKS, Benchmark, benchmark_of, check_options
from pitome.tasks.vqa.easy_vqa import easy_vqa_questions
from pitome.tasks.vqa.files import custom_questions, file_questions
from pitome.tasks.vqa.questions import Question, Questions, Sight
from pitome.tasks.vqa.scenes_qa import scenes_qa_questions

__all__ = ["Question", "VqaData", "build_vqa"]


class VqaInfo(DataInfo):
    """`skipped`: samples that could not be asked; they are scored, as wrong."""

    @property
    def n_samples(self) -> int:
        return self.n_selected


class VqaData:
    """The questions of one split, those that `limit` left.

    info: where they came from and which of them cannot be asked: those with a defect at once, those whose
    image cannot be read once `image` has been called; benchmark: prompt, score and metrics.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        whole: Questions,
        info: DataInfo,
        rows: Sequence[int],
        *,
        ocr: bool = False,
        rules: ImageRules = DEFAULT,
    ) -> None:
        """rows: of `found`, in order; ocr: the questions come with OCR tokens; rules: how images are read."""
        self.benchmark, self.info = benchmark, info
        self.questions: Sequence[Question] = [whole.questions[row] for row in rows]
        self._whole, self._ocr, self._rules = whole, ocr, rules
        self._reasons: dict[str, str] = {}
        self._rows = {question.id: row for question, row in zip(self.questions, rows, strict=True)}
        for question in self.questions:
            if question.defect:
                self.skip(question, question.defect)

    @property
    def scored(self) -> bool:
        """Whether the answers are public; if not, `benchmark.submission` is what a run can give."""
        return self.info.split not in self.benchmark.hidden

    @property
    def settings(self) -> dict[str, Any]:
        """What prompts and scores depend on, for the identity of a run."""
        settings = {"benchmark": f"{self.benchmark.name} {self.benchmark.version}"}
        if self.benchmark.name not in BENCHMARKS:
            settings["instruction"] = self.benchmark.instruction
        return settings | ({"ocr": True} if self._ocr else {})

    def image(self, question: Question) -> Image.Image | None:
        """The image of a question in mode RGB; None if it cannot be asked, which `info` then names."""
        if not question.defect:
            try:
                return self._whole.read(question)
            except Unreadable as problem:
                self.skip(question, str(problem))
        return None

    def prepared(self, preprocess: Preprocess) -> Callable[[Question], np.ndarray | None]:
        """What gives the image of a question as the model's input before it is normalised, [C, H, W] uint8;
        None as `image` does. Each is decoded once for all runs, if half of the cache holds them all."""
        shown = {question.image: question for question in self.questions if not question.defect}
        names = {name: place for place, name in enumerate(shown)}
        if 2 * prepared_bytes(len(names), preprocess) > limit_bytes():

            def decode(question: Question) -> np.ndarray | None:
                return None if (image := self.image(question)) is None else prepare(image, preprocess)

            return decode
        first = list(shown.values())
        images, lost = prepared_images(
            lambda place: self._whole.read(first[place]),
            range(len(first)),
            preprocess,
            {
                "revision": self._whole.revision,
                "stamp": self._whole.stamp,
                "names": digest({"names": list(names)}),
                **self._rules.settings(),
            },
            title=f"{self.info.name} {self.info.split}",
        )
        good = {place: row for row, place in enumerate(p for p in range(len(first)) if p not in lost)}

        def look_up(question: Question) -> np.ndarray | None:
            if question.defect:
                return None
            place = names[question.image]
            if place in lost:
                self.skip(question, lost[place])
                return None
            return np.asarray(images[good[place]])

        return look_up

    def sights(self, question: Question) -> Sequence[Sight] | None:
        """What is seen where in the image of a question; None where it is not known."""
        return None if self._whole.sights is None else self._whole.sights(question.image)

    def skip(self, question: Question, reason: str) -> None:
        """Count and name a question that cannot be asked, e.g. after a restart that reads no image again."""
        self._reasons[question.id] = reason
        self.info.skipped[self._rows[question.id]] = f"question {question.id}: {reason}"

    def reason(self, question: Question) -> str | None:
        """Why a question cannot be asked, as far as it is known; None if it can."""
        return self._reasons.get(question.id)


def build_vqa(
    config: DataConfig, *, source: str = "auto", limit: int | None = None, split: str | None = None
) -> VqaData:
    """The questions of a file of conf/data (name, root, repository, revision, split, ocr, max_pixels, exif),
    read now.

    limit: so many questions, drawn by a permutation seeded with the name, of MME images with all their
    questions; split: instead of the configuration's. Raises UsageError for an unknown name or split and
    DataError, one line, for data that is missing or damaged.
    """
    name, ocr = config.name, config.ocr
    part = check_options(name, split or config.split, ocr)
    benchmark = benchmark_of(name, config.instruction)
    rules = ImageRules.of(config.max_pixels, config.exif)
    if name == "easy_vqa":
        whole = easy_vqa_questions(part, source=source, root=config.root, rules=rules)
    elif name == "scenes_qa":
        whole = scenes_qa_questions(part, source=source, root=config.root)
    elif name not in BENCHMARKS:
        whole = custom_questions(name, part, source=source, root=config.root, rules=rules)
    else:
        whole = file_questions(
            name,
            part,
            ocr=ocr,
            source=source,
            root=config.root,
            repository=config.repository,
            revision=config.revision,
            rules=rules,
        )
    rows = select(name, whole.questions, limit, together=benchmark.pairs)
    info = VqaInfo.of(name, whole.revision, part, whole.source, len(rows), len(whole.questions))
    return VqaData(benchmark, whole, info, rows, ocr=ocr, rules=rules)


def select(name: str, questions: Sequence[Question], limit: int | None, *, together: bool) -> list[int]:
    """Rows of `limit` questions, ascending; all if None.

    together: of images drawn whole, as many as have no more than `limit` questions, one at least.
    """
    total = len(questions)
    if not together or limit is None or limit >= total:
        return [int(row) for row in permuted_selection(name, total, limit)]
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        rows.setdefault(question.image, []).append(row)
    groups = list(rows.values())
    images = max(int(np.searchsorted(np.cumsum([len(g) for g in groups]), limit, side="right")), 1)
    return sorted(row for index in permuted_selection(name, len(groups), images) for row in groups[index])
