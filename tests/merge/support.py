"""What the tests of the merge methods share: every method with every family, and random tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.plan import Plan, Tokens
from pitome.merge.registry import Method, MethodOptions

torch.set_num_threads(1)

FAMILIES = ("deit", "mae", "clip", "blip", "eva", "llava", "bert", "distilbert")
DEPTH = 4


@dataclass(frozen=True)
class Variant:
    """A method with its options for one family; a bare name has one variant."""

    method: Method
    family: str
    options: MethodOptions

    def protected(self, leading: int) -> int:
        return leading if self.options.protected is None else self.options.protected

    def remove(self, n: int, protected: int, ratio: float, layer: int) -> int:
        return max(self.method.count(n, protected, ratio, layer), 0) if ratio < 1 else 0

    def plan(self, tokens: Tokens, remove: int) -> Plan:
        return self.method.plan(tokens, remove, self.options)


def variants() -> list[Variant]:
    """Every registered method with every family it knows."""
    found = []
    for name in registry.names():
        method, seen = registry.get(name), []
        for family in FAMILIES:
            try:
                options = method.resolve(method.options(), family, DEPTH)
            except UsageError:
                continue
            if options not in seen:  # families that share their options are one variant
                seen.append(options)
                found.append(Variant(method, family, options))
    return found


def name_of(variant: Variant) -> str:
    return f"{variant.method.name}-{variant.family}"


def make_tokens(
    n: int,
    *,
    batch: int = 2,
    protected: int = 1,
    layer: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    width: int = 6,
) -> Tokens:
    """Random tokens: features [batch, n, width], metric [batch, n, 5], whole sizes 1 to 4."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size = torch.randint(1, 5, (batch, n), generator=generator)
    size[:, :protected] = 1  # they never merge
    return Tokens(
        x=normal(batch, n, width).to(dtype),
        metric=normal(batch, n, 5).to(wide),
        size=size.to(wide),
        protected=protected,
        layer=layer,
        depth=DEPTH,
        cls_attention=normal(batch, n).softmax(dim=-1).to(wide),
        attention=normal(batch, 2, n, n).softmax(dim=-1).to(wide),
        # of every second image nearly alike in length, where a method decides by image
        values=(normal(batch, 2, n, 3) * (1 - 0.999 * (torch.arange(batch) % 2))[:, None, None, None]).to(
            wide
        ),
        mlp=normal(batch, n, width).to(wide),
    )


# Field of `Tokens` -> the axes that run over tokens.
AXES = {
    "x": (1,),
    "metric": (1,),
    "size": (1,),
    "cls_attention": (1,),
    "attention": (2, 3),
    "values": (2,),
    "mlp": (1,),
}


def reorder(tokens: Tokens, order: torch.Tensor) -> Tokens:
    """The tokens at positions `order` [N], for all images."""
    parts = {name: getattr(tokens, name) for name in AXES}
    for name, axes in AXES.items():
        for axis in axes:
            parts[name] = parts[name].index_select(axis, order)
    return replace(tokens, **parts)


def each(tokens: Tokens, change: Callable[[torch.Tensor], torch.Tensor]) -> Tokens:
    """`change` of every tensor."""
    return replace(tokens, **{name: change(getattr(tokens, name)) for name in AXES})


def groups(plan: Plan) -> list[set[frozenset[int]]]:
    """For each image the sets of tokens that share an output row, dropped tokens as a set of their own."""
    found = []
    for rows in plan.assignment().tolist():
        members: dict[int, set[int]] = {}
        for position, row in enumerate(rows):
            members.setdefault(row, set()).add(position)
        dropped = frozenset(members.pop(-1, ()))
        found.append({frozenset(group) for group in members.values()} | ({dropped} if dropped else set()))
    return found


def dense(plan: Plan) -> torch.Tensor:
    """Which token ends in which row, [B, M, N] of 0 and 1, from `assignment` alone."""
    rows = plan.assignment()
    return (rows[:, None, :] == torch.arange(plan.n_out)[None, :, None]).double()
