"""Prompts and metrics of every set, on examples worked by hand."""

import random

import pytest
from omegaconf import OmegaConf

from pitome.config import CONF
from pitome.errors import UsageError
from pitome.tasks.vqa.benchmarks import BENCHMARKS, COGNITION, PERCEPTION, check_options, mme_points
from pitome.tasks.vqa.questions import Question, make_question

SHORT = "\nAnswer the question using a single word or phrase."
TEN = ("cat",) * 2 + ("Dog",) * 8


def question(text="What is IT?", answers=(), **extra):
    return Question("7", "image", text, tuple(answers), extra)


@pytest.mark.parametrize(
    ("name", "asked", "prompt"),
    [
        ("easy_vqa", question("what is it?"), "what is it?"),
        ("vqav2", question(), f"What is IT?{SHORT}"),
        ("gqa", question(), f"What is IT?{SHORT}"),
        (
            "vizwiz",
            question(),
            "What is it?\nWhen the provided information is insufficient, respond with 'Unanswerable'."
            + SHORT,
        ),
        ("textvqa", question(), f"What is it?{SHORT}"),
        (
            "textvqa",
            question(ocr_tokens=("Open", "24h")),
            f"What is it?\nReference OCR token: Open, 24h{SHORT}",
        ),
        (
            "scienceqa",
            question(choices=("a dog", "a cat"), hint="It barks."),
            "Context: It barks.\nWhat is IT?\nA. a dog\nB. a cat"
            "\nAnswer with the option's letter from the given choices directly.",
        ),
        (
            "scienceqa",
            question(choices=("a dog",), hint=""),
            "What is IT?\nA. a dog\nAnswer with the option's letter from the given choices directly.",
        ),
        ("mme", question("Is it? Please answer yes or no.", category="OCR"), f"Is it?{SHORT}"),
    ],
)
def test_prompt(name, asked, prompt):
    assert BENCHMARKS[name].prompt(asked) == prompt


@pytest.mark.parametrize(
    ("name", "answers", "prediction", "score"),
    [
        ("easy_vqa", ["circle"], "Circle", 1),
        ("easy_vqa", ["circle"], "", 0),
        ("vqav2", TEN, "a dog.", 1),
        ("vqav2", TEN, "the cat", 0.6),
        ("vqav2", ["don't know"] * 10, "dont know", 1),
        ("gqa", ["t-shirt"], "T-shirt.", 1),
        ("gqa", ["dog"], "a dog", 0),  # articles count in an exact match
        ("vizwiz", ["unanswerable"] * 3 + ["a dog"] * 7, "Unanswerable", 0.9),
        ("vizwiz", ["the dog's"] * 10, "dog's", 1),
        ("textvqa", ["7,up"] * 10, "7up", 1),  # commas go first
        ("vqav2", ["7,up"] * 10, "7up", 0),
        ("scienceqa", ["B"], "B. a cat", 1),
        ("scienceqa", ["B"], "Z", 0),
        ("mme", ["Yes"], "yes, it is", 1),
        ("mme", ["No"], "perhaps", 0),
        ("vqav2", [], "dog", 0),
        ("scienceqa", [], "", 0),
    ],
)
def test_score(name, answers, prediction, score):
    assert BENCHMARKS[name].score(question(answers=answers), prediction) == pytest.approx(score)


def mme(scores):
    """Questions of two images a category, and the scores of their pairs."""
    questions, flat = [], []
    for category, pairs in scores.items():
        for image, pair in enumerate(pairs):
            for number, score in enumerate(pair):
                name = f"{category}/{image}"
                questions.append(Question(f"{name} {number}", name, "?", ("yes",), {"category": category}))
                flat.append(float(score))
    return questions, flat


