"""open_clip: image towers of CLIP models (checked on 3.3.0). The text tower stays as it is.

Towers made of `ResidualAttentionBlock` or `CustomResidualAttentionBlock`, with the class token, the
mean or CoCa's attention pool as output, and towers that timm builds (`TimmModel`, through the timm
adapter). The patched part is the image tower, so `pitome.flops` of a CLIP counts that alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    Attention,
    AttentionalPooler,
    CustomResidualAttentionBlock,
    ResidualAttentionBlock,
    Transformer,
    VisionTransformer,
)
from open_clip.utils import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional

from pitome.adapters import timm
from pitome.adapters.core import (
    QKV,
    Adapter,
    Capture,
    LayerPatch,
    Replacement,
    State,
    check_class,
    refuse_merging_first,
    remove_hooks,
    replace_methods,
    restore_methods,
    size_bias,
)
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import Architecture, LayerCost

_TOWER = ("forward", "_embeds", "_pool", "_global_pool", "forward_intermediates")


HOSTS = (VisionTransformer, TimmModel)
# Parts of a model that are not looked into: text towers that transformers builds.
IGNORED = (HFTextEncoder,)


def adapt(model: nn.Module, host: Any) -> Adapter:
    """The adapter of the image tower `host` in `model`: a CLIP, a CoCa or the tower itself.

    Raises UnsupportedModelError if it computes something the patch does not know.
    """
    if isinstance(host, TimmModel):
        return TrunkAdapter(host)
    adapter = OpenClipAdapter(host)
    adapter.reads_all = _check_tower(host)
    return adapter


class OpenClipAdapter(Adapter):
    """An image tower of open_clip's own blocks."""

    host: Any  # torch types the attributes of a module as Tensor | Module

    def __init__(self, host: VisionTransformer) -> None:
        self.host = host
        self.blocks: Any = host.transformer.resblocks
        self.depth = len(self.blocks)
        self.protected = 1
        self.has_class_token = True
        self.family = "clip"

    def attach(self, state: State) -> None:
        custom = [block for block in self.blocks if not isinstance(block, ResidualAttentionBlock)]
        if custom and "values" in state.method.needs(state.options):
            raise UnsupportedModelError(
                f"merge={state.method.name} reads the values of the attention, which open_clip's "
                f"{type(custom[0]).__name__} does not hand out"
            )
        if custom:
            refuse_merging_first(state, f"open_clip's {type(custom[0]).__name__}")
        replace_methods(self.host, MergingTower)
        if self.host.attn_pool is not None:
            self.host.attn_pool._pitome = state
            replace_methods(self.host.attn_pool, MergedPool)
        for layer, block in enumerate(self.blocks):
            patch = LayerPatch(state, layer)
            block._pitome = patch
            captures = patch.captures
            if "mlp" in captures:
                block.mlp.register_forward_hook(Capture(patch, "mlp"))
            if isinstance(block, ResidualAttentionBlock):
                replace_methods(block, MergingResidualBlock)
                continue
            replace_methods(block, MergingCustomBlock)
            if "keys" in captures:
                block.attn.ln_k.register_forward_hook(Capture(patch, "keys"))
            if "query" in captures:
                block.attn.ln_q.register_forward_hook(Capture(patch, "query"))

    def detach(self) -> None:
        restore_methods(self.host)
        if self.host.attn_pool is not None:
            del self.host.attn_pool._pitome
            restore_methods(self.host.attn_pool)
        remove_hooks(self.host.transformer, (Capture,))
        for block in self.blocks:
            del block._pitome
            restore_methods(block)

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """Costs of the matrix products and of the convolution of the patch embedding, image tower
        alone. Raises UsageError for a size the model does not take."""
        host = self.host
        self._check_size(input_size)
        patches = host.grid_size[0] * host.grid_size[1]
        pool, pool_token = _pool_cost(host.attn_pool)
        return Architecture(
            tokens=patches + 1,
            protected=self.protected,
            layers=tuple(_layer_cost(block) for block in self.blocks),
            stem=patches * host.conv1.weight.numel(),
            head=pool + (0 if host.proj is None else host.proj.numel()),
            patches=patches,
            classes=host.output_dim,
            patch_inputs=host.conv1.weight[0].numel(),
            family=self.family,
            pool_token=pool_token,
        )

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """A blank image [1, 3, H, W]. Raises UsageError for a size the model does not take."""
        conv: nn.Conv2d = self.host.conv1
        return conv.weight.new_zeros(1, conv.in_channels, *self._check_size(input_size))

    def _check_size(self, input_size: int | tuple[int, int] | None) -> tuple[int, int]:
        own = tuple(self.host.image_size)
        size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size or own)
        if size != own:
            raise UsageError(f"input_size={input_size} does not fit: the model takes {own} only")
        return own


