"""timm: `VisionTransformer` models built from `vision_transformer.Block` (checked on 1.0.31).

With or without class, distillation and register tokens; the class token, the mean (MAE) or an
attention pool (SigLIP) as output. The keys are read after `attn.k_norm`, the size bias goes in as
`attn_mask`, tokens merge between attention and MLP. docs/models.md lists every model of timm.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Attention, AttentionPoolLatent, GluMlp, Mlp, PatchEmbed, SwiGLU
from timm.models._features import feature_take_indices
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from pitome.adapters.core import (
    Adapter,
    Capture,
    CaptureFused,
    LayerPatch,
    Replacement,
    State,
    check_class,
    remove_hooks,
    replace_methods,
    restore_methods,
    size_bias,
    split_heads,
)
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import Architecture, LayerCost

# Class -> the methods the patch replaces or relies on; another implementation is refused.
_EXPECTED: dict[type, tuple[str, ...]] = {
    VisionTransformer: ("forward", "forward_features", "pool", "forward_intermediates"),
    Block: ("forward",),
    Attention: ("forward",),
    AttentionPoolLatent: ("forward",),
}
# MLPs that treat every token alone and whose cost is that of their linear layers.
_MLPS: tuple[type, ...] = (Mlp, GluMlp, SwiGLU, GeGluMlp)
_HEADS = (VisionTransformer.forward_head, VisionTransformerDistilled.forward_head)


HOSTS = (VisionTransformer,)


def adapt(model: nn.Module, host: Any) -> TimmAdapter:
    """The adapter of the `VisionTransformer` `host` in `model`.

    Raises UnsupportedModelError if it computes something the patch does not know.
    """
    check_class(host, VisionTransformer, _EXPECTED[VisionTransformer])
    for block in host.blocks:
        check_class(block, Block, _EXPECTED[Block])
        check_class(block.attn, Attention, _EXPECTED[Attention])
        _check_mlp(block.mlp)
    return TimmAdapter(host)


class TimmAdapter(Adapter):
    """A timm `VisionTransformer`."""

    host: Any  # torch types the attributes of a module as Tensor | Module

    def __init__(self, host: VisionTransformer) -> None:
        self.host = host
        self.depth = len(host.blocks)
        self.protected = host.num_prefix_tokens
        self.has_class_token = host.has_class_token
        mae = host.global_pool == "avg" and not isinstance(host.fc_norm, nn.Identity)
        self.family = "mae" if mae else "deit"
        self.reads_all = _check_output(host)

    def attach(self, state: State) -> None:
        replace_methods(self.host, MergingTransformer)
        for layer, block in enumerate(self.host.blocks):
            patch = LayerPatch(state, layer)
            block._pitome = patch
            replace_methods(block, MergingBlock)
            heads, captures = block.attn.num_heads, patch.hooks
            if "keys" in captures:
                block.attn.k_norm.register_forward_hook(Capture(patch, "keys"))
            if "query" in captures:
                block.attn.q_norm.register_forward_hook(Capture(patch, "query"))
            if "values" in captures:
                block.attn.qkv.register_forward_hook(CaptureFused(patch, heads, ("values",)))
            if "mlp" in captures:
                block.mlp.register_forward_hook(Capture(patch, "mlp"))

    def detach(self) -> None:
        restore_methods(self.host)
        remove_hooks(self.host.blocks, (Capture,))
        for block in self.host.blocks:
            del block._pitome
            restore_methods(block)

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """Costs of the matrix products and of the convolution of the patch embedding.

        Raises UsageError for a size the model does not take, UnsupportedModelError for a patch
        embedding that is not `PatchEmbed`.
        """
        host, embed = self.host, self.host.patch_embed
        if type(embed) is not PatchEmbed:
            raise UnsupportedModelError(
                f"no closed form of the cost: looked for timm's PatchEmbed, found {type(embed).__name__}"
            )
        rows, columns = embed.dynamic_feat_size(_check_size(embed, input_size))
        patches = rows * columns
        pool, pool_token = _pool_cost(host)
        return Architecture(
            tokens=patches + host.num_prefix_tokens,
            protected=host.num_prefix_tokens,
            layers=tuple(_layer_cost(block) for block in host.blocks),
            stem=patches * embed.proj.weight.numel(),
            head=_linear(host.head) + _linear(getattr(host, "head_dist", None)) + pool,
            patches=patches,
            classes=host.num_classes,
            patch_inputs=embed.proj.weight[0].numel(),
            family=self.family,
            pool_token=pool_token,
        )

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """A blank image [1, C, H, W]. Raises UsageError for a size the model does not take."""
        host = self.host
        size = _check_size(host.patch_embed, input_size)
        weight: Tensor = next(host.parameters())
        return weight.new_zeros(1, host.in_chans, *size)


class MergingBlock(Replacement):
    """`Block` with a merge between its two halves, or after them."""

    def forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise UsageError("a patched model takes no attn_mask: its tokens no longer match the mask's")
        patch: LayerPatch = self._pitome
        bias = patch.enter(x)
        if patch.merges_first:
            x, bias = patch.merge_first(x, lambda: _parts(self.attn, self.norm1(x)), self.attn.scale)
        before_mlp = patch.state.options.position == "before_mlp"
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=bias)))
        if before_mlp:
            x = patch.merge(x, self.attn.scale)
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return patch.merge(x, self.attn.scale) if patch.merges_last else x


def _parts(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, H, N, D] of normed features `x` [B, N, C]."""
    query, keys, values = split_heads(attn.qkv(x), attn.num_heads)
    return attn.q_norm(query), attn.k_norm(keys), values


