"""Closed-form cost of a transformer whose layers remove tokens."""

from __future__ import annotations

from dataclasses import dataclass


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
