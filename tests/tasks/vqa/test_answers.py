"""The published rules on examples worked by hand, and agreement with lmms-eval where it is installed."""

import random

import pytest

from pitome.tasks.vqa.answers import (
    bare,
    evaluation_form,
    option_letter,
    soft_accuracy,
    words_apart,
    yes_or_no,
)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Yes.", "yes"),
        ("The two dogs", "2 dogs"),
        ("none", "0"),
        ("an apple", "apple"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),  # both apostrophes missing: not on the list
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),  # as listed
        ("shes", "shes"),  # not on the list
        ("1,000", "1000"),
        ("in 1,000-2,000 years", "in 10002000 years"),  # a comma between digits: all marks leave nothing
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("New-York, USA", "new york usa"),
        ("left-right - left-right", "leftright leftright"),  # one mark with a space: all of its kind go
        ("5.5", "5.5"),
        ("No. 5.", "no 5"),
        (" a\tb\nthe c ", "b c"),
        ("", ""),
        ("the", ""),
        ("ÄPFEL", "äpfel"),
    ],
)
def test_evaluation_form(text, form):
    assert evaluation_form(text) == form


def test_what_the_server_of_vizwiz_and_textvqa_does_first():
    assert words_apart(" John's cat, really? ") == "john 's cat really"


@pytest.mark.parametrize(("same", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_of_ten_annotators(same, accuracy):
    given = ["yes"] * same + ["no"] * (10 - same)
    assert soft_accuracy("yes", given) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("same", "total", "accuracy"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (0, 1, 0),
        (2, 2, 1),  # of one other annotator, one
        (1, 2, 0.5),  # left out: 0 of 1; the other left out: 1 of 1
        (2, 3, 2 / 3),  # (2 * 1/2 + 1 * 1) / 3
        (4, 4, 1),
        (2, 5, (2 * 1 / 3 + 3 * 2 / 3) / 5),
        (5, 9, 1),
    ],
)
def test_soft_accuracy_of_fewer_annotators(same, total, accuracy):
    assert soft_accuracy("a", ["a"] * same + ["b"] * (total - same)) == pytest.approx(accuracy)


def test_an_exact_match_ignores_case_punctuation_and_outer_spaces():
    assert bare(" T-Shirt. ") == "tshirt" and bare("two dogs") == "two dogs" and bare("?") == ""


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *[("B", "B"), (" b ", "B"), ("B.", "B"), ("B. a dog", "B"), ("B) a dog", None), ("b. a dog", None)],
        *[("the answer is B", None), ("", None), ("Because", None), ("É", None)],
    ],
)
def test_option_letter(text, letter):
    assert option_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *[("Yes", "yes"), ("no.", "no"), ("Y", "yes"), ("n", "no"), ("Yes, it is", "yes"), ("Not", "no")],
        *[("It is: yes", None), ("maybe", None), ("", None), ("  Yes", "yes")],
    ],
)
def test_yes_or_no(text, answer):
    assert yes_or_no(text) == answer


WORDS = """
a the an one Two none zero it's its dont can't couldntve couldn'tve y'all yall'd've Im dog's 1,000 3.5 U.S.
no. hi! what? a/b a / b (c) [d] x-ray @home 5,5, ow's'at somebody'd lets shes 'twas +1 $5 é
"""


def test_agrees_with_lmms_eval():
    metric = pytest.importorskip("lmms_eval.tasks._task_utils.vqa_eval_metric")
    theirs = metric.EvalAIAnswerProcessor()
    source, words = random.Random(0), [*WORDS.split(), "\n", "\t"]
    texts = [*theirs.CONTRACTIONS, *theirs.CONTRACTIONS.values()]
    texts += [" ".join(source.choices(words, k=source.randint(1, 6))) for _ in range(2000)]
    for text in texts:
        flat = text.replace("\n", " ").replace("\t", " ").strip()
        assert evaluation_form(text) == theirs.process_digit_article(theirs.process_punctuation(flat)), text
        assert evaluation_form(words_apart(text)) == theirs(text), text
