"""Which patches of an image, or words of a text, ended up together, layer by layer, and the energy they
were ranked by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pitome
from pitome.adapters.patch import Patched
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge import registry
from pitome.merge.energy import energy
from pitome.merge.methods.pitome import PitomeOptions
from pitome.merge.plan import AnyPlan, Tokens, cosine
from pitome.merge.registry import Method

DROPPED = -1


@dataclass(frozen=True)
class Step:
    """The patches of B images after one layer (or, the first, before all), on their grid; the N tokens of a
    text are a grid of one row."""

    tokens: int  # left, class token and the like counted
    groups: np.ndarray  # [B, rows, columns] the token that holds each patch, DROPPED where none does
    size: np.ndarray  # of the same shape: input tokens that this token holds
    # likewise: the PiToMe energy by which the layer ranked its token; NaN: not ranked; None: nothing was
    energy: np.ndarray | None = None


@dataclass(frozen=True)
class Followed:
    """One method on B images, or on one text."""

    method: str
    steps: list[Step]  # L + 1
    probabilities: np.ndarray | None  # [B, classes]; None without a classifier

    @property
    def ranks(self) -> bool:
        """Whether the method ranks tokens by energy in any layer."""
        return any(step.energy is not None for step in self.steps)


def follow(
    model: nn.Module,
    inputs: Tensor,
    method: str,
    amount: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    *,
    run: Callable[[Tensor], Any] | None = None,
) -> Followed:
    """Run `model` once on images [B, C, H, W] or on the token ids [1, N] of a text, merging by `method`,
    and keep what every layer did.

    amount: ratio, r, flops, ... as for `pitome.patch`; run: the part of the model that reads images, where
    it is not the whole (then there are no predictions). The model is left as it was. Raises what
    `pitome.patch` raises; UnsupportedModelError if its patches are not a square grid; UsageError for
    a method that does not group tokens.
    """
    text = inputs.ndim == 2
    size = inputs.shape[-1] if text else (int(inputs.shape[-2]), int(inputs.shape[-1]))
    watched, energies = _watched(method)
    with (
        torch.no_grad(),
        pitome.patch(model, watched, trace=True, input_size=size, **amount, **(options or {})) as handle,
    ):
        output = (run or model)(inputs)
        grid = _grid(handle.architecture(size).patches, text)
        steps = [
            _step(handle, layer, grid, energies.get(layer - 1)) for layer in range(handle.state.depth + 1)
        ]
    judges = run is None and bool(getattr(model, "num_labels" if text else "num_classes", 0))
    logits = getattr(output, "logits", output)
    return Followed(
        method=handle.method.name,
        steps=steps,
        probabilities=logits.double().softmax(-1).cpu().numpy() if judges else None,
    )


def _grid(patches: int, text: bool) -> tuple[int, int]:
    """Rows and columns."""
    side = math.isqrt(patches)
    if text:
        return 1, patches
    if side * side != patches:
        raise UnsupportedModelError(f"the {patches} patches of this model are not a square grid to draw")
    return side, side


def _watched(name: str) -> tuple[Method, dict[int, Tensor]]:
    """The method, and layer -> energies [B, N], of protected tokens NaN: filled while a model runs so."""
    method, energies = registry.get(name), {}

    def plan(tokens: Tokens, remove: Any, options: Any) -> AnyPlan:
        if isinstance(options, PitomeOptions) and options.rank_by == "energy":
            energies[tokens.layer] = _energies(tokens, options)
        return method.plan(tokens, remove, options)

    return dataclasses.replace(method, plan=plan), energies


def _energies(tokens: Tokens, options: PitomeOptions) -> Tensor:
    """Eq. 4 of arXiv 2405.16148 for the tokens that the layer ranks."""
    unit = cosine(tokens.metric[:, tokens.protected :])
    margin = options.margin - options.margin_slope * (tokens.layer / tokens.depth)
    ranked = energy(unit @ unit.transpose(1, 2), options.energy, margin, options.alpha)
    return torch.cat([ranked.new_full((len(ranked), tokens.protected), torch.nan), ranked], dim=1)


def _step(handle: Patched, layer: int, grid: tuple[int, int], energies: Tensor | None) -> Step:
    membership = handle.state.last.membership
    groups, held = _groups(membership[layer], grid)
    ranked = None
    if energies is not None:
        # The layer ranked the tokens that entered it.
        before, _ = _groups(membership[layer - 1], grid)
        ranked = np.where(before < 0, np.nan, _take(energies.double().cpu().numpy(), before))
    return Step(handle.tokens[layer], groups, held, ranked)


def _groups(membership: Tensor | None, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Membership [B, N, S] -> the row that holds each patch and its size, both [B, *grid]."""
    assert membership is not None, "patched with trace=True and run"
    held = membership.bool()
    count = held.sum(dim=1)
    if (count > 1).any() or not torch.equal(held.to(membership.dtype), membership):
        raise UsageError("this method spreads tokens over several others, so there are no groups to draw")
    rows = held.to(torch.uint8).argmax(dim=1).masked_fill(count == 0, DROPPED)
    patches = slice(membership.shape[-1] - math.prod(grid), None)  # after class and register tokens
    groups = rows[:, patches].reshape(-1, *grid).cpu().numpy()
    sizes = _take(held.sum(dim=2).cpu().numpy(), groups)
    return groups, np.where(groups < 0, 0, sizes)


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values [B, N] of `rows` [B, h, w], whatever stands where a row is negative."""
    batch = np.arange(len(rows))[:, None, None]
    taken: np.ndarray = values[batch, np.maximum(rows, 0)]
    return taken
