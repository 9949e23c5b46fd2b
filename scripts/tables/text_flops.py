"""docs/text_flops.md: the FLOPs of merging in text models beside the paper's, by sentence length."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pitome.records.markdown import markdown_table
from pitome.tasks.text.costs import (
    LIMIT,
    LengthCost,
    authors_cost,
    encoder,
    mean_share,
    our_cost,
    padded_lengths,
)
from scripts.tables.mixtures import lengths_giving, mixture

TITLES = {
    "bert_base": "BERT-base",
    "bert_large": "BERT-large",
    "distilbert": "DistilBERT",
    "minilm": "MiniLM-L6",
}
ALL_LENGTHS = range(3, LIMIT + 1)  # [CLS], one word, [SEP], up to the longest input
SHOWN = (16, 32, 128, LIMIT)
BATCH = 32  # the authors' batch size (tasks/tc/engine.py:58-62 at 550b5de)
LENGTHS = Path(__file__).with_name("text_lengths.yaml")

Pair = tuple[LengthCost, LengthCost]
"""The cost merged and unmerged, as functions of the number of tokens."""


@dataclass(frozen=True)
class PrintedRow:
    """A method on one model and data set in Table 10."""

    model: str
    data: str
    method: str
    speedups: tuple[str, ...]  # one per ratio, with their digits

    def curves(self) -> list[dict[int, float]]:
        """Per ratio, tokens -> speed-up by the authors' count."""
        return [speedups(authors(self.model, self.method, ratio)) for ratio in printed()["ratios"]]


@functools.cache
def printed() -> dict[str, Any]:
    """What the paper prints: the content of text_flops.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return content


def lengths() -> dict[int, int]:
    """Tokens -> number of snippets of Rotten Tomatoes that have so many."""
    tokens: dict[int, int] = yaml.safe_load(LENGTHS.read_text())["tokens"]
    return tokens


def rows() -> list[PrintedRow]:
    """Table 10, in the paper's order."""
    return [
        PrintedRow(block["model"], block["data"], method, tuple(values))
        for block in printed()["table_10"]
        for method, values in block["rows"].items()
    ]


def authors(model: str, method: str, ratio: float) -> Pair:
    """By the authors' count."""
    entry = printed()["methods"][method]
    merged, unmerged = (
        authors_cost(encoder(model), entry["repo"], q, counted_as=entry.get("counted_as"))
        for q in (ratio, 1.0)
    )
    return merged, unmerged


def ours(model: str, method: str, ratio: float) -> Pair:
    """By our count, of a method this project has."""
    name = printed()["methods"][method]["ours"]
    return our_cost(encoder(model), name, ratio), our_cost(encoder(model), "none", 1.0)


def speedups(pair: Pair, at: Iterable[int] = ALL_LENGTHS) -> dict[int, float]:
    """Tokens -> unmerged / merged."""
    merged, unmerged = pair
    return {tokens: unmerged(tokens) / merged(tokens) for tokens in at}


def tables() -> dict[str, str]:
    """The tables of the page, by their names in its markers."""
    return {
        "lengths": explained(),
        "table-6": table_6(),
        "our-count": our_count(),
        "data-set": data_set(),
        "costs": costs(),
        "by-length": by_length(),
    }


def explained() -> str:
    """One line per set of equal rows of Table 10: which lengths explain them, and what the longest gives."""
    groups: dict[tuple[Any, ...], list[PrintedRow]] = defaultdict(list)
    for row in rows():
        repo = printed()["methods"][row.method]["repo"]
        # ToMe and ToFu count alike; DCT counts as PiToMe does but has a convention of its own.
        groups[row.model, row.data, row.speedups, repo.replace("tofu", "tome")].append(row)
    lines = []
    for first, *others in groups.values():
        curves = first.curves()
        given = [lengths_giving(value, curve) for value, curve in zip(first.speedups, curves, strict=True)]
        last = [curve[LIMIT] for curve in curves]
        lines.append(
            [
                TITLES[first.model],
                first.data,
                ", ".join(row.method for row in (first, *others)),
                " / ".join(first.speedups),
                " / ".join(map(span, given)),
                span(sorted(set.intersection(*map(set, given)))),
                _mixture(first.speedups, curves),
                " / ".join(f"{x:.2f}" for x in last),
                " / ".join(f"{float(value) / x:.3f}" for value, x in zip(first.speedups, last, strict=True)),
            ]
        )
    header = ["model", "data", "methods", "printed x", "lengths that give each", "one length for all"]
    header += ["a mixture for all", f"computed x at {LIMIT}", "printed / computed"]
    return markdown_table(header, lines)


