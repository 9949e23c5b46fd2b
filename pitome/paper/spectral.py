"""Spectral distance between a graph of tokens and what merging leaves of it (arXiv 2405.16148, Section 3.3).

Tokens are nodes, their edges weigh 1 - cosine (Eq. 3). Merging makes groups; the graph is coarsened to one
node for each and lifted back to N nodes, and its spectrum compared with the one before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.plan import Plan, Tokens, cosine
from pitome.merge.schedule import build_schedule


def graph(x: Tensor) -> Tensor:
    """Edge weights 1 - cosine between tokens [N, C] -> [N, N] (Eq. 3); 0 from a token to itself."""
    unit = cosine(x.double()[None])[0]
    weights = (1 - unit @ unit.T).clamp_min(0)
    return weights.fill_diagonal_(0)


def coarsen(weights: Tensor, groups: Tensor) -> Tensor:
    """Mean weight between the members of every two groups (Definition 1): [N, N], groups [N], numbered
    from 0 -> [n, n]."""
    member = torch.nn.functional.one_hot(groups).to(weights)
    member = member / member.sum(dim=0)
    return member.T @ weights @ member


def lift(coarse: Tensor, groups: Tensor) -> Tensor:
    """Every node has the weights of its group (Definition 2): [n, n] -> [N, N]."""
    return coarse[groups][:, groups]


def spectrum(weights: Tensor) -> Tensor:
    """Eigenvalues of the normalized Laplacian I - D^-1/2 W D^-1/2, ascending: [N, N] -> [N]. A node
    without edges has no row in the product."""
    scale = weights.sum(dim=1).clamp_min(0)
    scale = torch.where(scale > 0, scale.rsqrt(), torch.zeros_like(scale))
    laplacian = torch.eye(len(weights), dtype=weights.dtype) - scale[:, None] * weights * scale
    values: Tensor = torch.linalg.eigvalsh(laplacian)
    return values


def distance(weights: Tensor, groups: Tensor) -> float:
    """Sum of the absolute differences of the sorted spectra before and after (Eq. 5)."""
    lifted = lift(coarsen(weights, groups), groups)
    return float((spectrum(weights) - spectrum(lifted)).abs().sum())


def merged_groups(x: Tensor, method: str, *, ratio: float, layers: int = 1) -> Tensor:
    """Which tokens a method puts together: tokens [N, C] -> numbers of groups [N], after some layers that
    each keep `ratio` of the tokens, merged features being those of the next. Similarity is measured on the
    tokens themselves, nothing is protected.

    Raises UsageError for a method that drops tokens or needs a class token: it leaves no partition.
    """
    entry = registry.get(method)
    promises = entry.guarantees
    if promises.prunes or promises.needs_class_token or not promises.groups:
        raise UsageError(f"merge={method} leaves no partition of all tokens; use one that only merges")
    options = entry.resolve(entry.build_options({}), "deit", layers)
    schedule = build_schedule(layers, ratio=ratio)
    groups, features = torch.arange(len(x)), x.double()[None]
    size = torch.ones(1, len(x), dtype=torch.float64)
    for layer in range(layers):
        n = features.shape[1]
        remove = schedule.remove(layer, n, 0, entry.count, entry.limit)
        tokens = Tokens(x=features, metric=features, size=size, protected=0, layer=layer, depth=layers)
        plan = entry.plan(tokens, remove, options)
        assert isinstance(plan, Plan)
        groups = plan.assignment()[0][groups]
        features, size = plan.apply(features), plan.sizes(size)
    return groups
