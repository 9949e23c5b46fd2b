"""Tokens taken out before one layer of a language model: it and all layers after it run on those left.

Earlier layers keep all of their keys and values; what later ones lack is noted on the cache, so that masks of
later tokens are cut to it. Positions stay as they were.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from pitome.adapters.core import Capture, _wide
from pitome.adapters.transformers.families import Family
from pitome.adapters.transformers.places import Pass, Places
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.plan import Plan, Tokens
from pitome.merge.schedule import check_layer


class LayerInputs:
    """Hook before a layer: cuts its arguments to the tokens that are left."""

    def __init__(self, places: Places, index: int, first: int) -> None:
        self.places = places
        self.index = index
        self.first = first  # the layer before which tokens go

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forward = self.places.current()
        x, rest = (args[0], args[1:]) if args else (kwargs["hidden_states"], ())
        removed, new = forward.removed, forward.image is not None
        if self.index >= self.first and removed is not None:
            _check_window(kwargs.get("past_key_values"), self.index)
        if self.index == 0 and new:
            forward.tokens = []
        if self.index < self.first or removed is None:
            self._count(x)
            return None
        if self.index == self.first and new:
            decide(self.places, forward, x)
        if removed.inner is None:
            self._count(x)
            return None
        assert removed.inner_valid is not None
        inner, valid = removed.inner.to(x.device), removed.inner_valid.to(x.device)
        if self.index == self.first and new:
            x = x.gather(1, inner[..., None].expand(-1, -1, x.shape[-1]))
        kwargs = dict(kwargs)
        if new:
            length = removed.length
            for name in ("position_embeddings", "position_ids"):
                kwargs[name] = _rows(kwargs.get(name), inner, length)
        kwargs["attention_mask"] = self._mask(forward, kwargs, inner, valid, x, new)
        self._count(x)
        if args:
            return (x, *rest), kwargs
        return (), kwargs | {"hidden_states": x}

    def _count(self, x: Tensor) -> None:
        forward = self.places.current()
        if forward.image is not None:
            forward.tokens += [x.shape[1]] * (1 + (self.index == forward.depth - 1))

    def _mask(
        self, forward: Pass, kwargs: dict[str, Any], inner: Tensor, valid: Tensor, x: Tensor, new: bool
    ) -> Any:
        mask = kwargs.get("attention_mask")
        known = forward.masks.get(id(mask))
        if known is not None and known[1] is not None and known[1].device == x.device:
            return known[1]
        removed = forward.removed
        assert removed is not None
        if mask is not None and mask.ndim == 2:  # flash attention
            cut: Any = torch.cat(
                [mask.gather(1, inner) * valid.to(mask.dtype), mask[:, removed.length :]], dim=1
            )
        else:
            cut = _cut(mask, inner, valid, removed.length, x, new, kwargs.get("past_key_values"), self.index)
        forward.masks[id(mask)] = mask, cut
        return cut


def _rows(value: Any, inner: Tensor, length: int) -> Any:
    """Positions, or their cosines and sines, of the tokens that are left."""
    if isinstance(value, tuple):
        return tuple(_rows(part, inner, length) for part in value)
    if value is None:
        return None
    axis = -2 if value.is_floating_point() else -1  # [.., N, D] or [.., N]
    whole = value.expand(*value.shape[: axis - 1], len(inner), *value.shape[axis:])
    index = inner if axis == -1 else inner[..., None].expand(-1, -1, value.shape[-1])
    return whole.gather(axis, index.expand(*whole.shape[: whole.ndim - index.ndim], *index.shape))


def _cut(
    mask: Tensor | None,
    inner: Tensor,
    valid: Tensor,
    length: int,
    x: Tensor,
    new: bool,
    cache: Any,
    layer: int,
) -> Tensor | None:
    """A mask [B, 1, Q, K] for the tokens that are left; `None` where one that is causal alone will do."""
    batch, count = inner.shape
    if mask is None:
        if bool(valid.all()):
            return None
        if not new:
            written = _cached(cache, layer) - count
            columns = torch.cat([valid, valid.new_ones(batch, written + x.shape[1])], dim=1)
            return columns[:, None, None].expand(-1, -1, x.shape[1], -1)
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        mask = causal.expand(batch, 1, -1, -1)
    extra = mask.shape[-1] - length  # columns after the prompt: of later tokens, and of a static cache
    off: Any = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    on: Any = True if mask.dtype == torch.bool else 0
    mask = mask.expand(batch, -1, -1, -1)
    if new:
        mask = mask.gather(2, inner[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    held = mask[..., :length].gather(3, inner[:, None, None].expand(-1, mask.shape[1], mask.shape[2], -1))
    held = held.masked_fill(~valid[:, None, None], off)
    if new:  # a row of padding sees itself, so that it is a number
        eye = torch.eye(count, dtype=torch.bool, device=x.device) & ~valid[:, :, None]
        held = held.masked_fill(eye[:, None], on)
    rest = mask[..., length:]
    width = count + extra
    if getattr(cache, "is_compileable", False):
        width = mask.shape[-1]
    filler = mask.new_full((*mask.shape[:3], width - count - extra), off)
    return torch.cat([held, rest, filler], dim=-1)


def _check_window(cache: Any, index: int) -> None:
    """Raise UsageError where a layer has begun to forget: its window would count other tokens."""
    layer = cache.layers[index] if index < len(getattr(cache, "layers", ())) else None
    if getattr(layer, "is_sliding", False) and int(cache.get_seq_length()) > _window(layer):
        raise UsageError(
            f"prompt and answer exceed the sliding window of layer {index}, {_window(layer)} tokens: "
            "a patch inside the language model takes shorter ones; patch the projector instead"
        )


def _window(layer: Any) -> int:
    return int(getattr(layer, "sliding_window", None) or layer.max_cache_len)


def _cached(cache: Any, layer: int) -> int:
    return int(cache.get_seq_length(layer))


class Embeddings:
    """Hook before the attention of the layer whose keys are read: keeps how positions rotate them."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured = self.places.current().captured
        captured["rotation"] = kwargs.get("position_embeddings")
        captured["attention"] = module
        captured["mask"] = kwargs.get("attention_mask")


