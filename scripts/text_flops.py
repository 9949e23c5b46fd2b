"""The FLOPs of merging in text models beside the paper's: python scripts/text_flops.py

Writes docs/text_flops.md and docs/text_flops.png from scripts/text_flops.yaml (what the paper prints)
and scripts/text_lengths.yaml (lengths of a real data set). No model is run.

With --lengths TOKENIZER_FOLDER: measures the lengths again first, with that tokenizer.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.errors import PitomeError, UsageError
from pitome.tasks.text.costs import (
    LIMIT,
    Cost,
    authors_cost,
    encoder,
    excluded,
    lengths_giving,
    mean_share,
    mix_giving,
    our_cost,
    padded_lengths,
)

ROOT = Path(__file__).parent.parent
PRINTED = ROOT / "scripts" / "text_flops.yaml"
LENGTHS = ROOT / "scripts" / "text_lengths.yaml"
PAGE = ROOT / "docs" / "text_flops.md"
FIGURE = ROOT / "docs" / "text_flops.png"

TITLES = {
    "bert_base": "BERT-base",
    "bert_large": "BERT-large",
    "distilbert": "DistilBERT",
    "minilm": "MiniLM-L6",
}
ALL_LENGTHS = range(3, LIMIT + 1)  # [CLS], one word, [SEP], up to the longest input
SHOWN = (16, 32, 128, LIMIT)
BATCH = 32  # the authors' batch size (tasks/tc/engine.py:58-62 at 550b5de)


@dataclass(frozen=True)
class Row:
    """One method on one model and data set: its printed speed-ups, one per ratio."""

    model: str
    data: str
    method: str
    printed: tuple[str, ...]


class Costs:
    """Every cost curve of the page, by convention."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.methods = table["methods"]

    def authors(self, model: str, method: str, ratio: float) -> tuple[Cost, Cost]:
        """(merged, unmerged) in the authors' convention."""
        entry = self.methods[method]
        merged, unmerged = (
            authors_cost(encoder(model), entry["repo"], q, counted_as=entry.get("counted_as"))
            for q in (ratio, 1.0)
        )
        return merged, unmerged

    def ours(self, model: str, method: str, ratio: float) -> tuple[Cost, Cost]:
        """(merged, unmerged) by our count, of a method this project has."""
        merged = our_cost(encoder(model), self.methods[method]["ours"], ratio)
        return merged, our_cost(encoder(model), "none", 1.0)


def speedups(pair: tuple[Cost, Cost], lengths: Iterable[int] = ALL_LENGTHS) -> dict[int, float]:
    """Tokens -> unmerged / merged."""
    merged, unmerged = pair
    return {n: unmerged(n) / merged(n) for n in lengths}


def rows(table: dict[str, Any]) -> list[Row]:
    """Table 10, in the paper's order."""
    return [
        Row(block["model"], block["data"], method, tuple(printed))
        for block in table["table_10"]
        for method, printed in block["rows"].items()
    ]


def span(lengths: Sequence[int]) -> str:
    """Lengths in short: `281-409 (54)` are 54 lengths, tokens being whole."""
    if not lengths:
        return "none"
    if len(lengths) == 1:
        return str(lengths[0])
    return f"{lengths[0]}-{lengths[-1]} ({len(lengths)})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    body = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def groups(table: dict[str, Any]) -> dict[Row, list[str]]:
    """Rows of Table 10 whose printed values and computed curves are equal: the first -> all methods."""
    found: dict[tuple[Any, ...], tuple[Row, list[str]]] = {}
    for row in rows(table):
        entry = table["methods"][row.method]
        # ToMe and ToFu count alike; DCT counts as PiToMe does but has a convention of its own.
        alike = "tome_repo" if entry["repo"] == "tofu_repo" else entry["repo"]
        _, methods = found.setdefault((row.model, row.data, row.printed, alike), (row, []))
        methods.append(row.method)
    return dict(found.values())


