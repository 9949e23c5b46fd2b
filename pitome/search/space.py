"""Schedules that meet a target of cost: what a search varies, and how each of its points meets the target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pitome.errors import UsageError
from pitome.fields import parts, types_of
from pitome.merge.costs import (
    LEAST_RATIO,
    Architecture,
    ClosedForm,
    Mixture,
    closed_form,
    mixture_macs,
    ratio_for_share,
)
from pitome.merge.registry import Method
from pitome.merge.schedule import Schedule

_STEPS = 40  # of a bisection
_DIGITS = 1e4  # a share of tokens is written with four decimals
# Options that are numbers without limits of their own: a margin is a cosine, alpha a weight.
_RANGES = {"margin": (0.0, 0.9), "margin_slope": (0.0, 1.5), "alpha": (0.0, 2.0)}


@dataclass(frozen=True)
class Amount:
    """How much every layer merges, as `pitome.patch` takes it: one of the two is set."""

    schedule: tuple[int, ...] | None = None  # tokens that each layer leaves, protected ones counted
    ratio: tuple[float, ...] | None = None  # share of its tokens that each layer keeps

    def arguments(self) -> dict[str, list[int] | list[float]]:
        """The keyword of `pitome.patch`."""
        return {name: list(value) for name, value in vars(self).items() if value is not None}

    def rule(self) -> Schedule:
        return Schedule(ratios=self.ratio, kept=self.schedule)


@dataclass(frozen=True)
class Space:
    """The schedules of a method for a model whose cost is at most a share of the unmerged one.

    A point is one number per layer, 0 for all of them at first: the logarithm of how much of its tokens the
    layer removes beside the others. All are scaled together until the cost fits, so that every point meets
    the target to a few tokens.
    """

    mixture: Mixture  # the architecture at each number of tokens, and how many samples have it
    method: Method  # as it is in models of the architecture's family
    layers: tuple[int, ...]  # that may merge
    uniform_layers: tuple[int, ...]  # those of them in which the uniform ratio merges
    by_ratio: bool = False  # samples differ in their number of tokens: a layer keeps a share, not a number

    @property
    def architecture(self) -> Architecture:
        """At one number of tokens: that of all samples, unless these differ."""
        return self.mixture[0][0]

    def resolve(self, options: Mapping[str, Any]) -> Any:
        """The method's options as they are in this model."""
        built = self.method.build_options(dict(options))
        return self.method.resolve(built, self.architecture.family, len(self.architecture.layers))

    def cost(self, rule: Schedule, options: Any) -> ClosedForm:
        return closed_form(self.architecture, rule, self.method, options)

    def share(self, rule: Schedule, options: Any) -> float:
        """Of the unmerged cost, of all samples together."""
        return mixture_macs(self.mixture, rule, self.method, options) / mixture_macs(self.mixture)

    def uniform(self, target: float, options: Any) -> Amount:
        """What `flops=target` does: one ratio for all layers. Raises UsageError for a target out of reach."""
        chosen = self.uniform_layers
        ratio = ratio_for_share(self.mixture, target, self.method, options, chosen)
        ratios = tuple(ratio if i in chosen else 1.0 for i in range(len(self.architecture.layers)))
        if self.by_ratio:
            return Amount(ratio=ratios)
        return Amount(schedule=self.cost(Schedule(ratios=ratios), options).tokens[1:])

    def project(self, target: float, logs: Sequence[float], options: Any) -> Amount:
        """The schedule with these relative removals, one for each of `layers`, that costs `target` at most
        and little less. Raises UsageError, with the least share, where none does."""
        weights = dict(zip(self.layers, map(math.exp, logs), strict=True))
        fill = self._ratios if self.by_ratio else self._counts

        def amount(scale: float) -> Amount:
            return fill({layer: scale * weight for layer, weight in weights.items()}, options)

        def fits(amount: Amount) -> bool:
            return self.share(amount.rule(), options) <= target

        most = 1 / min(weights.values())
        if not fits(amount(most)):
            least = math.ceil(1e4 * self.share(amount(most).rule(), options)) / 1e4
            raise UsageError(
                f"flops={target:g} cannot be reached with merge={self.method.name}: merging all it can "
                f"leaves {least:.4f} of the unmerged cost; give at least that"
            )
        low, high = 0.0, most
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(amount(middle)) else (middle, high)
        best = amount(high)
        return best if self.by_ratio else self._give_back(best, fits)

    def _most(self, n: int, options: Any) -> int:
        """The most tokens that a layer of `n` can remove; one that is not protected stays."""
        protected = self.architecture.protected if options.protected is None else options.protected
        limit = self.method.most or self.method.limit
        return max(min(limit(n, protected), n - protected - 1), 0)

    def _counts(self, shares: dict[int, float], options: Any) -> Amount:
        protected = self.architecture.protected if options.protected is None else options.protected
        n, kept = self.architecture.tokens, []
        for layer in range(len(self.architecture.layers)):
            wanted = math.floor(shares.get(layer, 0.0) * max(n - protected, 0))
            n -= min(wanted, self._most(n, options))
            kept.append(n)
        return Amount(schedule=tuple(kept))

    def _ratios(self, shares: dict[int, float], options: Any) -> Amount:
        def ratio(layer: int) -> float:
            return math.floor(_DIGITS * max(1 - shares.get(layer, 0.0), LEAST_RATIO)) / _DIGITS

        return Amount(ratio=tuple(ratio(layer) for layer in range(len(self.architecture.layers))))

    def _give_back(self, amount: Amount, fits: Callable[[Amount], bool]) -> Amount:
        """The same with tokens given back, the first layers first, as long as the cost fits."""
        kept = list(amount.schedule or ())
        for layer in self.layers:
            before = ([self.architecture.tokens, *kept])[layer]
            more = Amount(schedule=(*kept[:layer], *(count + 1 for count in kept[layer:])))
            if kept[layer] < before and fits(more):
                kept = list(more.schedule or ())
        return Amount(schedule=tuple(kept))


@dataclass(frozen=True)
class Option:
    """An option of a method that a search varies: one of `choices`, or a number between two limits."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0


def options_of(method: Method, names: Sequence[str]) -> list[Option]:
    """What a search can make of these options. Raises UsageError for a name that the method has not, or whose
    values have no limits."""
    hints, found = types_of(method.options), []
    method.build_options(dict.fromkeys(set(names) - hints.keys()))  # names the nearest
    for name in names:
        (hint, *others) = [part for part in parts(hints[name]) if part is not type(None)]
        if hint is bool:
            found.append(Option(name, (True, False)))
        elif get_origin(hint) is Literal:
            found.append(Option(name, get_args(hint)))
        elif name in _RANGES and hint is float and not others:
            found.append(Option(name, low=_RANGES[name][0], high=_RANGES[name][1]))
        else:
            can = [f.name for f in dataclasses.fields(method.options) if _searchable(f.name, hints[f.name])]
            raise UsageError(
                f"search.options: {name} of merge={method.name} has no limits between which to search; "
                f"those that can be searched: {', '.join(can)}"
            )
    return found


def _searchable(name: str, hint: Any) -> bool:
    return name in _RANGES or any(part is bool or get_origin(part) is Literal for part in parts(hint))
