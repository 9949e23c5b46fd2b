"""How many tokens each layer removes, known before the forward runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pitome.errors import UsageError
from pitome.fields import check, number, whole
from pitome.sources.schedule_file import MADE, PUBLISHED, KeptTokens, check_falling, find_schedule

_DEEPEST = 10_000  # layers of a model that is not known yet

_EXCLUSIVE = ("ratio", "r", "flops", "schedule", "keep")
ONE_OF = "ratio, r, flops and schedule"  # of a method that merges in layers

CountFunction = Callable[[int, int, float, int], int]  # (n, protected, ratio, layer) -> removed
LimitFunction = Callable[[int, int], int]  # (n, protected) -> the most that can be removed


def count_unprotected(n: int, protected: int, ratio: float, layer: int) -> int:
    """Removals of one layer that keeps the share `ratio` of its T = n - protected tokens.

    The first term has exactly this form in double precision (T - T*q, not T*(1-q)): the two
    differ for T=10, q=0.9.
    """
    mergeable = max(n - protected, 0)
    return min(math.floor(mergeable - mergeable * ratio), mergeable // 2)


def limit_unprotected(n: int, protected: int) -> int:
    """Every pair gives up at most one token."""
    return max(n - protected, 0) // 2


def all_unprotected(n: int, protected: int) -> int:
    """Nothing that is removed needs a partner."""
    return max(n - protected, 0)


def all_but_one(n: int, protected: int) -> int:
    """One unprotected token is left for the others to join."""
    return max(n - protected - 1, 0)


def count_all(n: int, protected: int, ratio: float, layer: int) -> int:
    """As the PiToMe repository counts for ToMe and ToFu: all tokens, up to all of set A."""
    return min(math.floor(n - n * ratio), (n + 1) // 2)


@dataclass(frozen=True)
class Schedule:
    """The rule for every layer of a model of `depth` blocks.

    Exactly one is set, with one entry per layer: `ratios` (share kept), `removals` (tokens
    removed) or `kept` (tokens kept, protected ones counted). A layer that does not merge has
    ratio 1.0 or removal 0.
    """

    ratios: tuple[float, ...] | None = None
    removals: tuple[int, ...] | None = None
    kept: tuple[int, ...] | None = None

    @property
    def depth(self) -> int:
        return len(self.ratios or self.removals or self.kept or ())

    def may_remove(self, layer: int) -> bool:
        """Whether `layer` runs a method at all: at a ratio below 1, at a removal above 0, and at any
        number of tokens to keep."""
        if self.ratios is not None:
            return self.ratios[layer] < 1
        return self.removals is None or self.removals[layer] > 0

    def remove(
        self,
        layer: int,
        n: int,
        protected: int,
        count: CountFunction,
        limit: LimitFunction,
    ) -> int:
        """Tokens that `layer` removes from `n`."""
        if self.ratios is not None:
            ratio = self.ratios[layer]
            return max(count(n, protected, ratio, layer), 0) if self.may_remove(layer) else 0
        if self.kept is not None:
            return max(n - self.kept[layer], 0)
        assert self.removals is not None
        return max(min(self.removals[layer], limit(n, protected)), 0)


@dataclass(frozen=True)
class Reduction:
    """How much to merge, as it is asked for: one of ratio, r, flops, schedule and keep; none of them where
    the options of a method are a schedule, or nothing merges.

    Raises UsageError for values that do not fit, and for those that exclude each other.
    """

    # share of its tokens that a layer keeps, in (0, 1], or one share per layer
    ratio: float | Sequence[float] | None = number(
        None, above=0, most=1, hint="; give the share of tokens a layer keeps, e.g. 0.925"
    )
    # tokens that a layer removes, or one number per layer
    r: int | Sequence[int] | None = whole(None, least=0, hint="; give the tokens a layer removes, e.g. 16")
    # with a single r, ToMe's slope over depth (facebookresearch/ToMe, tome/utils.py, parse_r): -1 starts at
    # 2r and falls to 0, 1 the reverse, 0 is constant
    inflection: float | None = number(None, least=-1, most=1)
    # share of the unmerged cost, in (0, 1]: the largest ratio that does not exceed it
    flops: float | None = number(
        None, above=0, most=1, hint="; give a share of the unmerged cost, e.g. flops=0.7"
    )
    # tokens that each layer leaves, protected ones counted: a list, a file, or published/MODEL@GFLOPS
    schedule: str | Sequence[int] | None = None
    # tokens of an image kept after the tower of a vision-language model: a number, or a share in (0, 1]
    keep: int | float | None = None
    # where to merge: indices, or firstK, lastK, everyK; None: in all layers
    layers: str | Sequence[int] | None = None

    def __post_init__(self) -> None:
        parse_layers(self.layers, _DEEPEST)  # its form; the model knows its depth
        check(self)
        check_keep(self.keep)
        if len(self.given) > 1:
            raise UsageError(
                f"{' and '.join(self.given)} exclude each other: give exactly one of {', '.join(_EXCLUSIVE)}"
            )
        if self.keep is not None and self.layers is not None:
            raise UsageError(
                "layers is for methods that merge in the layers of a tower; leave it out with keep"
            )
        if self.schedule is not None:
            find_schedule(self.schedule)
            check_whole_schedule(self.inflection, self.layers)
        if self.inflection is not None and not isinstance(self.r, int):
            raise UsageError("inflection goes with a single r, e.g. r=8 inflection=-1")

    @property
    def given(self) -> list[str]:
        """Those of ratio, r, flops, schedule and keep that were given: one at most."""
        return [name for name in _EXCLUSIVE if getattr(self, name) is not None]

    def grown(self, share: float) -> Reduction:
        """This share of the merging: at 0 nothing, at 1 all of it. Only of a ratio, r or flops."""

        def part(value: Any, nothing: int) -> Any:
            if isinstance(value, Sequence):
                return [part(entry, nothing) for entry in value]
            grown = nothing + share * (value - nothing)
            return round(grown) if isinstance(value, int) and not nothing else grown

        name = self.given[0]
        return replace(self, **{name: part(getattr(self, name), 0 if name == "r" else 1)})

    def asked(self) -> dict[str, Any]:
        """Name -> value of everything that was given; of a file its name alone."""
        given = vars(self) | {"schedule": shown_schedule(self.schedule)}
        return {name: value for name, value in given.items() if value is not None}


AMOUNTS = tuple(field.name for field in fields(Reduction) if field.name != "layers")
"""What says how much is merged."""


def check_keep(keep: int | float | None) -> None:
    """Raise UsageError for anything but an amount of image tokens to keep: a whole number from 1 on, or a
    share in (0, 1]."""
    if keep is None or (type(keep) is int and keep >= 1) or (isinstance(keep, float) and 0 < keep <= 1):
        return
    raise UsageError(
        f"keep={keep} is neither a number of image tokens (1, 2, ...) nor a share of them in (0, 1], "
        "e.g. keep=0.25"
    )


def check_place(
    name: str, places: Sequence[str], keep: int | float | None, place: str | None, others: Sequence[str] = ()
) -> Literal["projector", "language"]:
    """The place after an image tower at which the method `name`, of these `places`, is used.

    keep, place: as asked for; others: amounts given beside `keep`. Raises UsageError.
    """
    here = [other for other in places if other != "tower"]
    if place is None and here:
        place = here[0]
    if not here:
        raise UsageError(
            f"merge={name} merges in the layers of a model, not after an image tower; "
            "give ratio or r instead of keep"
        )
    if place not in here:
        raise UsageError(f"merge={name} cannot be used at place={place}, but at {' and '.join(here)}")
    if others:
        raise UsageError(f"merge={name} takes keep, not {' and '.join(others)}; give e.g. keep=0.25")
    if keep is None:
        raise UsageError(f"merge={name} needs keep: a number of image tokens, or a share, e.g. keep=0.25")
    check_keep(keep)
    return "projector" if place == "projector" else "language"


def check_layer(layer: int, depth: int) -> None:
    """Raise UsageError for a layer of a language model of `depth` layers before which no tokens can go."""
    if not 1 <= layer < depth:
        raise UsageError(
            f"layer={layer} is not one that tokens can be taken out before: the language model has layers "
            f"0 to {depth - 1}, and the one before it is read"
        )


def kept_of(keep: int | float, tokens: int) -> int:
    """How many of `tokens` image tokens stay: never more than there are, and one at least."""
    return min(keep, tokens) if isinstance(keep, int) else max(round(tokens * keep), 1)


def shown_schedule(schedule: str | Sequence[int] | None) -> str | Sequence[int] | None:
    """A schedule as a record keeps it: of a file, the name without its folder."""
    if not isinstance(schedule, str) or schedule.startswith((PUBLISHED, *MADE)):
        return schedule
    return schedule.rpartition("/")[2]


def parse_layers(layers: str | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Indices of the layers that merge: a list, or `firstK`, `lastK`, `everyK`; None: all.

    Raises UsageError for anything else; colon ranges are refused because YAML reads 1:3 as 63.
    """
    if layers is None:
        return tuple(range(depth))
    if isinstance(layers, str):
        everything = range(depth)
        for word in ("first", "last", "every"):
            number = layers.removeprefix(word)
            if layers.startswith(word) and number.isdigit() and (k := int(number)) > 0:
                return tuple(
                    {"first": everything[:k], "last": everything[-k:], "every": everything[::k]}[word]
                )
        raise UsageError(
            f"layers={layers!r} is not known; give a list such as [0,1,2], or first3, last3, every2"
        )
    if isinstance(layers, int):
        raise UsageError(f"layers={layers!r} is a single number; give a list such as [{layers}] or first3")
    for index in layers:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < depth:
            raise UsageError(
                f"layers: {index!r} is not a layer of this model; it has layers 0 to {depth - 1}"
            )
    return tuple(sorted(set(layers)))