class TrunkAdapter(timm.TimmAdapter):
    """An image tower that timm builds, `TimmModel.trunk`, followed by open_clip's projection."""

    def __init__(self, tower: TimmModel) -> None:
        trunk = timm.adapt(tower, tower.trunk)  # refuses what the timm adapter does not know
        super().__init__(trunk.host)
        self.family = "clip"
        self.projection = _linear(tower.head)

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """As the timm adapter's, and the projection."""
        own = super().architecture(input_size)
        return replace(own, head=own.head + self.projection)


class MergingResidualBlock(Replacement):
    """`ResidualAttentionBlock` with a merge between its two halves, or after them.

    The block's own attention runs where nothing has merged and no keys are asked for, so that a
    model which merges nothing computes bit for bit what it did.
    """

    def forward(
        self: Any,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        _refuse_mask(k_x, v_x, attn_mask)
        patch: LayerPatch = self._pitome
        bias = patch.enter(q_x)
        if patch.merges_first:
            normed = self.ln_1(q_x)
            scale = self.attn.head_dim**-0.5
            q_x, bias = patch.merge_first(q_x, lambda: _project(self.attn, normed, normed), scale)
        x = self.ln_1(q_x)
        if bias is None and not patch.hooks & set(QKV):
            x = self.attention(q_x=x)
        else:
            x, parts = _attend(self.attn, x, x, bias)
            for name, part in zip(QKV, parts, strict=True):
                if name in patch.hooks:
                    patch.capture(name, part)
        return _rest(self, q_x + self.ls_1(x), self.attn.head_dim**-0.5)


class MergingCustomBlock(Replacement):
    """As `MergingResidualBlock`, of `CustomResidualAttentionBlock`, whose attention takes the bias itself."""

    def forward(
        self: Any,
        x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        _refuse_mask(k_x, v_x, attn_mask)
        bias = self._pitome.enter(x)
        x = x + self.ls_1(self.ln_attn(self.attn(self.ln_1(x), attn_mask=bias)))
        return _rest(self, x, self.attn.scale)


class MergingTower(Replacement):
    """`VisionTransformer` whose mean knows merged tokens, whose dense outputs have all tokens if asked."""

    def _global_pool(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pool merged tokens [B, N, C]: in a mean every patch counts once. Beside it the tokens."""
        state: State = self._pitome.state
        size = state.current().size[-1]
        if self.attn_pool is not None:  # the tokens are its queries
            return super()._global_pool(x)  # type: ignore[misc, no-any-return]
        whole = state.unmerge(x) if state.dense else x
        if self.pool_type == "none":
            return whole, whole
        if size is None or self.pool_type != "avg":
            return super()._global_pool(x)[0], whole[:, 1:]  # type: ignore[misc]
        x, size = x[:, 1:], size[:, 1:]
        total = size.sum(dim=1, keepdim=True)
        # A method without protection can leave no patch token at all: zeros then, not NaN.
        mean: Tensor = (x * size[..., None]).sum(dim=1) / total.masked_fill(total == 0, 1)
        return mean.to(x.dtype), whole[:, 1:]

    def forward_intermediates(
        self: Any,
        x: Tensor,
        indices: int | list[int] | None = None,
        stop_early: bool = False,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        output_fmt: str = "NCHW",
        output_extra_tokens: bool = False,
    ) -> dict[str, Any]:
        """As the model's own: [B, N, C] or [B, C, H, W] after each block of `indices`."""
        state: State = self._pitome.state
        state.check_dense()
        if stop_early and not intermediates_only:
            raise UsageError("a patched model gives image_features after its last block: stop_early=False")
        found: dict[str, Any] = super().forward_intermediates(  # type: ignore[misc]
            x, indices=indices, stop_early=stop_early, normalize_intermediates=normalize_intermediates,
            intermediates_only=intermediates_only, output_fmt="NLC", output_extra_tokens=True,
        )  # fmt: skip
        heads = found.pop("image_intermediates_prefix")
        taken, _ = feature_take_indices(len(self.transformer.resblocks), indices)
        parts = zip(sorted(set(taken)), heads, found["image_intermediates"], strict=True)
        whole = [state.unmerge(torch.cat(rows, dim=1), at + 1) for at, *rows in parts]
        grid = (x.shape[2] // self.patch_size[0], x.shape[3] // self.patch_size[1])
        shape = grid if output_fmt == "NCHW" else None
        found["image_intermediates"] = [timm.patch_map(row, 1, shape) for row in whole]
        if output_extra_tokens:
            found["image_intermediates_prefix"] = [row[:, :1] for row in whole]
        return found


class MergedPool(Replacement):
    """`AttentionalPooler` over merged tokens, with log(size) as bias (whether or not the blocks use
    proportional attention)."""

    def forward(self: Any, x: Tensor) -> Tensor:
        size = self._pitome.current().size[-1]
        if size is None:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        x = self.ln_k(x)
        query = self.ln_q(self.query).expand(x.shape[0], -1, -1)
        return _attend(self.attn, query, x, size_bias(size, x))[0]


def _rest(block: Any, x: Tensor, scale: float) -> Tensor:
    """What follows the attention of either block."""
    patch: LayerPatch = block._pitome
    if patch.state.options.position == "before_mlp":
        x = patch.merge(x, scale)
    x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return patch.merge(x, scale) if patch.merges_last else x


def _refuse_mask(*given: Tensor | None) -> None:
    if any(tensor is not None for tensor in given):
        raise UsageError("a patched image tower takes no k_x, v_x or attn_mask: its tokens merge")


def _attend(
    attn: nn.MultiheadAttention, x: Tensor, context: Tensor, bias: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """`nn.MultiheadAttention` of `x` [B, M, C] over `context` [B, N, D] with its own weights, and a bias
    [B, 1, 1, N] that is broadcast, not spread over heads and queries.

    Returns the output [B, M, C], and queries [B, H, M, D], keys and values [B, H, N, D].
    """
    q, k, v = _project(attn, x, context)
    dropout = attn.dropout if attn.training else 0.0
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    out = out.transpose(1, 2).flatten(2)
    return functional.linear(out, attn.out_proj.weight, attn.out_proj.bias), (q, k, v)


def _project(attn: nn.MultiheadAttention, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `x` [B, M, C], keys and values of `context` [B, N, D], each with its heads apart."""
    if context is x:
        projected = functional.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    else:
        weights: Iterable[Tensor] = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
        if attn._qkv_same_embed_dim:
            weights = attn.in_proj_weight.chunk(3)
        parts = zip((x, context, context), weights, attn.in_proj_bias.chunk(3), strict=True)
        projected = tuple(functional.linear(*part) for part in parts)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in projected)
    return q, k, v


def _check_tower(host: Any) -> str:
    """Refuse a tower that computes something else than the patch knows. Returns why merged tokens cannot
    come out where there is no pool, or tokens come out beside it."""
    check_class(host, VisionTransformer, _TOWER)
    check_class(host.transformer, Transformer, ("forward",))
    for block in host.transformer.resblocks:
        if isinstance(block, CustomResidualAttentionBlock):
            check_class(block, CustomResidualAttentionBlock, ("forward",))
            check_class(block.attn, Attention, ("forward",))
            if block.attn.scaled_cosine:
                raise UnsupportedModelError(
                    "cannot patch: scaled_cosine_attn does not take a bias per token; "
                    "looked for attention by scaled dot products"
                )
        else:
            check_class(block, ResidualAttentionBlock, ("forward", "attention"))
            check_class(block.attn, nn.MultiheadAttention, ("forward",))
            if not block.attn.batch_first:
                raise UnsupportedModelError(
                    "cannot patch: looked for features [B, N, C], found batch_first=False"
                )
    looked = "looked for a class token, mean or attention pool, found "
    if host.attn_pool is not None:
        check_class(host.attn_pool, AttentionalPooler, ("forward",))
        if host.attn_pool_contrastive is not None:
            raise UnsupportedModelError(
                f"cannot patch {type(host).__name__}: {looked}the pools {host.attn_pool_type!r}, "
                "which are unfinished"
            )
    elif host.pool_type not in ("tok", "avg") or host.output_tokens:
        what = "output_tokens=True" if host.output_tokens else "no pool"
        return f"{looked}{what}: merged tokens come out without their positions"
    return ""


def _layer_cost(block: Any) -> LayerCost:
    attn = block.attn
    width = attn.out_proj.in_features
    return LayerCost(
        attn_token=attn.in_proj_weight.numel() + _linear(attn.out_proj),
        attn_pair=2 * width,
        mlp_token=_linear(block.mlp),
        metric_dim=attn.head_dim,
        hidden_dim=width,
        heads=attn.num_heads,
        attn_inputs=attn.in_proj_weight.numel(),
    )


def _pool_cost(pool: Any) -> tuple[int, int]:
    """MACs of an attention pool: (whatever the tokens, per token that leaves the last block)."""
    if pool is None:
        return 0, 0
    queries, width = pool.query.shape
    context = pool.attn.kdim
    return queries * (width**2 + _linear(pool.attn.out_proj)), 2 * width * (context + queries)


def _linear(module: nn.Module) -> int:
    """Multiply-accumulates of all linear layers in `module`, for one token."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
