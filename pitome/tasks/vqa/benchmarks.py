"""How a benchmark asks and scores: prompt, normalisation and metric, as data with a version.

Prompts and scores are those of LLaVA-1.5's evaluation (Liu et al., "Improved Baselines with Visual
Instruction Tuning", 2023) as lmms-eval runs it, through which the PiToMe authors evaluate
(scripts/eval_scripts/eval_vqa.sh of their repository). Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pitome.errors import UsageError, nearest
from pitome.tasks.vqa.answers import (
    ANSWERS,
    bare,
    evaluation_form,
    option_letter,
    soft_accuracy,
    words_apart,
    yes_or_no,
)
from pitome.tasks.vqa.questions import Question

_SHORT = "\nAnswer the question using a single word or phrase."
_LETTER = "\nAnswer with the option's letter from the given choices directly."
_UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
_YES_NO = " Please answer yes or no."  # in MME's own questions

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

Score = Callable[[Question, str], float]


@dataclass(frozen=True)
class Benchmark:
    """A set of questions as it is asked and scored."""

    name: str
    splits: tuple[str, ...]  # what `data.split` may ask for, the usual one first
    scorer: Score  # of a prediction, in [0, 1]
    version: int = 1  # raised when prompt or score change their meaning
    instruction: str = _SHORT  # what follows the question
    max_new_tokens: int = 16  # an answer's length at most
    hidden: tuple[str, ...] = ()  # splits without public answers: `submission` writes what the server scores
    annotators: int = 1  # answers of a question
    capitalised: bool = False  # the question is written with its first letter alone in upper case
    pairs: bool = False  # the questions of an image count together as well (MME)

    def prompt(self, question: Question) -> str:
        """What follows the image: context, question, options, OCR tokens and instruction."""
        text = question.text.replace(_YES_NO, "") if self.pairs else question.text
        text = text.strip()
        if self.capitalised:
            text = text.capitalize()
        if hint := question.extra.get("hint"):
            text = f"Context: {hint}\n{text}"
        for letter, choice in zip(letters(question), question.extra.get("choices", ()), strict=True):
            text += f"\n{letter}. {choice}"
        if tokens := question.extra.get("ocr_tokens"):
            text += f"\nReference OCR token: {', '.join(tokens)}"
        return text + self.instruction

    def score(self, question: Question, prediction: str) -> float:
        """How right a prediction is, in [0, 1]; 0 of a question without answers."""
        return self.scorer(question, prediction) if question.answers else 0.0

    def metrics(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """`accuracy`, the mean score in [0, 1]; `fewer_answers`, where there are such: the share of the
        questions with fewer answers than the set's annotators; of MME, `perception_points` (0 to 2,000) and
        `cognition_points` (0 to 800), sums of `mme_points`, each where all its categories are there.
        Raises ValueError for no questions."""
        if not questions:
            raise ValueError("no questions to score")
        out = {"accuracy": sum(scores) / len(scores)}
        if fewer := sum(len(question.answers) < self.annotators for question in questions):
            out["fewer_answers"] = fewer / len(questions)
        if self.pairs:
            points = mme_points(questions, scores)
            for name, categories in (("perception", PERCEPTION), ("cognition", COGNITION)):
                if points.keys() >= set(categories):
                    out[f"{name}_points"] = sum(points[category] for category in categories)
        return out

    def submission(
        self, questions: Sequence[Question], predictions: Sequence[str]
    ) -> list[dict[str, object]]:
        """The content of the JSON file that the server of VQAv2 or VizWiz scores: the id of every question
        (VizWiz: its image) and the answer in its evaluation form."""
        if self.name == "vizwiz":
            return [
                {"image": f"{question.id}.jpg", "answer": evaluation_form(words_apart(prediction))}
                for question, prediction in zip(questions, predictions, strict=True)
            ]
        return [
            {"question_id": int(question.id), "answer": evaluation_form(prediction)}
            for question, prediction in zip(questions, predictions, strict=True)
        ]


def letters(question: Question) -> list[str]:
    """The letters of a question's options, A first."""
    return [chr(ord("A") + at) for at in range(len(question.extra.get("choices", ())))]


def mme_points(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """Category -> points, 0 to 200: the percentage of questions answered right (acc) and that of images
    with both questions answered right (acc+), Fu et al., 2023, section 2.2.

    scores: 1 or 0 of every question. An image whose questions are not all there counts by what is.
    """
    images: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, score in zip(questions, scores, strict=True):
        images[question.extra["category"]][question.image].append(score)
    points = {}
    for category, groups in images.items():
        answered = [score for group in groups.values() for score in group]
        both = [float(all(score == 1 for score in group)) for group in groups.values()]
        points[category] = 100 * sum(answered) / len(answered) + 100 * sum(both) / len(both)
    return points


def _soft(question: Question, prediction: str) -> float:
    return soft_accuracy(
        evaluation_form(prediction), [evaluation_form(answer) for answer in question.answers]
    )


def _soft_apart(question: Question, prediction: str) -> float:
    answers = [evaluation_form(words_apart(answer)) for answer in question.answers]
    return soft_accuracy(evaluation_form(words_apart(prediction)), answers)


def _exact(question: Question, prediction: str) -> float:
    return float(bare(prediction) in [bare(answer) for answer in question.answers])


def _option(question: Question, prediction: str) -> float:
    return float(option_letter(prediction) in question.answers)


def _yes_no(question: Question, prediction: str) -> float:
    return float(yes_or_no(prediction) in [bare(answer) for answer in question.answers])


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("easy_vqa", ("test", "train", "validation"), _exact, instruction="", max_new_tokens=4),
        Benchmark("scenes_qa", ("test", "train", "validation"), _exact, instruction="", max_new_tokens=4),
        Benchmark("vqav2", ("val", "testdev"), _soft, hidden=("testdev",), annotators=ANSWERS),
        Benchmark("gqa", ("testdev",), _exact),
        Benchmark(
            "vizwiz",
            ("val", "test"),
            _soft_apart,
            instruction=_UNANSWERABLE + _SHORT,
            max_new_tokens=128,
            hidden=("test",),
            annotators=ANSWERS,
            capitalised=True,
        ),
        Benchmark("scienceqa", ("test", "val"), _option, instruction=_LETTER),
        Benchmark("textvqa", ("val",), _soft_apart, max_new_tokens=128, annotators=ANSWERS, capitalised=True),
        Benchmark("mme", ("test",), _yes_no, pairs=True),
    )
}


def benchmark_of(name: str, instruction: str | None = None) -> Benchmark:
    """The benchmark of `data=<name>`; of a user's own set, answers scored by how many annotators gave them,
    and asked for with `instruction`, or as short ones."""
    return BENCHMARKS.get(name) or Benchmark(
        name=name,
        version=1,
        instruction=_SHORT if instruction is None else f"\n{instruction}".rstrip(),
        max_new_tokens=16,
        splits=("test", "validation", "train"),
        scorer=_soft,
    )


def check_options(name: str, split: str | None, ocr: bool) -> str:
    """The split of a set that `data.split` asks for, the usual one for None. Raises UsageError for another
    one, and for `data.ocr` of a set without OCR tokens."""
    known = benchmark_of(name).splits
    if split is not None and split not in known:
        raise UsageError(f"data.split={split} is not known of data={name}; {nearest(str(split), known)}")
    if ocr and name != "textvqa":
        raise UsageError(f"data.ocr=true is for data=textvqa, data={name} has no OCR tokens")
    return split or known[0]