class Projected(Capture):
    """Hook after its projection of queries or keys."""

    def __init__(self, places: Places, name: str) -> None:
        self.places, self.name = places, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.places.current().captured[self.name] = output


HOOKS = (LayerInputs, Embeddings, Projected)


def check(model: Any, family: Family, first: int, reads: bool) -> None:
    """Raise UsageError for a layer before which no tokens can be taken out, UnsupportedModelError for an
    attention that cannot be read."""
    layers = family.decoder(model).layers
    check_layer(first, len(layers))
    if first < (least := family.least_layer(model)):
        raise UsageError(
            f"layer={first} is too early in {family.name}: {family.least_layer_reason}; "
            f"give layer={least} or more"
        )
    attention = getattr(layers[first - 1], "self_attn", None)
    if reads and not (hasattr(attention, "q_proj") and hasattr(attention, "k_proj")):
        raise UnsupportedModelError(f"the attention of layer {first - 1} has no q_proj and k_proj to read")


def attach(model: Any, places: Places, first: int, reads: bool) -> None:
    """Have the layers from `first` on run on what `places` leaves."""
    layers = places.family.decoder(model).layers
    if reads:
        attention = layers[first - 1].self_attn
        attention.register_forward_pre_hook(Embeddings(places), with_kwargs=True)
        attention.q_proj.register_forward_hook(Projected(places, "query"))
        attention.k_proj.register_forward_hook(Projected(places, "keys"))
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(LayerInputs(places, index, first), with_kwargs=True)


def decide(places: Places, forward: Pass, x: Tensor) -> None:
    """Say in `forward.removed` which tokens of `x` [B, M, C] are left."""
    state, removed = places.states["language"], forward.removed
    assert removed is not None and forward.image is not None and forward.valid is not None
    image, valid = forward.image.to(x.device), forward.valid.to(x.device)
    needs = state.method.needs(state.options)
    stays = valid.clone()
    with places.clock("language", x.device):
        keys, row = _read(forward, valid) if needs & {"keys", "text_keys", "received"} else (None, None)
        for sample in range(len(x)):
            at = image[sample].nonzero()[:, 0]
            if len(at) == 0 or state.kept(len(at)) == len(at):
                continue
            words = (valid[sample] & ~image[sample]).nonzero()[:, 0]
            wide = x[sample, at][None].to(_wide(x))
            tokens = Tokens(
                x=x[sample, at][None],
                metric=wide,
                size=wide.new_ones(1, len(at)),
                protected=0,
                layer=0,
                depth=0,
                received=row[sample, at][None] if row is not None and "received" in needs else None,
                keys=keys[sample, at][None] if keys is not None and "keys" in needs else None,
                text=x[sample, words][None].to(wide.dtype) if "text" in needs else None,
                text_keys=keys[sample, words][None] if keys is not None and "text_keys" in needs else None,
            )
            plan = state.decide(tokens)
            assert isinstance(plan, Plan)
            stays[sample, at] = False
            stays[sample, at[plan.kept[0]]] = True
        forward.captured = {}
    if bool((stays == valid).all()):
        return
    longest = int(stays.sum(dim=1).max())
    order = stays.long().argsort(dim=1, stable=True)[:, -longest:]
    removed.inner, removed.inner_valid = order, stays.gather(1, order)


def _read(forward: Pass, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Of the layer before: keys [B, M, H * D], and the attention of the last token of each prompt, mean over
    heads, [B, M]."""
    captured = forward.captured
    attention: Any = captured["attention"]
    batch, length = valid.shape
    query, keys = (captured[name].view(batch, length, -1, attention.head_dim) for name in ("query", "keys"))
    last = torch.arange(length, device=valid.device).masked_fill(~valid, 0).amax(dim=1)
    query = query.gather(1, last[:, None, None, None].expand(-1, 1, *query.shape[2:]))
    if hasattr(attention, "q_norm"):
        query, keys = attention.q_norm(query), attention.k_norm(keys)
    query, keys = query.transpose(1, 2), keys.transpose(1, 2)
    if captured["rotation"] is not None:
        rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        cos, sin = (part.expand(batch, -1, -1) for part in captured["rotation"])
        index = last[:, None, None].expand(-1, 1, cos.shape[-1])
        _, keys = rotate(keys, keys, cos, sin)
        query, _ = rotate(query, query, cos.gather(1, index), sin.gather(1, index))
    wide = _wide(keys)
    query, keys = query.to(wide), keys.to(wide)
    groups = query.shape[1] // keys.shape[1]
    logits = (query * attention.scaling) @ keys.repeat_interleave(groups, dim=1).mT
    logits = logits[:, :, 0].masked_fill(~valid[:, None], torch.finfo(wide).min)
    mask = captured["mask"]
    if isinstance(mask, Tensor) and mask.ndim == 4:  # a window may hide more
        line = mask.expand(batch, -1, -1, -1)[:, 0].gather(
            1, last[:, None, None].expand(-1, 1, mask.shape[-1])
        )
        line = line[:, 0, :length]
        hidden = ~line if line.dtype == torch.bool else line < 0
        logits = logits.masked_fill(hidden[:, None], torch.finfo(wide).min)
    return keys.transpose(1, 2).flatten(2), logits.softmax(dim=-1).mean(dim=1)