def test_the_points_of_mme():
    questions, scores = mme({"count": [(1, 1), (1, 0)], "OCR": [(0, 0), (1, 0)]})
    # count: acc 3 of 4, acc+ 1 of 2; OCR: acc 1 of 4, acc+ none
    assert mme_points(questions, scores) == {"count": 75 + 50, "OCR": 25}
    metrics = BENCHMARKS["mme"].metrics(questions, scores)
    assert metrics == {"accuracy": 0.5}, "no sum over some of the categories"
    questions, scores = mme({name: [(1, 1), (1, 0)] for name in PERCEPTION})
    assert BENCHMARKS["mme"].metrics(questions, scores) == {"accuracy": 0.75, "perception_points": 1250}
    questions, scores = mme({name: [(1, 1)] for name in (*PERCEPTION, *COGNITION)})
    points = BENCHMARKS["mme"].metrics(questions, scores)
    assert (points["perception_points"], points["cognition_points"]) == (2000, 800)


def test_the_headline_comes_first_and_few_answers_are_reported():
    asked = [question(answers=TEN), question(answers=TEN[:9]), question(answers=["cat"]), question()]
    metrics = BENCHMARKS["vizwiz"].metrics(asked, [1.0, 0.0, 0.5, 0.0])
    assert list(metrics.items()) == [("accuracy", 0.375), ("fewer_answers", 0.75)]
    assert BENCHMARKS["gqa"].metrics(asked[:3], [1, 0, 0]) == {"accuracy": pytest.approx(1 / 3)}
    with pytest.raises(ValueError, match="no questions"):
        BENCHMARKS["gqa"].metrics([], [])


def test_submissions_hold_every_question_once_in_the_form_that_is_scored():
    asked = [Question("12", "x", "?", ()), Question("13", "y", "?", ())]
    predictions = ["A dog.", "two"]
    assert BENCHMARKS["vqav2"].submission(asked, predictions) == [
        {"question_id": 12, "answer": "dog"},
        {"question_id": 13, "answer": "2"},
    ]
    asked = [Question("VizWiz_test_00000000", "VizWiz_test_00000000.jpg", "?", ())]
    assert BENCHMARKS["vizwiz"].submission(asked, ["The dog?"]) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": "dog"}
    ]


def test_splits_and_options():
    assert check_options("vqav2", None, False) == "val" and check_options("textvqa", "val", True) == "val"
    for name, split, ocr, says in [
        ("vqav2", "vall", False, "did you mean val"),
        ("mme", "val", False, "data.split=val is not known of data=mme; available: test"),
        ("gqa", None, True, "data.ocr=true is for data=textvqa"),
        (
            "mine",
            "holdout",
            False,
            "data.split=holdout is not known of data=mine; available: test, train, val",
        ),
    ]:
        with pytest.raises(UsageError, match=says) as error:
            check_options(name, split, ocr)
        assert "\n" not in str(error.value)


def test_every_set_has_a_version_and_every_hidden_split_is_a_split():
    for name, one in BENCHMARKS.items():
        assert one.name == name and one.version >= 1 and one.max_new_tokens > 0
        assert set(one.hidden) < set(one.splits)


def test_what_is_wrong_with_a_question():
    assert make_question(1, "i", " \n", ["a"]).defect == "empty question"
    assert make_question(1, "", "q", ["a"]).defect == "no image"
    assert make_question(1, "i", "q", []).defect == "no answers"
    assert make_question(1, "i", "q", [], scored=False).defect == ""
    assert make_question(1, "i", "q", [], defect="answer 5").defect == "answer 5"


def _lmms(name):
    return pytest.importorskip(f"lmms_eval.tasks.{name}.utils")


ANSWERS = ["a dog", "Dog.", "two", "2", "John's", "yes", "unanswerable", "no, it's", "7,000", "T-shirt", ""]


@pytest.mark.parametrize(
    ("name", "function", "wrap"),
    [
        ("vqav2", "vqav2_process_results", lambda id, text: {"answer": text, "answer_id": id}),
        ("vizwiz", "vizwiz_vqa_process_results", lambda id, text: text),
        ("textvqa", "textvqa_process_results", lambda id, text: text),
    ],
)
def test_soft_accuracy_agrees_with_lmms_eval(name, function, wrap):
    theirs = getattr(_lmms({"vizwiz": "vizwiz_vqa"}.get(name, name)), function)
    source = random.Random(0)
    for _ in range(200):
        answers = source.choices(ANSWERS[:-1], k=10)
        prediction = source.choice(ANSWERS)
        doc = {"question_id": 1, "answers": [wrap(id, text) for id, text in enumerate(answers)]}
        expected = theirs(doc, [prediction])["exact_match"]
        assert BENCHMARKS[name].score(question(answers=answers), prediction) == pytest.approx(expected)


