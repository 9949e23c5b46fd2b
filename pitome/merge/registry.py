"""The merge methods by name, their options and what each guarantees."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pitome.merge
from pitome.errors import UsageError, nearest
from pitome.merge.checks import explain, fits
from pitome.merge.plan import Plan, Tokens
from pitome.merge.schedule import CountFunction, LimitFunction, count_unprotected, limit_unprotected


@dataclass(frozen=True)
class MethodOptions:
    """Options every method has; a method's own options extend this class.

    prop_attn: add log(size) to the attention logits (proportional attention).
    metric: what similarity is measured on: `keys` (mean over heads) or `hidden` (the features).
    position: where a layer merges: `before_mlp` (between attention and MLP) or `after_block`.
    protected: how many leading tokens never move; None: class, distillation and register tokens.

    Raises UsageError for a value that does not fit the type of its field (bool, int, float, str,
    Literal, Sequence, or None where the field allows it).
    """

    prop_attn: bool = True
    metric: Literal["keys", "hidden"] = "keys"
    position: Literal["before_mlp", "after_block"] = "before_mlp"
    protected: int | None = None

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if not fits(value, hint):
                raise UsageError(f"{field.name}={value!r} {explain(value, hint)}")
        if self.protected is not None and self.protected < 0:
            raise UsageError(f"protected={self.protected} is negative; give a number of leading tokens")


@dataclass(frozen=True)
class Guarantees:
    """What a method promises. The shared tests check each promise, and look for a
    counter-example where it is not made."""

    conserves_mass: bool = True  # sizes always add up to the number of input tokens
    prunes: bool = False  # some tokens leave nothing in any output
    proportional: bool = True  # merging equal tokens leaves the model's output as it was
    equivariant: bool = False  # permuting unprotected tokens does not change the groups
    keeps_protected_first: bool = True  # leading tokens stay first, in order, unchanged
    identity_at_1: bool = True  # nothing to remove: the sequence is returned as it is
    needs_class_token: bool = False


PlanFunction = Callable[[Tokens, int, Any], Plan]


@dataclass(frozen=True)
class Method:
    """A registered method.

    plan(tokens, remove, options) -> Plan decides one layer.
    resolve(options, family, depth) -> options fills what depends on the model's family.
    count(n, protected, ratio, layer) -> int: tokens a layer of `n` removes at `ratio`.
    limit(n, protected) -> int: the most tokens one layer of `n` can remove.
    macs(n, protected, dim, remove, options) -> int: multiply-accumulates of one plan (one
    image), as FlopCounterMode counts them: matrix products only.
    kept(options) -> one count per layer (tokens kept, class token counted) if the options are a
    schedule of their own, else None.
    """

    name: str
    plan: PlanFunction
    options: type[MethodOptions]
    guarantees: Guarantees
    source: str
    needs_cls_attention: bool
    count: CountFunction
    limit: LimitFunction
    macs: Callable[[int, int, int, int, Any], int]
    resolve: Callable[[Any, str, int], Any]
    kept: Callable[[Any], Sequence[int] | None]

    def build_options(self, values: dict[str, Any]) -> MethodOptions:
        """Typed options from keyword arguments. Raises UsageError for an unknown name."""
        known = {f.name for f in dataclasses.fields(self.options)}
        for key in values:
            if key not in known:
                raise UsageError(f"merge={self.name} has no option {key!r}; {nearest(key, known)}")
        try:
            return self.options(**values)
        except UsageError as error:
            raise UsageError(f"merge={self.name}: {error}") from None


_METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    options: type[MethodOptions] = MethodOptions,
    guarantees: Guarantees | None = None,
    source: str = "",
    needs_cls_attention: bool = False,
    count: CountFunction = count_unprotected,
    limit: LimitFunction = limit_unprotected,
    macs: Callable[[int, int, int, int, Any], int] = lambda n, protected, dim, remove, options: 0,
    resolve: Callable[[Any, str, int], Any] = lambda options, family, depth: options,
    kept: Callable[[Any], Sequence[int] | None] = lambda options: None,
) -> Callable[[PlanFunction], PlanFunction]:
    """Make a plan function known as `merge=<name>`. Raises UsageError if the name is taken."""

    def add(plan: PlanFunction) -> PlanFunction:
        if name in _METHODS and _METHODS[name].plan is not plan:
            raise UsageError(f"a merge method named {name!r} is registered already")
        _METHODS[name] = Method(
            name=name,
            plan=plan,
            options=options,
            guarantees=guarantees or Guarantees(),
            source=source,
            needs_cls_attention=needs_cls_attention,
            count=count,
            limit=limit,
            macs=macs,
            resolve=resolve,
            kept=kept,
        )
        return plan

    return add


def get(name: str) -> Method:
    """The method registered as `name`. Raises UsageError with the nearest names."""
    _load_package()
    if name not in _METHODS:
        raise UsageError(f"unknown merge method {name!r}; {nearest(name, _METHODS)}")
    return _METHODS[name]


def names() -> list[str]:
    """All registered names, sorted."""
    _load_package()
    return sorted(_METHODS)


@functools.cache
def _load_package() -> None:
    """Import the modules of this package, which register their methods: not before a name is
    looked up, so that schedules can be checked without torch."""
    for module in pkgutil.iter_modules(pitome.merge.__path__):
        importlib.import_module(f"pitome.merge.{module.name}")


def one_of(what: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(f"{what}={value!r} is not known; {nearest(str(value), map(str, choices))}")