def span(tokens: Sequence[int]) -> str:
    """Lengths in short: `281-409 (54)` are 54 lengths, tokens being whole."""
    if len(tokens) < 2:
        return str(tokens[0]) if tokens else "none"
    return f"{tokens[0]}-{tokens[-1]} ({len(tokens)})"


def _mixture(values: Sequence[str], curves: Sequence[dict[int, float]]) -> str:
    """The mixture of lengths that gives all printed values, with the longest length as short as can be."""
    mix = mixture(values, curves)
    if mix is None:
        return "none"
    parts = ", ".join(f"{share:.1%} at {tokens}" for tokens, share in mix.items())
    return f"needs {max(mix)} or longer, e.g. {parts}"


def table_6() -> str:
    """The one-digit values of Table 6, which are of the first ratio."""
    ratio = printed()["ratios"][0]
    lines = [
        [cell["data"], method, cell["merged"]]
        + [
            span(lengths_giving(cell["merged"], speedups(count(cell["model"], method, ratio))))
            for count in (authors, ours)
        ]
        for cell in printed()["table_6"]
        for method in ("PiToMe", "ToMe")
    ]
    return markdown_table(
        ["data", "method", "printed x", "tokens, authors' count", "tokens, our count"], lines
    )


def our_count() -> str:
    """PiToMe's printed values against our count, and how far our count of the other methods is from it."""
    others = [name for name, entry in printed()["methods"].items() if entry["ours"] and name != "PiToMe"]
    lines = []
    for row in rows():
        if row.method != "PiToMe":
            continue
        for ratio, value in zip(printed()["ratios"], row.speedups, strict=True):
            curve = speedups(ours(row.model, row.method, ratio))
            apart = max(
                abs(x - curve[n])
                for name in others
                for n, x in speedups(ours(row.model, name, ratio), SHOWN).items()
            )
            at = [f"{curve[n]:.2f}" for n in SHOWN]
            given = span(lengths_giving(value, curve))
            lines.append([TITLES[row.model], row.data, str(ratio), value, given, *at, f"{apart:.3f}"])
    header = ["model", "data", "ratio", "printed x", "lengths", *(f"at {n}" for n in SHOWN)]
    return markdown_table([*header, "other methods, by up to"], lines)


def data_set() -> str:
    """The sentences of the data set whose mean cost is computed."""
    count = sum(lengths().values())
    mean = sum(tokens * number for tokens, number in lengths().items()) / count
    header = ["snippets", "shortest, tokens", "longest", "mean"]
    return markdown_table(header, [[f"{count:,}", str(min(lengths())), str(max(lengths())), f"{mean:.1f}"]])


def costs() -> str:
    """Mean cost over these sentences, beside the printed values for SST-2."""
    single, padded = lengths(), padded_lengths(lengths(), BATCH)
    lines = []
    for row in rows():
        if row.data != "SST-2" or row.method not in ("PiToMe", "ToMe", "DCT"):
            continue
        for ratio, value in zip(printed()["ratios"], row.speedups, strict=True):
            theirs = authors(row.model, row.method, ratio)
            share = "-"
            if printed()["methods"][row.method]["ours"] is not None:
                mean = mean_share(single, *ours(row.model, row.method, ratio))
                share = f"{mean:.1%} (x{1 / mean:.2f})"
            means = [f"x{1 / mean_share(of, *theirs):.2f}" for of in (single, padded)]
            lines.append([TITLES[row.model], row.method, str(ratio), share, *means, f"x{value}"])
    header = ["model", "method", "ratio", "our count, own lengths", "authors' count, own lengths"]
    header += [f"authors' count, random batches of {BATCH}", "printed for SST-2"]
    return markdown_table(header, lines)


def by_length() -> str:
    """PiToMe at 0.8 in the first three layers, all encoders."""
    at = (16, 32, 64, 128, 256, 512)
    lines = []
    for model, title in TITLES.items():
        _, unmerged = ours(model, "PiToMe", 0.8)
        lines.append([title, "unmerged, GMACs", *(f"{unmerged(n) / 1e9:.3f}" for n in at)])
        for name, count in (("our", ours), ("authors'", authors)):
            curve = speedups(count(model, "PiToMe", 0.8), at)
            lines.append([title, f"share, {name} count", *(f"{1 / curve[n]:.1%}" for n in at)])
    return markdown_table(["model", "", *map(str, at)], lines)
