"""Closed-form cost of a transformer whose layers remove tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pitome.merge.registry import Method
from pitome.merge.schedule import Schedule


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates of one block, for one image.

    attn_token: of the attention's projections, per token; attn_pair: of the attention product,
    per pair of tokens (scores and values); mlp_token: of the MLP, per token; metric_dim: width of
    the keys once averaged over heads; hidden_dim: width of the features; heads: their number.
    """

    attn_token: int
    attn_pair: int
    mlp_token: int
    metric_dim: int
    hidden_dim: int
    heads: int


@dataclass(frozen=True)
class Architecture:
    """What a closed form needs to know of a model at one input size.

    tokens: entering the first block, protected ones counted; stem: MACs of the patch embedding;
    head: MACs of everything behind the last block; patches: tokens made by the patch embedding;
    classes: outputs of the head; patch_inputs: numbers in one patch (C * p * p);
    family: deit, mae, clip, ...
    """

    tokens: int
    protected: int
    layers: tuple[LayerCost, ...]
    stem: int
    head: int
    patches: int
    classes: int
    patch_inputs: int
    family: str


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one forward pass for one image, by part.

    tokens: entering each block, then the final count (L + 1 numbers); stem and head as in
    `Architecture`; attention and mlp: all blocks together; plan: what the merge method itself
    computes (its matrix products and, where it ranks by class attention, the class token's row).
    """

    tokens: tuple[int, ...]
    stem: int
    attention_macs: int
    mlp_macs: int
    plan_macs: int
    head: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates, all parts."""
        return self.model_macs + self.plan_macs

    @property
    def model_macs(self) -> int:
        """Multiply-accumulates of the model alone, without the merge method's own."""
        return self.stem + self.attention_macs + self.mlp_macs + self.head

    @property
    def flops(self) -> int:
        """Floating point operations: two per multiply-accumulate."""
        return 2 * self.macs


def closed_form(
    architecture: Architecture,
    schedule: Schedule | None = None,
    method: Method | None = None,
    options: Any = None,
) -> Cost:
    """Cost of one image from the schedule alone, without running the model.

    Attention is paid at the tokens that enter a block, the MLP at those the merge leaves; with
    `options.position == "after_block"` both at those that enter. `options` are resolved for the
    model's family (`Method.resolve`). Without a schedule: the unmerged model. Only matrix
    products count, as in torch's FlopCounterMode.
    """
    n = architecture.tokens
    tokens, attention, mlp, plan = [n], 0, 0, 0
    for index, layer in enumerate(architecture.layers):
        attention += n * layer.attn_token + n * n * layer.attn_pair
        left = n
        if schedule is not None and method is not None:
            remove = _removed(architecture, schedule, method, options, index, n)
            plan += _plan_macs(architecture, layer, method, options, n, remove)
            left = n - remove
        after_block = schedule is not None and options.position == "after_block"
        mlp += (n if after_block else left) * layer.mlp_token
        n = left
        tokens.append(n)
    return Cost(tuple(tokens), architecture.stem, attention, mlp, plan, architecture.head)


def _protected(architecture: Architecture, options: Any) -> int:
    return architecture.protected if options.protected is None else options.protected


def _removed(
    architecture: Architecture, schedule: Schedule, method: Method, options: Any, layer: int, n: int
) -> int:
    return schedule.remove(layer, n, _protected(architecture, options), method.count, method.limit)


def _plan_macs(
    architecture: Architecture, layer: LayerCost, method: Method, options: Any, n: int, remove: int
) -> int:
    if remove == 0:
        return 0
    dim = layer.metric_dim if options.metric == "keys" else layer.hidden_dim
    macs = method.macs(n, _protected(architecture, options), dim, remove, options)
    # The class query against all keys, every head.
    return macs + (layer.heads * layer.metric_dim * n if method.needs_cls_attention else 0)
