"""How a benchmark asks and scores: prompt, normalisation and metric, as data with a version.

Prompts and scores are those of LLaVA-1.5's evaluation (Liu et al., "Improved Baselines with Visual
Instruction Tuning", 2023) as lmms-eval runs it, which the paper's unmerged rows (Table 3) agree with.
Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pitome.data.vqa_answers import (
    bare,
    evaluation_form,
    option_letter,
    soft_accuracy,
    words_apart,
    yes_or_no,
)
from pitome.data.vqa_questions import Question
from pitome.errors import UsageError, nearest

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
    """A set of questions as it is asked and scored.

    version: raised when prompt or score change their meaning; instruction: what follows the question;
    max_new_tokens: an answer's length at most; splits: what `data.split` may ask for, the usual one first;
    scorer: the score of a prediction in [0, 1];
    capitalised: the question is written with its first letter alone in upper case; pairs: the questions
    of an image count together as well (MME).
    """

    name: str
    version: int
    instruction: str
    max_new_tokens: int
    splits: tuple[str, ...]
    scorer: Score
    capitalised: bool = False
    pairs: bool = False

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
        """`accuracy`, the mean score in [0, 1], and, of MME, `perception_points` and `cognition_points`
        (see `mme_points`), where there are questions of the kind. Raises ValueError for none."""
        if not questions:
            raise ValueError("no questions to score")
        out = {"accuracy": sum(scores) / len(scores)}
        if self.pairs:
            for name, categories in (("perception", PERCEPTION), ("cognition", COGNITION)):
                points = mme_points(questions, scores)
                own = [value for category, value in points.items() if category in categories]
                if own:
                    out[f"{name}_points"] = sum(own)
        return out


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
    for category, own in images.items():
        answered = [score for group in own.values() for score in group]
        both = [float(all(score == 1 for score in group)) for group in own.values()]
        points[category] = 100 * sum(answered) / len(answered) + 100 * sum(both) / len(both)
    return points


def _soft(question: Question, prediction: str) -> float:
    return soft_accuracy(evaluation_form(prediction), [evaluation_form(one) for one in question.answers])


def _soft_apart(question: Question, prediction: str) -> float:
    answers = [evaluation_form(words_apart(one)) for one in question.answers]
    return soft_accuracy(evaluation_form(words_apart(prediction)), answers)


def _exact(question: Question, prediction: str) -> float:
    return float(bare(prediction) in [bare(one) for one in question.answers])


def _option(question: Question, prediction: str) -> float:
    return float(option_letter(prediction) in question.answers)


def _yes_no(question: Question, prediction: str) -> float:
    return float(yes_or_no(prediction) in [bare(one) for one in question.answers])


BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark("easy_vqa", 1, "", 4, ("test", "train", "validation"), _exact),
        Benchmark("vqav2", 1, _SHORT, 16, ("val", "testdev"), _soft),
        Benchmark("gqa", 1, _SHORT, 16, ("testdev",), _exact),
        Benchmark("vizwiz", 1, _UNANSWERABLE + _SHORT, 128, ("val", "test"), _soft_apart, capitalised=True),
        Benchmark("scienceqa", 1, _LETTER, 16, ("test", "val"), _option),
        Benchmark("textvqa", 1, _SHORT, 128, ("val",), _soft_apart, capitalised=True),
        Benchmark("mme", 1, _SHORT, 16, ("test",), _yes_no, pairs=True),
    )
}


def benchmark_of(name: str) -> Benchmark:
    """The benchmark behind `data=<name>`. Raises UsageError for an unknown one."""
    if name not in BENCHMARKS:
        raise UsageError(f"unknown data {name!r}; {nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def check_split(name: str, split: str | None) -> str:
    """The split of a set that `data.split` asks for, the usual one for None. Raises UsageError."""
    known = benchmark_of(name).splits
    if split is not None and split not in known:
        raise UsageError(f"data.split={split} is not known of data={name}; {nearest(str(split), known)}")
    return split or known[0]
