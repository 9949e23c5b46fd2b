"""Image towers of CLIP, SigLIP, BLIP and BLIP-2 (EVA), and ViT.

All are made of one kind of block, norm and attention, norm and MLP, under different names: one
forward serves them. The keys are read after their projection. The size bias goes in as the
attention's mask; BLIP's and BLIP-2's attention takes none and is computed here once tokens have
merged. CLIP, BLIP, BLIP-2 and ViT answer with the class token; SigLIP's attention pool gets the
bias. What reads all the tokens of a tower finds the merged ones: the text encoder of BLIP and the
Q-Former of BLIP-2 attend to as many rows as are left, and every row counts once, as in the authors'
code, whatever its size.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.blip import modeling_blip as blip
from transformers.models.blip_2 import modeling_blip_2 as blip_2
from transformers.models.clip import modeling_clip as clip
from transformers.models.llava import modeling_llava as llava
from transformers.models.siglip import modeling_siglip as siglip
from transformers.models.vit import modeling_vit as vit

from pitome.adapters.core import (
    QKV,
    Adapter,
    Capture,
    CaptureFused,
    LayerPatch,
    Replacement,
    State,
    remove_hooks,
    replace_methods,
    restore_methods,
    size_bias,
    split_heads,
)
from pitome.adapters.transformers.shared import (
    CaptureHeads,
    check_attention,
    check_captured,
    check_forward,
    linear,
)
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import Architecture, LayerCost


@dataclass(frozen=True)
class VisionKind:
    """Where a library class keeps what the patch needs.

    patches: the convolution that makes tokens, from the host; attention, norms: names in a layer;
    fused: queries, keys and values come from one projection, and the attention takes no mask;
    class_token: whether the first token is one.
    """

    family: str
    host: type[nn.Module]
    layer: type[nn.Module]
    inner: type[nn.Module]
    patches: str = "embeddings.patch_embedding"
    attention: str = "self_attn"
    norms: tuple[str, str] = ("layer_norm1", "layer_norm2")
    fused: bool = False
    class_token: bool = True


KINDS = (
    VisionKind("clip", clip.CLIPVisionModel, clip.CLIPEncoderLayer, clip.CLIPAttention),
    VisionKind(
        "clip",
        siglip.SiglipVisionModel,
        siglip.SiglipEncoderLayer,
        siglip.SiglipAttention,
        class_token=False,
    ),
    VisionKind(
        "deit",
        vit.ViTModel,
        vit.ViTLayer,
        vit.ViTAttention,
        patches="embeddings.patch_embeddings.projection",
        attention="attention",
        norms=("layernorm_before", "layernorm_after"),
    ),
    VisionKind("blip", blip.BlipVisionModel, blip.BlipEncoderLayer, blip.BlipAttention, fused=True),
    VisionKind("eva", blip_2.Blip2VisionModel, blip_2.Blip2EncoderLayer, blip_2.Blip2Attention, fused=True),
)

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")

# Models around a tower that take any number of tokens from it. Those whose forward takes an image
# alone, and adds linear layers only, are measured whole; of the others, the tower.
_ALONE: tuple[type[nn.Module], ...] = (clip.CLIPVisionModelWithProjection, vit.ViTForImageClassification)
_AROUND: tuple[type[nn.Module], ...] = (
    *_ALONE,
    clip.CLIPModel,
    siglip.SiglipModel,
    blip.BlipModel,
    blip.BlipForConditionalGeneration,
    blip.BlipForImageTextRetrieval,
    blip.BlipForQuestionAnswering,
    blip_2.Blip2Model,
    blip_2.Blip2ForConditionalGeneration,
    blip_2.Blip2ForImageTextRetrieval,
    blip_2.Blip2VisionModelWithProjection,
    llava.LlavaModel,
    llava.LlavaForConditionalGeneration,
)


def adapt(model: nn.Module, host: nn.Module, make: type[VisionAdapter] | None = None) -> VisionAdapter:
    """The adapter of the image tower `host` in `model`, of the class `make`.

    Raises UnsupportedModelError if it computes something the patch does not know, or if a model of
    transformers around it is not known to take merged tokens.
    """
    kind = next(kind for kind in KINDS if isinstance(host, kind.host))
    check_forward(model, host, kind.host)
    layers = [module for module in host.modules() if isinstance(module, kind.layer)]
    for layer in layers:
        check_forward(model, layer, kind.layer)
        check_forward(model, getattr(layer, kind.attention), kind.inner)
    around = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and module is not host and host in list(module.modules())
    ]
    for module in around:
        if all(type(module).forward is not known.forward for known in _AROUND):
            raise UnsupportedModelError(
                f"cannot patch {type(module).__name__}: it reads every token of its "
                f"{kind.host.__name__}, and what it makes of merged ones is not known; known are "
                f"{', '.join(known.__name__ for known in _AROUND)}"
            )
    whole = [module for module in around if isinstance(module, _ALONE)]
    return (make or VisionAdapter)(host, kind, layers, whole[0] if whole else host)


class VisionAdapter(Adapter):
    """An image tower: its `host` (CLIPVisionModel, ...), the host's layers, and `entry`, the part of
    the model that takes an image alone."""

    host: Any  # torch types the attributes of a module as Tensor | Module
    entry: nn.Module

    def __init__(
        self, host: nn.Module, kind: VisionKind, layers: Sequence[nn.Module], entry: nn.Module
    ) -> None:
        self.host = host
        self.kind = kind
        self.layers: Sequence[Any] = layers
        self.entry = entry
        self.depth = len(layers)
        self.protected = int(kind.class_token)
        self.has_class_token = kind.class_token
        self.family = kind.family

    def attach(self, state: State) -> None:
        """Raises UsageError for a kind of attention that takes no size bias."""
        if not self.kind.fused:
            check_attention(self.host.config, state)
        pool = self._pool()
        if pool is not None:
            pool.attention.register_forward_pre_hook(PoolBias(state), with_kwargs=True)
        for index, layer in enumerate(self.layers):
            patch = VisionLayerPatch(state, index, self.kind)
            layer._pitome = patch
            replace_methods(layer, MergingLayer)
            attention = getattr(layer, self.kind.attention)
            heads = self.host.config.num_attention_heads
            captures = patch.hooks
            if "mlp" in captures:
                layer.mlp.register_forward_hook(Capture(patch, "mlp"))
            if self.kind.fused:
                replace_methods(attention, BiasedAttention)
                if captures & set(QKV):
                    attention.qkv.register_forward_hook(CaptureFused(patch, heads))
                continue
            for name, projection in zip(QKV, _PROJECTIONS, strict=True):
                if name in captures:
                    getattr(attention, projection).register_forward_hook(CaptureHeads(patch, name, heads))

    def detach(self) -> None:
        for layer in self.layers:
            del layer._pitome
            restore_methods(layer)
            if self.kind.fused:
                restore_methods(getattr(layer, self.kind.attention))
        remove_hooks(self.host, _HOOKS)

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """Costs of the matrix products and of the convolution of the patch embedding, tower alone, or
        with what follows it in a model that takes only an image.

        Raises UsageError for a size the model does not take.
        """
        height, width = self._check_size(input_size)
        conv = operator.attrgetter(self.kind.patches)(self.host)
        patches = height // conv.kernel_size[0] * (width // conv.kernel_size[1])
        head = linear(self.entry) - sum(linear(layer) for layer in self.layers)
        pool = self._pool()
        channels = self.host.config.hidden_size
        per_token = 0 if pool is None else 2 * channels**2 + 2 * channels
        if pool is not None:  # the probe's projection; keys and values are counted per token
            head += channels**2
        return Architecture(
            tokens=patches + self.protected,
            protected=self.protected,
            layers=tuple(self._layer_cost(layer) for layer in self.layers),
            stem=patches * conv.weight.numel(),
            head=head,
            patches=patches,
            classes=getattr(getattr(self.entry, "classifier", None), "out_features", 0),
            patch_inputs=conv.weight[0].numel(),
            family=self.family,
            pool_token=per_token,
        )

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """A blank image [1, C, H, W]. Raises UsageError for a size the model does not take."""
        conv = operator.attrgetter(self.kind.patches)(self.host)
        weight: Tensor = conv.weight
        return weight.new_zeros(1, conv.in_channels, *self._check_size(input_size))

    def _pool(self) -> Any:
        return getattr(self.host, "head", None)

    def _check_size(self, input_size: int | tuple[int, int] | None) -> tuple[int, int]:
        own = _pair(self.host.config.image_size)
        if input_size is not None and _pair(input_size) != own:
            raise UsageError(f"input_size={input_size} does not fit: the model takes {own} only")
        return own

    def _layer_cost(self, layer: Any) -> LayerCost:
        attention = getattr(layer, self.kind.attention)
        heads = self.host.config.num_attention_heads
        names = ("qkv",) if self.kind.fused else _PROJECTIONS
        return LayerCost(
            attn_token=linear(attention),
            attn_pair=2 * heads * attention.head_dim,
            mlp_token=linear(layer.mlp),
            metric_dim=attention.head_dim,
            hidden_dim=self.host.config.hidden_size,
            heads=heads,
            attn_inputs=sum(linear(getattr(attention, name)) for name in names),
        )


class VisionLayerPatch(LayerPatch):
    """The patch of a layer that knows its names."""

    def __init__(self, state: State, layer: int, kind: VisionKind) -> None:
        super().__init__(state, layer)
        self.kind = kind


class PoolBias:
    """Pre-hook of the attention in SigLIP's pool: log(size) of merged tokens as bias (whether or not
    the layers use proportional attention)."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        size = self.state.current().size[-1]
        if size is None:
            return None
        # What nn.MultiheadAttention adds to the logits of every query.
        return args, {**kwargs, "key_padding_mask": size_bias(size, args[1])[:, 0, 0]}