def build_schedule(
    depth: int,
    *,
    ratio: float | Sequence[float] | None = None,
    r: int | Sequence[int] | None = None,
    inflection: float | None = None,
    layers: str | Sequence[int] | None = None,
) -> Schedule:
    """A schedule from one of `ratio` and `r`, see `Reduction`, for a model of `depth` blocks.

    A list `r` that is shorter than the depth removes nothing in the layers it does not name.
    Raises UsageError on anything that does not fit.
    """
    if not Reduction(ratio=ratio, r=r, inflection=inflection, layers=layers).given:
        raise UsageError(f"give exactly one of {ONE_OF}")
    chosen = parse_layers(layers, depth)
    if r is None:
        shares = _per_layer("ratio", ratio, depth)
        return Schedule(ratios=tuple(float(q) if i in chosen else 1.0 for i, q in enumerate(shares)))
    if isinstance(r, int):
        counts: Sequence[int] = _inflect(r, inflection or 0.0, depth)
    else:
        counts = _per_layer("r", [*r, *[0] * (depth - len(r))], depth)
    return Schedule(removals=tuple(n if i in chosen else 0 for i, n in enumerate(counts)))


def check_whole_schedule(inflection: float | None, layers: str | Sequence[int] | None) -> None:
    """Raise UsageError for what a schedule, which names every layer, leaves no room for."""
    if inflection is not None or layers is not None:
        raise UsageError("a schedule names every layer; leave out inflection and layers")


