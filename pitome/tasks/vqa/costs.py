"""What a LLaVA model computes after its image tower: projector, prompt, and each token it writes.

Multiply-accumulates of one question, counted operation by operation on the meta device and by closed
forms. Only matrix products count, as in torch's FlopCounterMode; attention over n tokens counts n^2 pairs,
as it is computed, whether or not the causal mask hides half of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pitome.adapters.patch import tower_patch
from pitome.adapters.place_patch import PatchedPlace
from pitome.measure.copies import meta_copy, unmerged_copy
from pitome.measure.flops import count_flops
from pitome.merge.costs import closed_form


@dataclass(frozen=True)
class Decoder:
    """What a closed form needs of a Llama and of the projector before it: multiply-accumulates."""

    depth: int  # layers, all alike
    token: int  # of the linear layers of one layer, per token
    pair: int  # of the attention products of one layer, per pair of tokens
    head: int  # of the projection to words, for one token
    projector: int  # per image token

    def prefill(self, tokens: Sequence[int]) -> int:
        """A prompt up to the first new token; tokens: entering each layer."""
        return sum(n * self.token + n**2 * self.pair for n in tokens) + self.head

    def decode(self, cached: Sequence[int]) -> int:
        """One more token; cached: tokens whose keys and values each layer keeps."""
        return sum(self.token + (n + 1) * self.pair for n in cached) + self.head


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
    method: int = 0  # what decides after the tower which tokens stay
    method_closed: int = 0


def decoder_of(model: Any) -> Decoder:
    """Of a `LlavaForConditionalGeneration`, or a model like it."""
    config = model.config.text_config
    linear = sum(
        part.weight.numel()
        for part in model.model.language_model.layers.modules()
        if isinstance(part, nn.Linear)
    )
    depth = config.num_hidden_layers
    projector = getattr(model.model, "multi_modal_projector", nn.Identity()).modules()
    return Decoder(
        depth=depth,
        token=linear // depth,
        pair=2 * config.num_attention_heads * _head_dim(config),
        head=model.lm_head.weight.numel(),
        projector=sum(part.weight.numel() for part in projector if isinstance(part, nn.Linear)),
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
        prefill_closed=form.prefill([tokens] * form.depth),
        decode_closed=form.decode([tokens] * form.depth),
    )


def answering_after_tower(
    model: Any, text: int, unmerged: Answering, tower: int, run: Callable[[int], int]
) -> Answering:
    """Cost of a prompt of `text` tokens and an image, of a `Llava` that removes tokens after its tower.

    unmerged: the same with all tokens that leave the tower; tower: multiply-accumulates of the image tower;
    run(n): those counted while an image is answered with n tokens. All are of one run, so that what stays
    and goes is what really stays and goes; closed forms stand beside them.
    """
    handles = list(model.places.values())
    for handle in handles:
        handle.counted = True
    try:
        first = run(1)
        method = sum(handles[0].macs.values())
        second = run(2)
    finally:
        for handle in handles:
            handle.counted = False
    form, counts = decoder_of(model.model), layer_tokens(model, text)
    return dataclasses.replace(
        unmerged,
        rows=model.read_rows,
        prompt=counts[0],
        prefill=first - tower - unmerged.projector - method,
        decode=second - first,
        prefill_closed=form.prefill(counts[:-1]),
        decode_closed=form.decode(counts[:-1]),
        method=method,
        method_closed=sum(_method(model, handle, counts[0]) for handle in handles),
    )


def answering_as_run(
    model: Any, text: int, encoder: int, run: Callable[..., int]
) -> tuple[Answering, Answering]:
    """Cost of a prompt of `text` tokens and an image of a `Llava`, patched or not, and of the same model
    without the patch; encoder: multiply-accumulates of image tower and projector; run(n, model): those
    counted while an image is answered with n tokens by `model`."""
    bare = cast("Any", unmerged_copy(model)) if model.places else model
    first, second = (run(tokens, bare) for tokens in (1, 2))
    form, tokens = decoder_of(model.model), model.unmerged_rows + text
    plain = Answering(
        rows=model.unmerged_rows,
        prompt=tokens,
        projector=0,
        prefill=first - encoder,
        decode=second - first,
        prefill_closed=form.prefill([tokens] * form.depth),
        decode_closed=form.decode([tokens] * form.depth),
    )
    return answering_after_tower(model, text, plain, encoder, run) if model.places else plain, plain


def layer_tokens(model: Any, text: int) -> list[int]:
    """Tokens of a prompt of `text` tokens and an image entering each layer of the language model of a
    `Llava`, then left."""
    depth, handle = model.model.config.text_config.num_hidden_layers, model.places.get("language")
    first = depth if handle is None else handle.layer
    return [text + (model.read_rows if index < first else model.left_rows) for index in range(depth)] + [
        text + model.left_rows
    ]


def _method(model: Any, handle: PatchedPlace, prompt: int) -> int:
    """Closed form of what one method computes for one image, what it reads included."""
    vision, text = model.model.config.vision_config, model.model.config.text_config
    rows = model.read_rows if handle.place == "language" else model.image_rows
    remove, needs = rows - handle.kept(rows), handle.method.needs(handle.options)
    head_dim = _head_dim(text)
    if handle.place == "language":  # the row of the prompt's last token in the layer before
        by_keys = getattr(handle.options, "metric", "hidden") == "keys"
        dim = text.num_key_value_heads * head_dim if by_keys else text.hidden_size
        read = prompt * text.num_attention_heads * head_dim if needs - {"text"} else 0
    else:  # keys are means over heads
        dim = vision.hidden_size // vision.num_attention_heads if "keys" in needs else text.hidden_size
        read = _read_in_tower(model, rows) * vision.hidden_size if "received" in needs else 0
    if remove == 0:
        return read
    mixed = 0 if handle.method.guarantees.groups else handle.kept(rows) * rows * text.hidden_size
    return read + mixed + handle.method.macs(rows, 0, dim, remove, handle.options)


def _read_in_tower(model: Any, rows: int) -> int:
    """Pairs of tokens of an image whose attention methods read in the layer of the tower: those of its class
    token or, where there is none, all. rows: of the image where nothing merges."""
    from pitome.adapters.transformers.llava import feature_entry

    if not model.tower_merges:
        return int(rows * model.model.config.vision_config.spatial_merge_size**2) ** 2
    if (handle := tower_patch(model.image_tower)) is None:
        return rows + 1
    form = closed_form(handle.architecture(), handle.schedule, handle.method, handle.options)
    return form.tokens[feature_entry(model.model.config) - 1]


def _head_dim(text_config: Any) -> int:
    """Of one head of a language model."""
    given = getattr(text_config, "head_dim", None)
    return int(given or text_config.hidden_size // text_config.num_attention_heads)


def _layers(config: Any) -> int:
    chosen = config.vision_feature_layer
    return 1 if isinstance(chosen, int) else len(chosen)


class Encoder(nn.Module):
    """Images [I, C, H, W] -> what a `Llava` reads of them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.features(images)


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
        kept = embeds.new_empty(1, heads, self.cached, _head_dim(config))
        cache = DynamicCache(config=config)
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
