"""Image towers of CLIP, SigLIP, BLIP and BLIP-2 (EVA), ViT, DINOv2, InternVL, and Idefics 3 and SmolVLM.

All are made of one kind of block, norm and attention, norm and MLP, under different names: one
forward serves them. The keys are read after their projection. The size bias goes in as the
attention's mask; BLIP's and BLIP-2's attention takes none and is computed here once tokens have
merged. CLIP, BLIP, BLIP-2 and ViT answer with the class token; SigLIP's attention pool gets the
bias. What reads all the tokens of a tower finds the merged ones: the text encoder of BLIP and the
Q-Former of BLIP-2 attend to as many rows as are left, and every row counts once, as in the authors'
code, whatever its size. A model that needs the whole grid gets it unmerged (`FullLength`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.blip import modeling_blip as blip
from transformers.models.blip_2 import modeling_blip_2 as blip_2
from transformers.models.clip import modeling_clip as clip
from transformers.models.dinov2 import modeling_dinov2 as dinov2
from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers as registers
from transformers.models.idefics3 import modeling_idefics3 as idefics3
from transformers.models.internvl import modeling_internvl as internvl
from transformers.models.llava import modeling_llava as llava
from transformers.models.siglip import modeling_siglip as siglip
from transformers.models.smolvlm import modeling_smolvlm as smolvlm
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
from pitome.adapters.transformers.families import known
from pitome.adapters.transformers.shared import (
    CaptureHeads,
    FullLength,
    check_attention,
    check_captured,
    check_forward,
    linear,
)
from pitome.errors import UsageError
from pitome.merge.costs import Architecture, LayerCost

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_CONVOLUTION = "embeddings.patch_embeddings.projection"


def _plain(layer: Any, x: Tensor, half: int) -> Tensor:
    return x


def _dropped(layer: Any, x: Tensor, half: int) -> Tensor:
    dropped: Tensor = layer.dropout(x)
    return dropped


def _dino(layer: Any, x: Tensor, half: int) -> Tensor:
    dropped: Tensor = layer.drop_path((layer.layer_scale1, layer.layer_scale2)[half](x))
    return dropped


def _internvl(layer: Any, x: Tensor, half: int) -> Tensor:
    scaled: Tensor = layer.lambda_2 * layer.dropout(x) if half else layer.lambda_1 * x
    return scaled


@dataclass(frozen=True)
class VisionKind:
    """Where a library class keeps what the patch needs.

    patches: the convolution that makes tokens, from the host; attention, norms: names in a layer;
    fused: queries, keys and values come from one projection, and the attention takes no mask;
    class_token: whether the first token is one; branch(layer, x, half): what becomes of the output of
    attention (0) and MLP (1) before it is added; parts: the modules in an attention after which queries, keys
    and values are ready; grid: the part that makes maps of all tokens out of them, given them unmerged.
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
    branch: Callable[[Any, Tensor, int], Tensor] = _plain
    parts: tuple[str, str, str] = _PROJECTIONS
    grid: str = ""


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
        patches=_CONVOLUTION,
        attention="attention",
        norms=("layernorm_before", "layernorm_after"),
        branch=_dropped,
    ),
    *(
        VisionKind(
            "deit",
            host,
            layer,
            attention,
            patches=_CONVOLUTION,
            attention="attention",
            norms=("norm1", "norm2"),
            branch=_dino,
            grid=grid,
        )
        for layer, attention, hosts in (
            (dinov2.Dinov2Layer, dinov2.Dinov2Attention, (dinov2.Dinov2Model, dinov2.Dinov2Backbone)),
            (
                registers.Dinov2WithRegistersLayer,
                registers.Dinov2WithRegistersAttention,
                (registers.Dinov2WithRegistersModel, registers.Dinov2WithRegistersBackbone),
            ),
        )
        for host, grid in zip(hosts, ("", "encoder"), strict=True)
    ),
    VisionKind(
        "clip",
        internvl.InternVLVisionModel,
        internvl.InternVLVisionLayer,
        internvl.InternVLVisionAttention,
        patches=_CONVOLUTION,
        attention="attention",
        norms=("layernorm_before", "layernorm_after"),
        branch=_internvl,
        parts=("q_norm", "k_norm", "v_proj"),
    ),
    *(
        VisionKind("clip", host, layer, attention, class_token=False)
        for host, layer, attention in (
            (
                idefics3.Idefics3VisionTransformer,
                idefics3.Idefics3EncoderLayer,
                idefics3.Idefics3VisionAttention,
            ),
            (smolvlm.SmolVLMVisionTransformer, smolvlm.SmolVLMEncoderLayer, smolvlm.SmolVLMVisionAttention),
        )
    ),
    VisionKind("blip", blip.BlipVisionModel, blip.BlipEncoderLayer, blip.BlipAttention, fused=True),
    VisionKind("eva", blip_2.Blip2VisionModel, blip_2.Blip2EncoderLayer, blip_2.Blip2Attention, fused=True),
)

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

    Raises UnsupportedModelError if it computes something the patch does not know.
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
    whole = [module for module in around if isinstance(module, _ALONE)]
    adapter = (make or VisionAdapter)(host, kind, layers, whole[0] if whole else host)
    if kind.grid:
        adapter.reads_all = "its feature maps have a place for every token"
    for module in around:
        if all(type(module).forward is not other.forward for other in _AROUND):
            adapter.reads_all = (
                f"{type(module).__name__} reads every token of its {kind.host.__name__}, and what it makes "
                "of merged ones is not known"
            )
            adapter.dense |= module.config.model_type in known()
    return adapter


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
        self.protected = int(kind.class_token) + getattr(host.config, "num_register_tokens", 0)
        self.has_class_token = kind.class_token
        self.family = kind.family

    def attach(self, state: State) -> None:
        """Raises UsageError for a kind of attention that takes no size bias."""
        if not self.kind.fused:
            check_attention(self.host.config, state)
        pool = self._pool()
        if pool is not None:
            pool.attention.register_forward_pre_hook(PoolBias(state), with_kwargs=True)
        if state.dense:
            self._grid._pitome_state = state
            replace_methods(self._grid, FullLength)
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
            for name, projection in zip(QKV, self.kind.parts, strict=True):
                if name in captures:
                    getattr(attention, projection).register_forward_hook(CaptureHeads(patch, name, heads))

    def detach(self) -> None:
        for layer in self.layers:
            del layer._pitome
            restore_methods(layer)
            if self.kind.fused:
                restore_methods(getattr(layer, self.kind.attention))
        if isinstance(grid := self._grid, FullLength):
            del vars(grid)["_pitome_state"]
            restore_methods(self._grid)
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

    @property
    def _grid(self) -> Any:
        """The part whose outputs can have all tokens."""
        return operator.attrgetter(self.kind.grid)(self.host) if self.kind.grid else self.host

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
            check_captured(attention.qkv if patch.kind.fused else getattr(attention, patch.kind.parts[1]))
        norm1, norm2 = (getattr(self, name) for name in patch.kind.norms)
        branch = patch.kind.branch
        scale = attention.head_dim**-0.5
        bias = patch.enter(hidden_states)
        x = hidden_states
        if patch.merges_first:
            x, bias = patch.merge_first(x, lambda: _parts(attention, norm1(hidden_states), patch.kind), scale)
        x = x + branch(self, attention(hidden_states=norm1(x), attention_mask=bias, **kwargs)[0], 0)
        if patch.state.options.position == "before_mlp":
            x = patch.merge(x, scale)
        x = x + branch(self, self.mlp(norm2(x)), 1)
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


def _parts(attention: Any, x: Tensor, kind: VisionKind) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, H, N, D] of normed features `x` [B, N, C]."""
    if kind.fused:
        return split_heads(attention.qkv(x), attention.num_heads)
    projected = [getattr(attention, name)(x) for name in _PROJECTIONS]
    projected = [
        value if part == name else getattr(attention, part)(value)
        for value, name, part in zip(projected, _PROJECTIONS, kind.parts, strict=True)
    ]
    query, keys, values = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in projected)
    return query, keys, values


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
