"""timm: `VisionTransformer` models built from `vision_transformer.Block` (checked on 1.0.31).

DeiT, AugReg ViT and models that pool the mean of their tokens (MAE). The keys are read behind
`attn.k_norm`, the size bias goes in as `attn_mask`, tokens merge between attention and MLP.
"""

from __future__ import annotations

import types
from typing import Any

from timm.layers import Attention, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from pitome.adapters.core import Adapter, Site, State, Tap
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.costs import Architecture, LayerCost

# Class -> the methods the patch replaces or relies on; another implementation is refused.
_EXPECTED: dict[type, tuple[str, ...]] = {
    VisionTransformer: ("forward", "forward_features", "pool", "forward_intermediates"),
    Block: ("forward",),
    Attention: ("forward",),
}


def adapt(model: nn.Module) -> TimmAdapter:
    """The adapter of the one `VisionTransformer` in `model`.

    Raises UnsupportedModelError if there is none or more than one, or if it computes something
    the patch does not know.
    """
    found = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    if len(found) != 1:
        what = f"{len(found)} of them" if found else f"{type(model).__module__}.{type(model).__qualname__}"
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: looked for one timm VisionTransformer made of "
            f"vision_transformer.Block, found {what}; pass the part of the model that is one"
        )
    host: Any = found[0]
    _check_class(host, VisionTransformer)
    for block in host.blocks:
        _check_class(block, Block)
        _check_class(block.attn, Attention)
    heads = (VisionTransformer.forward_head, VisionTransformerDistilled.forward_head)
    if type(host).forward_head not in heads or "forward_head" in vars(host):
        raise UnsupportedModelError(
            f"cannot patch {type(host).__name__}: it has a forward_head of its own, "
            "and how that one pools merged tokens is not known"
        )
    pool = (
        type(host.attn_pool).__name__ if host.attn_pool is not None else f"global_pool={host.global_pool!r}"
    )
    if host.attn_pool is not None or host.global_pool not in ("token", "avg"):
        raise UnsupportedModelError(
            f"cannot patch {type(host).__name__}: looked for global_pool 'token' or 'avg', found {pool}"
        )
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

    def attach(self, state: State) -> None:
        host = self.host
        host.pool = types.MethodType(_pool, host)
        host.forward_intermediates = types.MethodType(_refuse_intermediates, host)
        for layer, block in enumerate(host.blocks):
            site = Site(state, layer)
            block._pitome = site
            block.forward = types.MethodType(_forward, block)
            if site.needs_keys:
                block.attn.k_norm.register_forward_hook(Tap(site, "keys"))
            if site.needs_cls_query:
                block.attn.q_norm.register_forward_hook(Tap(site, "cls_query"))

    def detach(self) -> None:
        del self.host.pool, self.host.forward_intermediates
        for block in self.host.blocks:
            del block._pitome, block.forward
            for norm in (block.attn.q_norm, block.attn.k_norm):
                # By type, not by handle: a deepcopy has hooks of its own.
                taps = [key for key, hook in norm._forward_hooks.items() if isinstance(hook, Tap)]
                for key in taps:
                    del norm._forward_hooks[key]

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
        return Architecture(
            tokens=patches + host.num_prefix_tokens,
            protected=host.num_prefix_tokens,
            layers=tuple(_layer_cost(block) for block in host.blocks),
            stem=patches * embed.proj.weight.numel(),
            head=_linear(host.head) + _linear(getattr(host, "head_dist", None)),
            patches=patches,
            classes=host.num_classes,
            patch_inputs=embed.proj.weight[0].numel(),
            family=self.family,
        )

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """A blank image [1, C, H, W]. Raises UsageError for a size the model does not take."""
        embed = self.host.patch_embed
        return embed.proj.weight.new_zeros(1, embed.proj.in_channels, *_check_size(embed, input_size))


def _forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """`Block.forward` with a merge between its two halves, or behind them."""
    if attn_mask is not None or is_causal:
        raise UsageError("a patched model takes no attn_mask: its tokens no longer match the mask's")
    site: Site = self._pitome
    bias = site.enter(x)
    before_mlp = site.state.options.position == "before_mlp"
    x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=bias)))
    if before_mlp:
        x = site.merge(x, self.attn.scale)
    x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
    return x if before_mlp else site.merge(x, self.attn.scale)


def _pool(self: Any, x: Tensor, pool_type: str | None = None) -> Tensor:
    """`VisionTransformer.pool` on merged tokens: a mean counts every input token once."""
    size = self._pitome.state.size[-1]
    kind = self.global_pool if pool_type is None else pool_type
    if self.attn_pool is not None or kind not in ("", "token", "avg"):
        raise UsageError(f"pool {kind!r} does not know merged tokens; use token or avg, or remove the patch")
    if size is None or kind != "avg":
        return type(self).pool(self, x, pool_type)
    start = 0 if self.pool_include_prefix else self.num_prefix_tokens
    weight = size[:, start:, None]
    total = weight.sum(dim=1)
    # A method without protection can leave no patch token at all: zeros then, not NaN.
    return ((x[:, start:] * weight).sum(dim=1) / total.masked_fill(total == 0, 1)).to(x.dtype)


def _refuse_intermediates(self: Any, *args: object, **kwargs: object) -> None:
    raise UsageError("a patched model has no map of features per position; call remove() on the patch first")


def _check_class(module: nn.Module, expected: type) -> None:
    """Refuse a module that computes something else than `expected` does."""
    name = expected.__qualname__
    for method in _EXPECTED[expected]:
        if getattr(type(module), method, None) is not getattr(expected, method):
            found = type(module)
            raise UnsupportedModelError(
                f"cannot patch: looked for timm's {name}.{method}, "
                f"found {found.__module__}.{found.__qualname__} with one of its own"
            )
        if method in vars(module):
            raise UnsupportedModelError(
                f"cannot patch: {method} of a {name} was replaced already, by another patch; undo that first"
            )


def _check_size(embed: PatchEmbed, input_size: int | tuple[int, int] | None) -> tuple[int, int]:
    if input_size is None:
        size = embed.img_size
    else:
        size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
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
    )


def _linear(module: nn.Module | None) -> int:
    """Multiply-accumulates of all linear layers in `module`, for one token."""
    if module is None:
        return 0
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
