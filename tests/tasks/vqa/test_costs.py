"""Cost of answering: closed forms beside what is counted."""

from __future__ import annotations

import inspect

import pytest
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pitome.tasks.vqa.costs import answering, decoder_of
from tests.tasks.vqa.tiny_llava import llava

# Older versions of transformers multiply positions and frequencies as matrices, which is counted: half of a
# head's width for each token.
ROPE = 8 if " @ " in inspect.getsource(LlamaRotaryEmbedding.forward) else 0


@pytest.mark.parametrize("rows", [16, 9])
def test_counted_is_closed_form(rows: int) -> None:
    found = answering(llava().model, rows, 12)
    assert (found.rows, found.prompt) == (rows, rows + 12)
    assert found.prefill == found.prefill_closed + ROPE * found.prompt
    assert found.decode == found.decode_closed + ROPE
    assert found.projector == rows * (16 * 32 + 32 * 32)


def test_closed_form_by_hand() -> None:
    """Two layers of width 32 with an MLP of 32: 4 + 3 squares; 40 words."""
    form = decoder_of(llava().model)
    assert (form.depth, form.token, form.pair, form.head) == (2, 7 * 32**2, 2 * 32, 40 * 32)
    assert form.decode([9, 4]) == 2 * form.token + (10 + 5) * form.pair + form.head
    assert form.prefill([9, 4]) == 13 * form.token + (81 + 16) * form.pair + form.head


def test_grouped_keys_cost_less() -> None:
    text = llava().model.config.text_config.to_dict()
    own = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    own |= {"vocab_size": text["vocab_size"], "num_key_value_heads": 1, "max_position_embeddings": 128}
    grouped = llava(text_config=own).model
    found = answering(grouped, 16, 12)
    assert found.decode == found.decode_closed + ROPE
    assert found.prefill == found.prefill_closed + ROPE * found.prompt
    assert decoder_of(grouped).token == 6 * 32**2
