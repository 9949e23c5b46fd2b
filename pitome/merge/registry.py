"""The merge methods by name, their options and what each guarantees."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import pkgutil
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pitome.merge.methods
from pitome.errors import MethodError, UsageError, nearest
from pitome.fields import check, parts, types_of, whole
from pitome.merge import plugins
from pitome.merge.plan import AnyPlan, Tokens
from pitome.merge.schedule import CountFunction, LimitFunction, count_unprotected, limit_unprotected

_log = logging.getLogger("pitome")


@dataclass(frozen=True)
class PlaceOptions:
    """Options of a method for the places after the image tower: none that all have; a method's own
    options extend this class, frozen like it, with a default for every field."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class MethodOptions:
    """Options every method of a layer has; a method's own options extend this class, frozen like it, with
    a default for every field.

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
    protected: int | None = whole(None, least=0, hint="; give a number of leading tokens")

    def __post_init__(self) -> None:
        check(self)


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
    groups: bool = True  # every token ends in one row at most; false: its plans are matrices (`Plan.dense`)
    averages: bool = True  # a row is a mean of tokens: equal tokens merge into the same token


Part = Literal["cls_attention", "attention", "values", "mlp", "received", "keys", "text", "text_keys", "grid"]
ModelPlace = Literal["tower", "projector", "language"]
Reads = Callable[[Any], Sequence[Part]]
PlanFunction = Callable[[Tokens, Any, Any], AnyPlan]
PaddingRule = Literal["alone", "batch", "merged"]


@dataclass(frozen=True)
class Method:
    """A registered method.

    plan(tokens, remove, options) -> Plan decides one layer.
    resolve(options, family, depth) -> options fills what depends on the model's family.
    count(n, protected, ratio, layer) -> int: tokens a layer of `n` removes at `ratio`.
    limit(n, protected) -> int: the most tokens one layer of `n` can remove.
    most(n, protected) -> int: the same for a schedule of tokens kept, where more can leave than ratio and r
    take (methods that drop tokens); None: `limit`.
    macs(n, protected, dim, remove, options) -> int: multiply-accumulates of one plan (one
    image), as FlopCounterMode counts them: matrix products only. layer_macs: used instead if
    that depends on the layer, whose index is its last argument.
    kept(options) -> one count per layer (tokens kept, class token counted) if the options are a
    schedule of their own, else None.
    padding: what a batch with padding means to `plan`: `alone`, it is asked for one sample at a time
    and never sees padding; `batch`, it takes `Tokens.padding` and a tensor [B] as `remove`; `merged`,
    it treats padding as any other token.
    layers: where it merges unless the caller says (`first3`, ...); None: in every layer.
    reads(options) -> the optional fields of `Tokens` that `plan` reads, `cls_attention` or others.
    compares: whether `plan` reads `Tokens.metric`; where it does not, that holds the features.
    families: family of models -> the fields of this class that are others there (a `_repo` preset
    whose authors wrote another function for it).
    places: where in a model it can remove tokens: `tower` (in the layers of an encoder), and in a
    vision-language model `projector` (between image tower and language model) and `language` (before one
    layer of the language model). Of several, the first that fits how much is asked for.
    """

    name: str
    plan: PlanFunction
    options: type[MethodOptions | PlaceOptions]
    guarantees: Guarantees
    source: str
    needs_cls_attention: bool
    count: CountFunction
    limit: LimitFunction
    macs: Callable[[int, int, int, int, Any], int]
    resolve: Callable[[Any, str, int], Any]
    kept: Callable[[Any], Sequence[int] | None]
    padding: PaddingRule = "alone"
    layers: str | None = None
    families: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    layer_macs: Callable[[int, int, int, int, Any, int], int] | None = None
    reads: Reads = lambda options: ()
    most: LimitFunction | None = None
    compares: bool = True
    places: tuple[ModelPlace, ...] = ("tower",)
    family: str = ""  # for whose models it is; "": not chosen yet

    def of_family(self, family: str) -> Method:
        """The method as it is in a model of `family`."""
        return dataclasses.replace(self, family=family, **self.families.get(family, {}))

    def needs(self, options: Any) -> frozenset[Part]:
        """The optional fields of `Tokens` that a plan with these options reads."""
        always: tuple[Part, ...] = ("cls_attention",) if self.needs_cls_attention else ()
        return frozenset((*always, *self.reads(options)))

    def __reduce__(self) -> tuple[Callable[..., Method], tuple[str, str, str]]:
        # By name: a copy in another process is what is registered there.
        return _restore, (self.name, self.plan.__module__, self.family)

    def build_options(self, values: dict[str, Any]) -> Any:
        """Typed options from keyword arguments. Raises UsageError for an unknown name."""
        known = {f.name for f in dataclasses.fields(self.options)}
        for key in values:
            if key not in known:
                raise UsageError(f"merge={self.name} has no option {key!r}; {nearest(key, known)}")
        try:
            return self.options(**values)
        except UsageError as error:
            raise UsageError(f"merge={self.name}: {error}") from None


SUPPORTED = "bool, int, float, str, Literal of texts, Sequence of one of these, and None beside them"
_METHODS: dict[str, Method] = {}
_PACKAGE = "pitome.merge.methods."


def register(
    name: str,
    *,
    place: ModelPlace | Sequence[ModelPlace] = "tower",
    options: type[MethodOptions | PlaceOptions] = MethodOptions,
    guarantees: Guarantees | None = None,
    source: str = "",
    needs_cls_attention: bool = False,
    count: CountFunction = count_unprotected,
    limit: LimitFunction = limit_unprotected,
    macs: Callable[[int, int, int, int, Any], int] = lambda n, protected, dim, remove, options: 0,
    resolve: Callable[[Any, str, int], Any] = lambda options, family, depth: options,
    kept: Callable[[Any], Sequence[int] | None] = lambda options: None,
    padding: PaddingRule = "alone",
    families: Mapping[str, Mapping[str, Any]] | None = None,
    reads: Reads = lambda options: (),
    most: LimitFunction | None = None,
    compares: bool = True,
) -> Callable[[PlanFunction], PlanFunction]:
    """Make a plan function known as `merge=<name>`.

    A function that is defined a second time (a notebook cell that is run again) replaces the first.
    Raises UsageError for a name that is taken or is not an identifier, for options that are no dataclass
    with defaults and types of `SUPPORTED`, and where a bare name (without `_repo`) does not
    guarantee keeps_protected_first and identity_at_1.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise UsageError(f"a merge method cannot be named {name!r}; use letters, digits and _")
    _check_options(name, options)
    promised = guarantees or Guarantees()
    if not name.endswith("_repo") and not (promised.keeps_protected_first and promised.identity_at_1):
        raise UsageError(
            f"merge={name} must guarantee keeps_protected_first and identity_at_1, as every method does "
            "whose name does not end in _repo"
        )

    def add(plan: PlanFunction) -> PlanFunction:
        if not plan.__module__.startswith(_PACKAGE):
            _load_package()  # or a name of this package could be taken before its owner comes
        if name in _METHODS and not _same(_METHODS[name].plan, plan):
            raise UsageError(f"a merge method named {name!r} is registered already; choose another name")
        _METHODS[name] = Method(
            name=name,
            plan=plan,
            options=options,
            guarantees=promised,
            source=source,
            needs_cls_attention=needs_cls_attention,
            count=count,
            limit=limit,
            macs=macs,
            resolve=resolve,
            kept=kept,
            padding=padding,
            families=families or {},
            reads=reads,
            most=most,
            compares=compares,
            places=(place,) if isinstance(place, str) else tuple(place),
        )
        return plan

    return add


