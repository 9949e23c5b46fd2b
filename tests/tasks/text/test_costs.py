"""Cost of text encoders against sums by hand, the authors' recorded numbers and a counted model."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pitome.errors import UsageError
from pitome.tasks.text.costs import (
    LIMIT,
    TextEncoder,
    authors_cost,
    encoder,
    mean_share,
    our_cost,
    padded_lengths,
)

TINY = TextEncoder(depth=4, width=32, heads=4, intermediate=128)
TINY_DISTIL = TextEncoder(4, 32, 4, 128, "distilbert")

# Recorded by running hchautran/PiToMe at 550b5de on 4-layer models of width 32:
# (case, tokens, ratio, row of the convention, counted as, MACs).
AUTHORS = [
    ("bert_a-pitome-r800", TINY, 24, 0.8, "pitome_repo", None, 867904),
    ("bert_a-tome-r800", TINY, 24, 0.8, "tome_repo", None, 825472),
    ("bert_a-tofu-r600", TINY, 24, 0.6, "tofu_repo", None, 466560),
    ("bert_a-dct-r600", TINY, 24, 0.6, "dct", "pitome_repo", 506304),
    ("bert_nopad_a-pitome-r600", TINY, 20, 0.6, "pitome_repo", None, 438400),
    ("bert_nopad_a-tome-r600", TINY, 20, 0.6, "tome_repo", None, 385152),
    ("distilbert_a-pitome-r800", TINY_DISTIL, 23, 0.8, "pitome_repo", None, 810688),
    ("distilbert_a-tome-r600", TINY_DISTIL, 23, 0.6, "tome_repo", None, 452416),
    ("distilbert_a-dct-r600", TINY_DISTIL, 23, 0.6, "dct", "pitome_repo", 733632),
]


@pytest.mark.parametrize("case", AUTHORS, ids=[case[0] for case in AUTHORS])
def test_authors_convention_gives_their_recorded_numbers(case):
    _, model, tokens, ratio, row, counted_as, macs = case
    assert authors_cost(model, row, ratio, counted_as=counted_as)(tokens) == macs


def test_our_count_is_the_sum_of_its_parts():
    # 11 tokens at ratio 0.5 in the first of two layers: 5 of 10 go, 6 stay.
    model = TextEncoder(depth=2, width=8, heads=2, intermediate=20)
    attention = (11 + 6) * 4 * 64 + (121 + 36) * 2 * 8
    mlp = (6 + 6) * 2 * 8 * 20
    head = 64 + 8 * 2
    plan = 10 * 10 * 4
    assert our_cost(model, "pitome", 0.5, layers="first1")(11) == attention + mlp + head + plan


def test_three_layers_merge_unless_said_otherwise():
    assert our_cost(TINY, "tome", 0.8)(24) == our_cost(TINY, "tome", 0.8, "first3")(24)
    assert our_cost(TINY, "tome", 0.8)(24) > our_cost(TINY, "tome", 0.8, "first4")(24)


def build(name):
    """The classifier of transformers with the configuration of encoder(name), without weights."""
    transformers = pytest.importorskip("transformers")
    model = encoder(name)
    if model.family == "distilbert":
        config = transformers.DistilBertConfig(attn_implementation="eager")  # its defaults
        return transformers.DistilBertForSequenceClassification(config)
    config = transformers.BertConfig(
        num_hidden_layers=model.depth,
        hidden_size=model.width,
        num_attention_heads=model.heads,
        intermediate_size=model.intermediate,
        attn_implementation="eager",
    )
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("name", ["bert_base", "bert_large", "distilbert", "minilm"])
def test_the_configuration_says_what_the_model_says(name):
    with torch.device("meta"):
        model = build(name)
    from pitome.adapters.transformers import adapt

    assert encoder(name).architecture(37) == adapt(model, model.base_model).architecture(37)


@pytest.mark.parametrize("name", ["distilbert", "minilm"])
def test_unmerged_cost_equals_the_count_on_the_model(name):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(name).eval()(torch.zeros(1, 37, dtype=torch.long))
    assert counter.get_total_flops() == 2 * our_cost(encoder(name), "none", 1.0)(37)


def test_distilbert_costs_half_of_bert_by_the_authors_count():
    bert, distilbert = (authors_cost(encoder(n), "pitome_repo", 1.0) for n in ("bert_base", "distilbert"))
    assert all(bert(tokens) == 2 * distilbert(tokens) for tokens in (3, 77, LIMIT))


def test_share_of_a_data_set_is_that_of_the_summed_costs():
    costs = {10: (6, 10), 20: (30, 40)}
    share = mean_share({10: 3, 20: 1}, lambda t: costs[t][0], lambda t: costs[t][1])
    assert share == pytest.approx((3 * 6 + 30) / (3 * 10 + 40))


def test_a_batch_is_as_long_as_its_longest_sentence():
    # Of four sentences (3, 5, 5, 9 tokens) six pairs: 3+5 twice and 5+5 are 5 long, three hold 9.
    assert padded_lengths({9: 1, 3: 1, 5: 2}, 2) == {5: 3, 9: 3}
    assert padded_lengths({9: 1, 3: 1, 5: 2}, 1) == {3: 1, 5: 2, 9: 1}
    assert padded_lengths({9: 1, 3: 1, 5: 2}, 4) == {9: 1}


@pytest.mark.parametrize("tokens", [0, -1, LIMIT + 1])
def test_a_length_outside_the_encoder(tokens):
    with pytest.raises(UsageError, match=f"{tokens} tokens does not fit; give 1 to 512"):
        our_cost(TINY, "pitome", 0.8)(tokens)


def test_unknown_names_list_the_known():
    with pytest.raises(UsageError, match="did you mean bert_base"):
        encoder("bert_bas")
    with pytest.raises(UsageError, match="unknown merge method"):
        our_cost(TINY, "nothing", 0.8)


def test_nothing_to_average_over():
    with pytest.raises(UsageError, match="no sentence"):
        mean_share({}, lambda t: t, lambda t: t)
    for size in (0, 3):
        with pytest.raises(UsageError, match=f"batch_size={size} does not fit 2 sentences"):
            padded_lengths({7: 2}, size)
