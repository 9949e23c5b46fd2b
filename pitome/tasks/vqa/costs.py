"""What a LLaVA model computes after its image tower: projector, prompt, and each token it writes.

Multiply-accumulates of one question, counted operation by operation on the meta device and by closed
forms. Only matrix products count, as in torch's FlopCounterMode; attention over n tokens counts n^2 pairs,
as it is computed, whether or not the causal mask hides half of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops


@dataclass(frozen=True)
class Decoder:
    """What a closed form needs of a Llama and of the projector before it: multiply-accumulates."""

    token: int  # of the linear layers of all layers, per token
    pair: int  # of the attention products of all layers, per pair of tokens
    head: int  # of the projection to words, for one token
    projector: int  # per image token

    def prefill(self, tokens: int) -> int:
        """A prompt of `tokens` tokens up to the first new one."""
        return tokens * self.token + tokens**2 * self.pair + self.head

    def decode(self, cached: int) -> int:
        """One more token, after `cached` tokens whose keys and values are kept."""
        return self.token + (cached + 1) * self.pair + self.head


@dataclass(frozen=True)
class Answering:
    """Cost of one question without the tower: multiply-accumulates."""

    rows: int  # of its image
    prompt: int  # its tokens, those of the image included
    projector: int
    prefill: int
    decode: int  # the first token after the prompt
    prefill_closed: int  # by `Decoder`
    decode_closed: int  # by `Decoder`


def decoder_of(model: Any) -> Decoder:
    """Of a `LlavaForConditionalGeneration`."""
    config = model.config.text_config
    linear = sum(
        part.weight.numel()
        for part in model.model.language_model.layers.modules()
        if isinstance(part, nn.Linear)
    )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Decoder(
        token=linear,
        pair=2 * config.num_attention_heads * head_dim * config.num_hidden_layers,
        head=model.lm_head.weight.numel(),
        projector=sum(
            part.weight.numel()
            for part in model.model.multi_modal_projector.modules()
            if isinstance(part, nn.Linear)
        ),
    )


def answering(model: Any, rows: int, text: int) -> Answering:
    """Cost of a prompt of `text` tokens and an image of `rows` rows, of a
    `LlavaForConditionalGeneration`."""
    form, tokens = decoder_of(model), rows + text
    twin: Any = meta_copy(model)
    config = model.config
    features = torch.empty(1, rows, config.vision_config.hidden_size * _layers(config), device="meta")
    embeds = torch.empty(1, tokens, config.text_config.hidden_size, device="meta")
    return Answering(
        rows=rows,
        prompt=tokens,
        projector=count_flops(twin.model.multi_modal_projector, features).macs,
        prefill=count_flops(_Prefill(twin), embeds).macs,
        decode=count_flops(_Decode(twin, tokens), embeds[:, :1]).macs,
        prefill_closed=form.prefill(tokens),
        decode_closed=form.decode(tokens),
    )


def _layers(config: Any) -> int:
    chosen = config.vision_feature_layer
    return 1 if isinstance(chosen, int) else len(chosen)


class _Prefill(nn.Module):
    """Embeddings [1, N, C] -> logits of the next token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.model.language_model, model.lm_head

    def forward(self, embeds: Tensor) -> Tensor:
        n = embeds.shape[1]
        # transformers looks into the numbers of a mask it makes itself.
        mask = embeds.new_empty(1, 1, n, n)
        output = self.decoder(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=torch.empty(1, n, device=embeds.device),
            use_cache=False,
        )
        logits: Tensor = self.head(output.last_hidden_state[:, -1:])
        return logits


class _Decode(nn.Module):
    """The embedding [1, 1, C] of a token after `cached` ones -> logits of the next token."""

    def __init__(self, model: Any, cached: int) -> None:
        super().__init__()
        self.decoder, self.head, self.cached = model.model.language_model, model.lm_head, cached

    def forward(self, embeds: Tensor) -> Tensor:
        from transformers import DynamicCache

        config: Any = self.decoder.config
        heads = config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kept, cache = embeds.new_empty(1, heads, self.cached, width), DynamicCache(config=config)
        for layer in range(config.num_hidden_layers):
            cache.update(kept, kept, layer)
        output = self.decoder(
            inputs_embeds=embeds,
            past_key_values=cache,
            attention_mask=embeds.new_empty(1, 1, 1, self.cached + 1),
            position_ids=torch.empty(1, 1, device=embeds.device),
            use_cache=True,
        )
        logits: Tensor = self.head(output.last_hidden_state)
        return logits