def test_options_and_mme_agree_with_lmms_eval():
    science, mme_utils = _lmms("scienceqa"), _lmms("mme")
    for text in ["A", "b", "B.", "B. x", "C", "the answer is B", "b.", "", "B) x", "BC", "Bee."]:
        expected = science.sqa_process_results({"choices": ["x", "y", "z"], "answer": 1}, [text])
        assert BENCHMARKS["scienceqa"].score(question(answers=["B"]), text) == expected["exact_match"], text
    source = random.Random(0)
    texts = ["Yes", "no", "y", "N.", "Yes, it is", "Not at all", "know", "maybe", "", "It is yes", "oh no"]
    questions, predictions = [], []
    for category in PERCEPTION:
        for image in range(5):
            for number in range(2):
                name = f"{category}/{image}"
                answer = source.choice(["Yes", "No"])
                questions.append(Question(f"{name} {number}", name, "?", (answer,), {"category": category}))
                predictions.append(source.choice(texts))
    results = [
        mme_utils.mme_process_results(
            {"answer": asked.answers[0], "category": asked.extra["category"], "question_id": asked.image},
            [text],
        )["mme_perception_score"]
        for asked, text in zip(questions, predictions, strict=True)
    ]
    own = BENCHMARKS["mme"]
    scores = [own.score(asked, text) for asked, text in zip(questions, predictions, strict=True)]
    points = own.metrics(questions, scores)["perception_points"]
    assert points == pytest.approx(mme_utils.mme_aggregate_results(results))


def test_prompts_agree_with_lmms_eval():
    science, textvqa, vizwiz, mme_utils = map(_lmms, ("scienceqa", "textvqa", "vizwiz_vqa", "mme"))
    short = {"pre_prompt": "", "post_prompt": SHORT}
    letter = "\nAnswer with the option's letter from the given choices directly."
    doc = {
        "question": "What is IT?",
        "ocr_tokens": ["Open", "24h"],
        "hint": "It barks.",
        "choices": ["x", "y"],
    }
    asked = question(choices=("x", "y"), hint="It barks.")
    expected = science.sqa_doc_to_text(doc, {"format": "default", "pre_prompt": "", "post_prompt": letter})
    assert BENCHMARKS["scienceqa"].prompt(asked) == expected
    expected = textvqa.textvqa_doc_to_text(doc, short | {"ocr": True})
    assert BENCHMARKS["textvqa"].prompt(question(ocr_tokens=("Open", "24h"))) == expected
    insufficient = "\nWhen the provided information is insufficient, respond with 'Unanswerable'." + SHORT
    expected = vizwiz.vizwiz_vqa_doc_to_text(doc, {"pre_prompt": "", "post_prompt": insufficient})
    assert BENCHMARKS["vizwiz"].prompt(question()) == expected
    doc["question"] = "Is IT? Please answer yes or no."
    assert BENCHMARKS["mme"].prompt(question(doc["question"])) == mme_utils.mme_doc_to_text(doc, short)


def test_every_set_has_a_file_in_conf_whose_commit_is_pinned():
    files = {path.stem: OmegaConf.load(path) for path in (CONF / "data").glob("*.yaml")}
    own = {name: file for name, file in files.items() if file.task == "vqa"}
    assert own.keys() == BENCHMARKS.keys()
    for name, file in own.items():
        assert file.name == name and file.split == BENCHMARKS[name].splits[0]
        assert check_options(name, file.split, bool(file.get("ocr"))) == file.split
        offline = name in ("easy_vqa", "scenes_qa")
        assert len(file.get("revision", "")) == 40 or offline, "pinned"
        assert ("package" in file.sources) is offline