def mixture(printed: Sequence[str], curves: Sequence[dict[int, float]]) -> str:
    """What a mixture of lengths would need to give all printed values."""
    mix = mix_giving(printed, curves)
    if mix is None:
        return "none" if excluded(printed, curves) else "none of two lengths"
    shorter = [{n: x for n, x in curve.items() if n < mix.long} for curve in curves]
    # Of two lengths this is the least; that no mixture of more needs less has to be shown.
    need = f"needs {mix.long} or longer, " if excluded(printed, shorter) else ""
    return f"{need}e.g. {mix.short} and {mix.long} ({mix.weight:.0%} of the unmerged cost at {mix.short})"


def summary(table: dict[str, Any], costs: Costs) -> str:
    """One line per set of equal rows: which lengths explain them, and what the longest gives."""
    lines = []
    for row, methods in groups(table).items():
        curves = [speedups(costs.authors(row.model, row.method, q)) for q in table["ratios"]]
        given = [lengths_giving(p, c) for p, c in zip(row.printed, curves, strict=True)]
        last = [curve[LIMIT] for curve in curves]
        lines.append(
            [
                TITLES[row.model],
                row.data,
                ", ".join(methods),
                " / ".join(row.printed),
                " / ".join(map(span, given)),
                span(sorted(set.intersection(*map(set, given)))),
                mixture(row.printed, curves),
                " / ".join(f"{x:.2f}" for x in last),
                " / ".join(f"{float(p) / x:.3f}" for p, x in zip(row.printed, last, strict=True)),
            ]
        )
    header = [
        "model",
        "data",
        "methods",
        "printed x",
        "lengths that give each",
        "one length for all",
        "a mixture for all",
        f"computed x at {LIMIT}",
        "printed / computed",
    ]
    return markdown(header, lines)


def our_table(table: dict[str, Any], costs: Costs) -> str:
    """PiToMe's printed values against our count."""
    lines = []
    for row in rows(table):
        if row.method != "PiToMe":
            continue
        for ratio, printed in zip(table["ratios"], row.printed, strict=True):
            curve = speedups(costs.ours(row.model, row.method, ratio))
            at = [f"{curve[n]:.2f}" for n in SHOWN]
            given = span(lengths_giving(printed, curve))
            lines.append([TITLES[row.model], row.data, str(ratio), printed, given, *at])
    header = ["model", "data", "ratio", "printed x", "lengths", *(f"at {n}" for n in SHOWN)]
    return markdown(header, lines)


def spread(table: dict[str, Any], costs: Costs) -> float:
    """The largest difference in speed-up, by our count, between two methods at a shown length."""
    names = [name for name, entry in table["methods"].items() if entry["ours"] is not None]
    largest = 0.0
    for model in sorted({row.model for row in rows(table)}):
        for ratio in table["ratios"]:
            curves = [speedups(costs.ours(model, name, ratio), SHOWN) for name in names]
            for n in SHOWN:
                values = [curve[n] for curve in curves]
                largest = max(largest, max(values) - min(values))
    return largest


def table_6(table: dict[str, Any], costs: Costs) -> str:
    """The one-digit values of Table 6."""
    lines = []
    for cell in table["table_6"]:
        for method in ("PiToMe", "ToMe"):
            printed, ratio = cell["merged"], table["ratios"][0]
            theirs = speedups(costs.authors(cell["model"], method, ratio))
            ours = speedups(costs.ours(cell["model"], method, ratio))
            given = [span(lengths_giving(printed, curve)) for curve in (theirs, ours)]
            lines.append([cell["data"], method, printed, *given])
    return markdown(["data", "method", "printed x", "tokens, authors' count", "tokens, our count"], lines)


def data_set(table: dict[str, Any], costs: Costs, lengths: dict[int, int]) -> str:
    """Mean cost over the sentences of a data set, beside the printed values for SST-2."""
    padded = padded_lengths(lengths, BATCH)
    lines = []
    for row in rows(table):
        if row.data != "SST-2" or row.method not in ("PiToMe", "ToMe", "DCT"):
            continue
        for ratio, printed in zip(table["ratios"], row.printed, strict=True):
            theirs = costs.authors(row.model, row.method, ratio)
            known = table["methods"][row.method]["ours"] is not None
            share = mean_share(lengths, *costs.ours(row.model, row.method, ratio)) if known else None
            lines.append(
                [
                    TITLES[row.model],
                    row.method,
                    str(ratio),
                    "-" if share is None else f"{share:.1%} (x{1 / share:.2f})",
                    f"x{1 / mean_share(lengths, *theirs):.2f}",
                    f"x{1 / mean_share(padded, *theirs):.2f}",
                    f"x{printed}",
                ]
            )
    header = [
        "model",
        "method",
        "ratio",
        "our count, own lengths",
        "authors' count, own lengths",
        f"authors' count, random batches of {BATCH}",
        "printed for SST-2",
    ]
    return markdown(header, lines)


