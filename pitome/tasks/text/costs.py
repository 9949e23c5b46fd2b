"""LengthCost of BERT-like encoders from their configuration alone, as a function of sentence length.

Two conventions: ours counts every matrix product where it happens (`closed_form`), the authors'
is what the PiToMe repository reports (`authors_macs`). No model is built.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pitome.config import CONF, load_model
from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.costs import Architecture, LayerCost, authors_macs, closed_form
from pitome.merge.schedule import build_schedule
from pitome.sources.yaml_files import read_yaml

PAPER_LAYERS: str = read_yaml(CONF / "task" / "text.yaml")["layers"]  # as the paper merges texts
LIMIT = 512  # position embeddings of every encoder below, so its longest input

LengthCost = Callable[[int], int]  # tokens of one sentence -> multiply-accumulates


@dataclass(frozen=True)
class TextEncoder:
    """A BERT-like classifier: after its layers one dense layer of `width` on the class token, and the
    classifier."""

    depth: int  # layers
    width: int
    heads: int
    intermediate: int  # width of the MLP
    family: str = "bert"  # the adapter's name of it, bert or distilbert

    def architecture(self, tokens: int, classes: int = 2) -> Architecture:
        """What a closed form needs for one sentence of `tokens` ([CLS] and [SEP] counted).

        Embeddings are looked up and cost nothing. Raises UsageError for a length outside
        1 to 512.
        """
        if not 1 <= tokens <= LIMIT:
            raise UsageError(f"a sentence of {tokens} tokens does not fit; give 1 to {LIMIT}")
        layer = LayerCost(
            attn_token=4 * self.width**2,
            attn_pair=2 * self.width,
            mlp_token=2 * self.width * self.intermediate,
            metric_dim=self.width // self.heads,
            hidden_dim=self.width,
            heads=self.heads,
        )
        return Architecture(
            tokens=tokens,
            protected=1,
            layers=(layer,) * self.depth,
            stem=0,
            head=self.width**2 + self.width * classes,
            patches=tokens,
            classes=classes,
            patch_inputs=0,
            family=self.family,
        )


@functools.cache
def encoder(name: str) -> TextEncoder:
    """The sizes of a text model of conf/model. Raises UsageError for another name."""
    model = load_model(name)
    if model.task != "text":
        raise UsageError(f"model={name} is for task={model.task}, not for texts")
    args = model.args
    return TextEncoder(
        args["num_hidden_layers"],
        args["hidden_size"],
        args["num_attention_heads"],
        args["hidden_dim" if model.arch == "distilbert" else "intermediate_size"],
        model.arch,
    )


def our_cost(model: TextEncoder, method: str, ratio: float, layers: str = PAPER_LAYERS) -> LengthCost:
    """MACs by our count: attention at the tokens that enter a layer, MLP at those that leave it,
    the method's own plan, and the head. `method` is a registered name; `none` costs the whole."""
    entry = registry.get(method)
    schedule = build_schedule(model.depth, ratio=ratio, layers=layers)
    options = entry.resolve(entry.build_options({}), model.family, model.depth)
    return lambda tokens: closed_form(model.architecture(tokens), schedule, entry, options).macs


def authors_cost(
    model: TextEncoder, method: str, ratio: float, layers: str = PAPER_LAYERS, counted_as: str | None = None
) -> LengthCost:
    """MACs as the PiToMe repository reports them (`authors_macs`): the encoder's layers alone.

    `method` names the row of their convention (`dct` differs on DistilBERT), `counted_as` the
    registered method that removes as many tokens (None: the same). Their number for a data set is
    the mean over batches, each at its padded length (tasks/tc/engine.py:285 and :294 at 550b5de),
    so `tokens` is that length.
    """
    entry = registry.get(counted_as or method)
    schedule = build_schedule(model.depth, ratio=ratio, layers=layers)

    def cost(tokens: int) -> int:
        counts = [tokens]
        for layer in range(model.depth):
            n = counts[-1]
            counts.append(n - schedule.remove(layer, n, 1, entry.count, entry.limit))
        return authors_macs(model.architecture(tokens), counts, method)

    return cost


def mean_share(lengths: Mapping[int, int], merged: LengthCost, unmerged: LengthCost) -> float:
    """Share of the unmerged cost over a data set: both costs summed over its sentences.

    `lengths`: tokens -> number of sentences. Raises UsageError without a sentence.
    """
    if sum(lengths.values()) == 0:
        raise UsageError("no sentence to average over; give lengths with their counts")
    return sum(n * merged(t) for t, n in lengths.items()) / sum(n * unmerged(t) for t, n in lengths.items())


def padded_lengths(lengths: Mapping[int, int], batch_size: int) -> dict[int, int]:
    """Padded length -> number of batches that have it, among all possible batches of `batch_size`.

    `lengths`: tokens -> number of sentences. A batch is as long as its longest sentence, so this
    is the distribution for sentences in random order. Raises UsageError for a batch that is empty
    or larger than the data set.
    """
    total = sum(lengths.values())
    if not 1 <= batch_size <= total:
        raise UsageError(f"batch_size={batch_size} does not fit {total} sentences; give 1 to {total}")
    batches, seen = {}, 0
    for tokens in sorted(lengths):
        before, seen = math.comb(seen, batch_size), seen + lengths[tokens]
        if (count := math.comb(seen, batch_size) - before) > 0:
            batches[tokens] = count
    return batches