def own_schedule(kept: Sequence[int]) -> KeptTokens:
    """The schedule that a method's options are. Raises UsageError for counts that rise."""
    check_falling("the schedule", kept)
    return KeptTokens(tuple(kept))


def kept_schedule(
    found: KeptTokens, depth: int, tokens: int | None, protected: int, name: str, most: LimitFunction
) -> Schedule:
    """A schedule from tokens kept, for a model of `depth` layers which `tokens` enter (None: not known, or
    any number). `most(n, protected)`: what the method `name` can remove from n tokens.

    Raises UsageError, one line, for the schedule of another model and for a layer that is to remove more than
    the method can.
    """
    kept = found.kept or found.ratio or ()
    if len(kept) != depth:
        raise UsageError(
            f"the schedule has {len(kept)} entries, the model has {depth} layers; give one per layer"
        )
    if found.ratio is not None:
        return Schedule(ratios=found.ratio)
    kept = found.kept
    if tokens is None:
        return Schedule(kept=kept)
    if found.tokens not in (None, tokens):
        raise UsageError(
            f"the schedule is another model's: it begins with {found.tokens} tokens, this model with {tokens}"
        )
    if kept[0] > tokens:
        raise UsageError(
            f"the schedule is another model's: it keeps {kept[0]} tokens in layer 0, which {tokens} enter"
        )
    before = tokens
    for layer, after in enumerate(kept):
        can = most(before, protected)
        if before - after > can:
            raise UsageError(
                f"the schedule removes {before - after} of {before} tokens in layer {layer}; "
                f"merge={name} can remove {can} of them"
            )
        before = after
    return Schedule(kept=kept)


def _inflect(r: int, inflection: float, depth: int) -> list[int]:
    if depth == 1:
        return [r]
    first = int(r * (1 - inflection))
    step = (2 * r - 2 * first) / (depth - 1)
    return [int(first + step * i) for i in range(depth)]


def _per_layer(what: str, values: Any, depth: int) -> Sequence[Any]:
    """One value for each layer, from one for all or one for each."""
    if not isinstance(values, Sequence):
        return [values] * depth
    if len(values) != depth:
        raise UsageError(
            f"{what} has {len(values)} entries, the model has {depth} layers; give one per layer"
        )
    return values