def _restore(name: str, module: str, family: str) -> Method:
    """A method that was pickled, with the module that registers it imported."""
    if name not in _METHODS and not module.startswith(_PACKAGE):
        importlib.import_module(module)
    return get(name).of_family(family)


def _same(one: PlanFunction, other: PlanFunction) -> bool:
    """Whether both are one definition, perhaps executed twice."""
    places = [(f.__module__, getattr(f, "__qualname__", id(f))) for f in (one, other)]
    return places[0] == places[1]


def _check_options(method: str, options: type[MethodOptions | PlaceOptions]) -> None:
    """Refuse options that a command line could not say. Raises UsageError."""
    if not (isinstance(options, type) and issubclass(options, (MethodOptions, PlaceOptions))):
        raise UsageError(f"merge={method}: options={options!r} is not a class that extends MethodOptions")
    if "__dataclass_fields__" not in vars(options):
        raise UsageError(f"merge={method}: put @dataclass(frozen=True) above {options.__name__}")
    try:
        hints = types_of(options)
    except Exception as problem:  # whatever evaluating an annotation raises
        why = plugins.reason(problem)
        raise UsageError(f"merge={method}: the types in {options.__name__} cannot be read ({why})") from None
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        if not all(_supported(part) for part in parts(hint)):
            shown = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else hint
            raise UsageError(f"merge={method}: option {field.name} has type {shown}; use {SUPPORTED}")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"merge={method}: option {field.name} has no default; give it one")
    try:
        options()
    except UsageError as error:
        raise UsageError(f"merge={method}: {error}") from None


def _supported(hint: Any) -> bool:
    """Whether an option can have the type: what a command line can say and a record can keep."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return all(isinstance(part, str) for part in arguments)
    return (arguments[0] if origin is Sequence else hint) in (bool, int, float, str, type(None))


def get(name: str) -> Method:
    """The method registered as `name`, here or by another distribution's entry point.

    Raises UsageError with the nearest names, MethodError for an entry point that does not work.
    """
    _load_package()
    if name not in _METHODS and name in plugins.offered():
        _load_plugin(name)
    if name not in _METHODS:
        raise UsageError(f"unknown merge method {name!r}; {nearest(name, {*_METHODS, *plugins.offered()})}")
    return _METHODS[name]


def loaded() -> list[str]:
    """The names of the methods for layers registered so far, sorted; loads no entry point."""
    _load_package()
    return sorted(name for name, method in _METHODS.items() if "tower" in method.places)


def names(place: ModelPlace | None = "tower") -> list[str]:
    """The names of the methods for a place, sorted; None: of all. An entry point that does not work is left
    out, with a warning."""
    _load_package()
    _load_plugins()
    return sorted(name for name, method in _METHODS.items() if place is None or place in method.places)


@functools.cache
def _load_package() -> None:
    """Import the modules of this package, which register their methods: not before a name is
    looked up, so that schedules can be checked without torch."""
    for module in pkgutil.iter_modules(pitome.merge.methods.__path__):
        importlib.import_module(_PACKAGE + module.name)


@functools.cache
def _load_plugins() -> None:
    for name, entry in plugins.offered().items():
        try:
            if name not in _METHODS:
                _load_plugin(name)
            elif _METHODS[name].plan.__module__.startswith(_PACKAGE):
                owner = plugins.distribution(entry)
                _log.warning("merge=%s of %s is left out: pitome has a method of that name", name, owner)
        except MethodError as problem:
            _log.warning("%s", problem)


def _load_plugin(name: str) -> None:
    plugins.load(name)
    if name not in _METHODS:
        owner = plugins.distribution(plugins.offered()[name])
        raise MethodError(f"merge={name} of {owner}: its entry point registers no method of that name")


def one_of(what: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(f"{what}={value!r} is not known; {nearest(str(value), map(str, choices))}")
