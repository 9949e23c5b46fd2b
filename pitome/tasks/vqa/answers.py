"""Answers made comparable, and scored: the published rules, written anew. Imports no torch.

`evaluation_form` and `soft_accuracy`: Antol et al., "VQA: Visual Question Answering", ICCV 2015, and
the rules of https://visualqa.org/evaluation.html. lmms-eval's `EvalAIAnswerProcessor` follows the same
rules; the tests compare with it where it is installed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

ANSWERS = 10
"""Annotators of a question in VQAv2, VizWiz and TextVQA."""

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = ("a", "an", "the")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
# The contractions of the published list; each is recognised with one of its apostrophes missing.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _missing_one(word: str) -> list[str]:
    """`word` with each of its apostrophes left out in turn."""
    return [word[:at] + word[at + 1 :] for at, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {short: word for word in _CONTRACTED.split() for short in _missing_one(word)}
# The list has this one the other way round.
_CONTRACTIONS["somebody'd"] = "somebodyd"


def words_apart(text: str) -> str:
    """Lower case without commas and question marks, and a possessive as a word of its own: what the
    evaluation server of VizWiz and TextVQA does before everything else."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def evaluation_form(text: str) -> str:
    """An answer as VQA's evaluation compares it.

    One line; punctuation away: a mark with a space beside it somewhere, or any mark in a text with a
    comma between digits, leaves nothing, another mark leaves a space, and full stops go unless a digit
    follows; lower case; number words as digits; articles away; apostrophes of contractions back.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    digits = re.search(r"\d,+\d", text) is not None
    out = text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside or digits else " ")
    out = re.sub(r"\.(?!\d)", "", out)
    words = [_DIGITS.get(word, word) for word in out.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, given: Sequence[str]) -> float:
    """VQA's accuracy of an answer, in [0, 1]: the mean of min(n / 3, 1), where n of the annotators agree
    with it, over all ways to leave one annotator out. All of them in their evaluation form.

    Of fewer than four annotators there are not three others to agree with: min(n / others, 1), and one
    alone has to be met. Without any it is 0.
    """
    total, same = len(given), list(given).count(answer)
    if total < 2:
        return float(same)
    enough = min(3, total - 1)
    left_out_agrees, left_out_differs = min((same - 1) / enough, 1.0), min(same / enough, 1.0)
    return (same * left_out_agrees + (total - same) * left_out_differs) / total


def bare(text: str) -> str:
    """Lower case without punctuation and outer spaces: what an exact match compares."""
    return text.lower().translate(str.maketrans("", "", string.punctuation)).strip()


def option_letter(text: str) -> str | None:
    """The option that an answer names as a capital letter: a letter alone, or one that opens the answer
    and is followed by a full stop; else None (Liu et al., LLaVA-1.5; lmms-eval)."""
    text = text.strip()
    if re.fullmatch(r"[A-Za-z]", text):
        return text.upper()
    return text[0] if re.match(r"[A-Z]\.", text) else None


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` as an answer says it within its first four letters, else None (Fu et al., MME)."""
    text = text.lower().strip().replace(".", "")
    if text in ("y", "n"):
        return {"y": "yes", "n": "no"}[text]
    start = text[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None