def fixed_lengths(costs: Costs) -> str:
    """PiToMe at 0.8 in the first three layers, all encoders."""
    at = (16, 32, 64, 128, 256, 512)
    lines = []
    for model, title in TITLES.items():
        merged, unmerged = costs.ours(model, "PiToMe", 0.8)
        theirs, base = costs.authors(model, "PiToMe", 0.8)
        lines.append([title, "unmerged, GMACs", *(f"{unmerged(n) / 1e9:.3f}" for n in at)])
        lines.append([title, "share, our count", *(f"{merged(n) / unmerged(n):.1%}" for n in at)])
        lines.append([title, "share, authors' count", *(f"{theirs(n) / base(n):.1%}" for n in at)])
    return markdown(["model", "", *map(str, at)], lines)


def least_length(table: dict[str, Any], costs: Costs, model: str, data: str) -> int:
    """Inputs have to be this long for a mixture to give a method's values; the least of all methods."""
    found = []
    for row in groups(table):
        curves = [speedups(costs.authors(row.model, row.method, q)) for q in table["ratios"]]
        if (row.model, row.data) == (model, data) and (mix := mix_giving(row.printed, curves)):
            found.append(mix.long)
    return min(found)


def page(table: dict[str, Any], measured: dict[str, Any]) -> str:
    """docs/text_flops.md."""
    costs, lengths = Costs(table), measured["tokens"]
    total = sum(lengths.values())
    mean = sum(n * count for n, count in lengths.items()) / total
    longest = least_length(table, costs, "bert_base", "SST-2")
    return f"""\
<!-- Written by scripts/text_flops.py; change that, not this. -->
# Text: what merging saves, and what the paper prints

Merging removes a share of the tokens in the first three layers, so what it saves depends on how long a
sentence is: in short ones rounding leaves more tokens, in long ones the attention product shrinks as well.
The paper prints one speed-up in FLOPs per model, data set and ratio (Tables 6 and 10) and no length. Here
the speed-up is computed from the architecture for every length from {ALL_LENGTHS[0]} to {LIMIT} tokens
([CLS] and [SEP] counted), and each printed value is looked up in that curve. **Printed** values are the
paper's; everything else is computed here, no model was run. A speed-up is taken as relative to the same
model unmerged.

- **Authors' count**: what their repository reports (hchautran/PiToMe at 550b5de). Per layer
  12 N C^2 + 2 N^2 C with N the tokens that *leave* it, although attention runs on those that enter; DCT on
  DistilBERT with those that enter. PiToMe takes its share of all tokens but [CLS], ToMe and ToFu of all.
  Neither the merging itself nor the classifier is in it. The repository's number for a data set is a mean
  over batches at their padded lengths.
- **Our count**: attention at the tokens that enter a layer, the MLP at those that leave it, the merging
  itself and the classifier; one sentence at its own length, no padding.

![Share of the unmerged cost against sentence length](text_flops.png)

The figure has the printed values of PiToMe. The curves are jagged because tokens are whole.

## Which lengths would explain Table 10, by the authors' count

Values for the ratios 0.8 / 0.75 / 0.7. A length explains a printed value if the speed-up computed for it
rounds to that value; `281-409 (54)` are 54 lengths between 281 and 409 tokens. A mean over a data set is a
mixture of lengths. "None" for a mixture means that no data set of sentences up to {LIMIT} tokens gives the
three values, whatever its lengths.

{summary(table, costs)}

What this says:

- **BERT-base, SST-2.** The values of ToMe, ToFu, DiffRate and PiToMe belong to inputs of several hundred
  tokens: no data set without inputs of {longest} tokens or more gives the three of any of them. SST-2
  consists of single sentences; those of Rotten Tomatoes, below, end at {max(lengths)} tokens and come out
  lower.
- **DistilBERT, SST-2.** The values of ToMe and ToFu belong to short inputs, as sentences are. Those of
  PiToMe and DiffRate have short lengths one by one, but no mixture for all three: the repository's PiToMe
  leaves more tokens than its ToMe at many of the lengths below 64, and the printed values are the same. For
  one data set, the two models' values belong to different lengths.
- **BERT-base, IMDb.** At {LIMIT} tokens, where reviews are cut off, the computed values are within about 1 %
  of the printed ones. Only those at ratio 0.8 are reached (not ToFu's 1.92); at 0.75 and 0.7 the printed
  ones lie above every length.
- **DistilBERT, IMDb.** The printed values lie above every length: 2 to 3 % above those at {LIMIT} tokens,
  in nearly the same proportion at all three ratios, and DCT's by more.
- **DCT.** On DistilBERT with SST-2 its values at 0.75 and 0.7 equal those of the other methods at 0.8 and
  0.75. No data set gives its three values in any of the four blocks.

All of this takes merged and unmerged cost over the same inputs. The repository runs IMDb unmerged in batches
of 12 and merged in batches of 32 (tasks/tc/engine.py:124), which pads the unmerged runs less; that lowers a
speed-up.

## Table 6

Ratio 0.8 on BERT, one digit, the same for all merging methods; Table 10 has 1.81 for DCT on SST-2 in the
same setting. DistilBERT unmerged is printed as x{table["table_6"][0]["distilbert"]}: it has half of
BERT-base's layers, so that holds at every length.

{table_6(table, costs)}

## Table 10 against our count

PiToMe, at the lengths that give a printed value and at four others. The other methods differ from it by at
most {spread(table, costs):.3f} at these four: by our count all of them remove as many tokens. DCT is not
among this project's methods. BERT-base does not reach a printed value at any length: attention is paid at
the tokens that enter a layer.

{our_table(table, costs)}

## A real data set

{total:,} snippets of Rotten Tomatoes ({measured["source"]}):
{min(lengths)} to {max(lengths)} tokens, mean {mean:.1f}. SST-2's sentences come from reviews of the same
site, so its printed values stand beside; the data sets are not the same. Costs are summed over sentences
(or over all possible batches, each as long as its longest sentence) before they are divided.

{data_set(table, costs, lengths)}

## PiToMe at ratio 0.8, by length

{fixed_lengths(costs)}
"""