_HOOKS = (Capture, PoolBias)


class MergingLayer(Replacement):
    """A layer with a merge between its two halves, or after them."""

    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """[B, N, C] -> [B, M, C]."""
        if attention_mask is not None:
            raise UsageError("a patched image tower takes no attention_mask: its tokens no longer match it")
        patch: VisionLayerPatch = self._pitome
        attention = getattr(self, patch.kind.attention)
        if "keys" in patch.hooks:
            check_captured(attention.qkv if patch.kind.fused else attention.k_proj)
        norm1, norm2 = (getattr(self, name) for name in patch.kind.norms)
        dropout = getattr(self, "dropout", _same)  # ViT alone has one
        scale = attention.head_dim**-0.5
        bias = patch.enter(hidden_states)
        x = hidden_states
        if patch.merges_first:
            x, bias = patch.merge_first(
                x, lambda: _parts(attention, norm1(hidden_states), patch.kind.fused), scale
            )
        x = x + dropout(attention(hidden_states=norm1(x), attention_mask=bias, **kwargs)[0])
        if patch.state.options.position == "before_mlp":
            x = patch.merge(x, scale)
        x = x + dropout(self.mlp(norm2(x)))
        return patch.merge(x, scale) if patch.merges_last else x


class BiasedAttention(Replacement):
    """`BlipAttention` or `Blip2Attention` with a bias [B, 1, 1, N] on the logits; as it was where there
    is none."""

    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if attention_mask is None:
            return super().forward(hidden_states, **kwargs)  # type: ignore[misc, no-any-return]
        query, key, value = split_heads(self.qkv(hidden_states), self.num_heads)
        dropout = self.config.attention_dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=self.scale
        )
        return self.projection(out.transpose(1, 2).flatten(2)), None


def _parts(attention: Any, x: Tensor, fused: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, H, N, D] of normed features `x` [B, N, C]."""
    if fused:
        return split_heads(attention.qkv(x), attention.num_heads)
    projected = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    query, keys, values = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in projected)
    return query, keys, values


def _same(x: Tensor) -> Tensor:
    return x


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