class MergingTransformer(Replacement):
    """`VisionTransformer` whose pool knows merged tokens, whose dense outputs have all tokens if asked."""

    def forward_features(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        x: Tensor = super().forward_features(*args, **kwargs)  # type: ignore[misc]
        state: State = self._pitome.state
        return state.unmerge(x) if state.dense else x

    def pool(self: Any, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Pool merged tokens [B, N, C] -> [B, C]: every input token counts once.

        A mean is weighted by size, an attention pool gets log(size) as bias (whether or not the
        blocks use proportional attention). Without a pool the merged tokens come out as they are.
        """
        state: State = self._pitome.state
        size = state.current().size[-1]
        kind = self.global_pool if pool_type is None else pool_type
        kind = "map" if self.attn_pool is not None else kind
        if kind not in ("", "token", "avg", "map"):
            raise UsageError(
                f"pool {kind!r} does not know merged tokens; use token or avg, or remove the patch"
            )
        if state.dense and kind and size is not None and x.shape[1] != size.shape[1]:
            x = state.merged(x)  # what forward_features unmerged
        if size is None or kind in ("", "token"):
            return super().pool(x, pool_type)  # type: ignore[misc, no-any-return]
        start = 0 if self.pool_include_prefix else self.num_prefix_tokens
        x, size = x[:, start:], size[:, start:]
        if kind == "map":
            return self.attn_pool(x, attn_mask=size_bias(size, x))  # type: ignore[no-any-return]
        total = size.sum(dim=1, keepdim=True)
        # A method without protection can leave no patch token at all: zeros then, not NaN.
        mean: Tensor = (x * size[..., None]).sum(dim=1) / total.masked_fill(total == 0, 1)
        return mean.to(x.dtype)

    def forward_intermediates(
        self: Any,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the model's own: [B, N, C] or [B, C, H, W] after each block of `indices`."""
        state: State = self._pitome.state
        state.check_dense()
        taken, last = feature_take_indices(len(self.blocks), indices)
        found: dict[str, Any] = super().forward_intermediates(  # type: ignore[misc]
            x, indices=indices, return_prefix_tokens=True, norm=norm, stop_early=stop_early, output_fmt="NLC",
            intermediates_only=intermediates_only, output_dict=True, attn_mask=attn_mask, **kwargs,
        )  # fmt: skip
        heads = found.pop("image_intermediates_prefix", None)
        rows = found["image_intermediates"]
        rows = rows if heads is None else [torch.cat(pair, dim=1) for pair in zip(heads, rows, strict=True)]
        whole = [state.unmerge(row, at + 1) for at, row in zip(sorted(set(taken)), rows, strict=True)]
        grid = self.patch_embed.dynamic_feat_size(x.shape[2:]) if output_fmt == "NCHW" else None
        maps: list[Any] = [patch_map(row, self.num_prefix_tokens, grid) for row in whole]
        found["image_intermediates"] = maps
        if not intermediates_only:
            end = last + 1 if stop_early else len(self.blocks)
            found["image_features"] = state.unmerge(found["image_features"], end)
        if heads is not None and return_prefix_tokens:
            heads = [row[:, : self.num_prefix_tokens] for row in whole]
            found["image_intermediates_prefix"] = heads
            maps = maps if output_dict else list(zip(maps, heads, strict=True))
        if output_dict:
            return found
        return maps if intermediates_only else (found["image_features"], maps)


def patch_map(x: Tensor, prefix: int, grid: tuple[int, int] | None) -> Tensor:
    """The patches of all tokens [B, N, C], of which the first `prefix` are none: [B, C, H, W] on a `grid`, or
    [B, N - prefix, C]."""
    x = x[:, prefix:]
    return x if grid is None else x.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()


def _check_mlp(module: nn.Module) -> None:
    """Refuse an MLP that is not known to treat every token alone."""
    if getattr(type(module), "forward", None) not in [getattr(known, "forward", None) for known in _MLPS]:
        found = type(module)
        raise UnsupportedModelError(
            f"cannot patch: looked for an MLP of timm's {', '.join(known.__name__ for known in _MLPS)}, "
            f"found {found.__module__}.{found.__qualname__}, which may mix tokens"
        )


def _check_output(host: Any) -> str:
    """Refuse a head or pool whose result on merged tokens is not known, or not that on all tokens. Returns
    why merged tokens cannot come out where there is no pool."""
    if type(host).forward_head not in _HEADS or "forward_head" in vars(host):
        raise UnsupportedModelError(
            f"cannot patch {type(host).__name__}: it has a forward_head of its own, "
            "and how that one pools merged tokens is not known"
        )
    looked = "looked for global_pool 'token', 'avg' or 'map', found "
    if host.attn_pool is not None:
        check_class(host.attn_pool, AttentionPoolLatent, _EXPECTED[AttentionPoolLatent])
        if host.attn_pool.pos_embed is not None:
            raise UnsupportedModelError(
                f"cannot patch {type(host).__name__}: {looked}an attention pool with position embeddings "
                "of its own"
            )
    elif host.global_pool not in ("token", "avg"):
        if not host.global_pool:
            return f"{looked}'' (no pool: merged tokens come out without their positions)"
        why = "a maximum over merged tokens is not that over the tokens they stand for"
        raise UnsupportedModelError(
            f"cannot patch {type(host).__name__}: {looked}{host.global_pool!r} ({why})"
        )
    return ""


def _check_size(embed: Any, input_size: int | tuple[int, int] | None) -> tuple[int, int]:
    size: tuple[int, int] | None = embed.img_size
    if input_size is not None:
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
    if size is None:
        raise UsageError("the model takes any size; give input_size, e.g. input_size=224")
    if embed.strict_img_size and tuple(size) != tuple(embed.img_size):
        raise UsageError(
            f"input_size={input_size} does not fit: the model takes {tuple(embed.img_size)} only"
        )
    return size


def _layer_cost(block: Any) -> LayerCost:
    attn = block.attn
    return LayerCost(
        attn_token=_linear(attn),
        attn_pair=2 * attn.attn_dim,
        mlp_token=_linear(block.mlp),
        metric_dim=attn.head_dim,
        hidden_dim=attn.qkv.in_features,
        heads=attn.num_heads,
        attn_inputs=_linear(attn.qkv),
    )


def _pool_cost(host: Any) -> tuple[int, int]:
    """MACs of an attention pool: (whatever the tokens, per token that leaves the last block)."""
    pool = host.attn_pool
    if pool is None:
        return 0, 0
    per_token = _linear(pool.kv) + 2 * pool.latent_len * pool.num_heads * pool.head_dim
    fixed = pool.latent_len * (_linear(pool.q) + _linear(pool.proj) + _linear(pool.mlp))
    unseen = 0 if host.pool_include_prefix else host.num_prefix_tokens
    return fixed - unseen * per_token, per_token


def _linear(module: nn.Module | None) -> int:
    """Multiply-accumulates of all linear layers in `module`, for one token."""
    if module is None:
        return 0
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