def measure_lengths(tokenizer: str) -> dict[str, Any]:
    """Lengths of the snippets of Rotten Tomatoes under the tokenizer in a folder."""
    from transformers import AutoTokenizer

    from pitome.tasks.text.sets import package_rows

    try:
        read = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError):
        raise UsageError(f"no tokenizer in {tokenizer}; give a folder with tokenizer.json") from None
    texts, _ = package_rows("leave --lengths out")
    ids = read(texts, truncation=True, max_length=LIMIT)["input_ids"]
    return {
        "source": "vaderSentiment 3.3.2 on PyPI, WordPiece with the 30,522 words of bert-base-uncased",
        "tokens": dict(sorted(Counter(map(len, ids)).items())),
    }


def main(arguments: list[str]) -> int:
    """Write the page and its figure. Returns the exit code."""
    try:
        if arguments and (len(arguments) != 2 or arguments[0] != "--lengths"):
            raise UsageError("give nothing, or --lengths and the folder of a tokenizer")
        if arguments:
            measured = measure_lengths(arguments[1])
            LENGTHS.write_text(yaml.safe_dump(measured, sort_keys=False))
        table, measured = (yaml.safe_load(path.read_text()) for path in (PRINTED, LENGTHS))
        from scripts.text_flops_plot import draw  # takes matplotlib

        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(table, measured))
        draw(table, Costs(table), measured["tokens"]).savefig(FIGURE, dpi=150)
    except PitomeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(PAGE, FIGURE, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
