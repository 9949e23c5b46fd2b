"""`patch` a model in place, find its handle again, undo it."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

from torch import Tensor, nn

import pitome.adapters
from pitome.adapters import place_patch, saved
from pitome.adapters.core import Adapter, State
from pitome.adapters.place_patch import PatchedPlace
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge import native, registry
from pitome.merge.costs import LEAST_RATIO, Architecture, ratio_for_share
from pitome.merge.registry import Method, MethodOptions, ModelPlace, one_of
from pitome.merge.schedule import (
    ONE_OF,
    Reduction,
    Schedule,
    build_schedule,
    check_whole_schedule,
    kept_schedule,
    own_schedule,
    parse_layers,
)
from pitome.sources.llava_family import MISSING
from pitome.sources.schedule_file import NAMES, OPTIONS, find_schedule

FAMILIES = ("deit", "mae", "clip", "blip", "eva", "llava", "bert", "distilbert")
_MODULES = (module.name for module in pkgutil.iter_modules(pitome.adapters.__path__))
LIBRARIES = frozenset(name for name in _MODULES if not name.startswith("_")) - {
    "core",
    "patch",
    "place_patch",
    "saved",
}

_log = logging.getLogger("pitome")
AnyPatched: TypeAlias = "Patched | PatchedPlace"
InputSize: TypeAlias = "int | tuple[int, int] | Mapping[int, int] | None"
"""Pixels, tokens, or number of tokens -> how many samples have it; None where the model fixes it."""


class Patched:
    """The handle of a patched model; a context manager that removes the patch at its end.

    method, options: the merge method and its options, filled in for the model's `family`;
    schedule: the rule for every layer; layers: the indices of those that may merge; arguments: what `patch`
    was asked for. The model itself is changed, and is what is called.

    >>> import pitome, timm
    >>> pitome.patch(timm.create_model("vit_tiny_patch16_224"), "tome", r=8, layers="last2")
    <tome, r 8, in layers 10, 11 of a VisionTransformer with 12, family deit>
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        state: State,
        family: str,
        layers: tuple[int, ...],
        arguments: saved.PatchArguments,
    ) -> None:
        self._model = model
        self._adapter = adapter
        self._state = state
        self.family = family
        self.layers = layers
        self.arguments = arguments

    def __repr__(self) -> str:
        depth = self._state.depth
        where = "no layer" if not self.layers else f"layers {', '.join(map(str, self.layers))}"
        where = "all layers" if len(self.layers) == depth else where
        host = type(self._adapter.host).__name__
        amount = f", {self.arguments.amount}," if self.arguments.amount else ""
        counts = self.tokens
        left = f"; {counts[0]} tokens, {counts[-1]} left" if counts else ""
        return f"<{self.method.name}{amount} in {where} of a {host} with {depth}, family {self.family}{left}>"

    def __call__(self, *_: object, **__: object) -> None:
        raise UsageError(_NOT_THE_MODEL)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(nn.Module, name):
            raise AttributeError(f"no {name} here: {_NOT_THE_MODEL}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def extra_repr(self) -> str:
        """What the representation of the model says of the patch."""
        return f"merging: {self!r}"

    def save(self, folder: str | Path) -> Path:
        """Write what was asked for to `folder`/pitome.json; `pitome.load(model, folder)` patches a model so
        again. Raises RecordError if it cannot be written."""
        return saved.save(self, folder)

    @property
    def method(self) -> Method:
        return self._state.method

    @property
    def options(self) -> MethodOptions:
        return self._state.options

    @property
    def schedule(self) -> Schedule:
        return self._state.schedule

    @property
    def modules(self) -> tuple[str, str]:
        """The modules of the method and of the adapter, by name."""
        return self.method.plan.__module__, type(self._adapter).__module__

    @property
    def tokens(self) -> list[int]:
        """Tokens entering each of the L blocks in the last forward, then the final count (L + 1
        numbers; padded lengths). Empty before the first forward."""
        return list(self._state.last.tokens) if self._state.last.tokens[0] else []

    @property
    def sizes(self) -> Tensor | None:
        """How many input tokens each output token of the last forward stands for, [B, N_out];
        None where nothing merged."""
        return self._state.last.size[-1]

    def unmerge(self, tokens: Tensor, layer: int | None = None) -> Tensor:
        """Features [B, M, C] of the tokens that the last forward left, for all that entered: [B, N, C].

        Every token gets its group's row, exact where equal tokens merged; one that was dropped gets zeros.
        layer: of the tokens that enter this block (0..L, as in `tokens`); None: that leave the last one.
        Raises UsageError for another number of tokens, and for a method without groups (`dct`).
        """
        return self._state.unmerge(tokens, layer, self._state.last)

    @property
    def sources(self) -> Tensor:
        """Which input tokens (columns) each output token (rows) of the last forward holds,
        [B, N_out, N_in] of 0 and 1. Raises UsageError without trace=True or a forward."""
        membership = self._state.last.membership[-1]
        if membership is None:
            raise UsageError("no sources: patch with trace=True and run the model once")
        return membership

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """What the closed form of the cost needs to know of the model at `input_size` (height,
        width); by default at the size the model was built for."""
        return dataclasses.replace(self._adapter.architecture(input_size), family=self.family)

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """A blank image [1, C, H, W] for the model, of the type and on the device of its weights."""
        return self._adapter.example(input_size)

    @property
    def entry(self) -> nn.Module | None:
        """The part of the model that takes `example`; None: the whole model."""
        return self._adapter.entry

    @property
    def places(self) -> tuple[ModelPlace, ...]:
        """Where tokens are removed: `tower`, and in a vision-language model what else is patched."""
        return ("tower", *place_patch.places_of(self._model))

    def remove(self) -> None:
        """Undo the patch: the model computes bit for bit what it did before. A second call does
        nothing."""
        if vars(self._adapter.host).get("_pitome") is self:
            self._adapter.detach()
            place_patch.end_tower(self._model)
            for name in ("_pitome", "__prepare_scriptable__", "extra_repr"):
                delattr(self._adapter.host, name)
            saved.note(self._model, place_patch.arguments_of(self._model))

    @property
    def state(self) -> State:
        """What the last forward left, layer by layer; for adapters and measurements."""
        return self._state

    def __enter__(self) -> Patched:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


@overload
def patch(
    model: nn.Module,
    method: str | Method,
    *,
    ratio: float | Sequence[float] | None = ...,
    r: int | Sequence[int] | None = ...,
    inflection: float | None = ...,
    flops: float | None = ...,
    schedule: str | Sequence[int] | None = ...,
    input_size: InputSize = ...,
    layers: str | Sequence[int] | None = ...,
    keep: None = ...,
    place: ModelPlace | None = ...,
    positions: saved.Positions = ...,
    trace: bool = ...,
    dense: bool | None = ...,
    family: str | None = ...,
    **options: Any,
) -> Patched: ...


@overload
def patch(
    model: nn.Module,
    method: str | Method,
    *,
    ratio: float | Sequence[float] | None = ...,
    r: int | Sequence[int] | None = ...,
    inflection: float | None = ...,
    flops: float | None = ...,
    schedule: str | Sequence[int] | None = ...,
    input_size: InputSize = ...,
    layers: str | Sequence[int] | None = ...,
    keep: int | float,
    place: ModelPlace | None = ...,
    positions: saved.Positions = ...,
    trace: bool = ...,
    dense: bool | None = ...,
    family: str | None = ...,
    **options: Any,
) -> PatchedPlace: ...


def patch(
    model: nn.Module,
    method: str | Method,
    *,
    ratio: float | Sequence[float] | None = None,
    r: int | Sequence[int] | None = None,
    inflection: float | None = None,
    flops: float | None = None,
    schedule: str | Sequence[int] | None = None,
    input_size: InputSize = None,
    layers: str | Sequence[int] | None = None,
    keep: int | float | None = None,
    place: ModelPlace | None = None,
    positions: saved.Positions = "keep",
    trace: bool = False,
    dense: bool | None = None,
    family: str | None = None,
    **options: Any,
) -> Patched | PatchedPlace:
    """Make `model` merge tokens, in place, and return the handle that undoes it.

    Exactly one of these says how much: `ratio`, the share of tokens each layer keeps (a number,
    or one per layer; 0.5 is used for anything below it); `r`, the number each layer
    removes (a number, with ToMe's `inflection` in [-1, 1] if wanted, or one per layer); `flops`,
    a share of the unmerged cost: the largest ratio whose cost does not exceed it (with
    `input_size` where the model does not fix its own: pixels, tokens, or number of tokens -> how many of the
    samples have it, whose cost is then meant together); `schedule`, the tokens that each layer leaves,
    protected ones counted: a list, a file, or `published/deit_s@2.9` (`pitome.sources.schedule_file`), of
    which `diffrate` prunes and merges to its two lists, and any other method merges to the counts that are
    left, and which brings the options that a search found for the same method; or the options of a method
    that are a schedule.

    `layers` restricts merging to some blocks: indices, or `first3`, `last3`, `every2` (`every1`: all).
    Left out, all of them merge, but for `_repo` presets on texts: those merge in the first three, as
    the authors' code does. `trace` keeps which tokens merged (`Patched.sources`). `dense`: outputs that hold
    a row per token (`last_hidden_state`, `hidden_states`, `forward_features`, `forward_intermediates`, ...)
    have all of them, each with its group's features (`Patched.unmerge`); left out, where what reads the tower
    of a vision-language model needs its grid. `family` overrides the model family on which `_repo` presets
    depend; a tower taken out of a LLaVA model is of family clip unless `family="llava"` says so.
    `Patched.family` and `Patched.layers` say what was chosen. All other keywords are options of the method.

    In a vision-language model of transformers, `keep` says how much for the places after its image tower: a
    number of tokens of each image, or a share of them. `place`: `projector` (what the language model is
    given), or `language` (before one of its layers; of all images of a prompt together); left out, the first
    that the method is for. `positions`: image tokens `keep` their positions, or all positions after the first
    removed token close up (`renumber`; not inside the language model). Each place takes one patch; `generate`
    and the model's forward take what the processor makes, as without a patch.

    `method` is a name. A `Method` itself, which need not be registered, serves to look at what a plan sees;
    copies of the model and `save` know methods by name alone.

    state_dict() keys do not change; deepcopy, pickle, autocast, training, gradient checkpointing,
    DataParallel, torch.jit.trace and torch.compile work on the patched model (patch first, compile
    second). Every thread has forwards of its own. With checkpointing, run the backward pass before
    the next forward. torch.jit.script raises UsageError.

    Raises UsageError for anything that cannot be used, UnsupportedModelError for a model in
    which nothing can be merged.

    >>> import timm, torch, pitome
    >>> model = timm.create_model("vit_tiny_patch16_224").eval()
    >>> with torch.no_grad(), pitome.patch(model, "tome", r=16) as patched:
    ...     logits = model(torch.zeros(1, 3, 224, 224))
    >>> patched.tokens
    [197, 181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]
    """
    entry = method if isinstance(method, Method) else registry.get(method)
    name = entry.name
    asked = saved.PatchArguments(
        method=name,
        ratio=ratio,
        r=r,
        inflection=inflection,
        flops=flops,
        schedule=schedule,
        input_size=None if isinstance(input_size, Mapping) else input_size,
        layers=layers,
        dense=dense,
        family=family,
        options=dict(options),
    )
    if keep is not None or place not in (None, "tower") or "tower" not in entry.places:
        others = {
            "ratio": ratio,
            "r": r,
            "flops": flops,
            "schedule": schedule,
            "layers": layers,
            "dense": dense,
        }
        given = [key for key, value in others.items() if value is not None]
        return place_patch.patch_place(model, entry, keep, place, positions, options, given)
    native.check_wanted()
    adapter = _adapt(model)
    family = adapter.family if family is None else family
    one_of("family", family, FAMILIES)
    entry = entry.of_family(family)
    reduction = Reduction(
        ratio=ratio, r=r, inflection=inflection, flops=flops, schedule=schedule, layers=layers
    )
    found = None if schedule is None else find_schedule(schedule)
    if found is not None and found.made_for is not None and found.made_for.method == name:
        options = {**found.made_for.options, **options}
        asked = dataclasses.replace(asked, options=dict(options))
    if found is not None and {f.name for f in dataclasses.fields(entry.options)} >= set(OPTIONS):
        if set(OPTIONS) & {name for name, value in options.items() if value is not None}:
            raise UsageError(f"give schedule, or {' and '.join(NAMES)}, not both")
        options |= found.options()
    dense = _checked_dense(model, adapter, entry, dense)
    resolved = entry.resolve(entry.build_options(options), family, adapter.depth)
    if not adapter.has_class_token and (
        entry.guarantees.needs_class_token or "cls_attention" in entry.needs(resolved)
    ):
        raise UnsupportedModelError(
            f"merge={name} ranks tokens by the class token, and this {type(adapter.host).__name__} has none"
        )
    protected = adapter.protected if resolved.protected is None else resolved.protected
    given, own = reduction.given, entry.kept(resolved)
    if found is None and own is not None:
        found, given = own_schedule(own), [*given, f"the schedule of {name}"]
    if len(given) != 1:
        names = " and ".join(given) or "none of them"
        raise UsageError(f"give exactly one of {ONE_OF} and a method's own schedule; got {names}")
    if found is not None:
        check_whole_schedule(inflection, layers)
        rule = kept_schedule(
            found, adapter.depth, _tokens(adapter, input_size), protected, name, entry.most or entry.limit
        )
    else:
        layers = entry.layers if layers is None else layers
        if flops is not None:
            sizes = input_size if isinstance(input_size, Mapping) else {input_size: 1}
            mixture = [(adapter.architecture(size), count) for size, count in sizes.items()]
            ratio = ratio_for_share(mixture, flops, entry, resolved, layers)
            if isinstance(input_size, Mapping):  # which need not be known where the patch is made again
                asked = dataclasses.replace(asked, flops=None, ratio=ratio, layers=layers)
        rule = build_schedule(adapter.depth, ratio=ratio, r=r, inflection=inflection, layers=layers)
        if min(rule.ratios or (1.0,)) < LEAST_RATIO:
            _log.warning("ratio below 0.5: a layer merges at most half of its tokens, so 0.5 is used there")
            rule = Schedule(ratios=tuple(max(value, LEAST_RATIO) for value in rule.ratios or ()))
    state = State(
        method=entry,
        options=resolved,
        schedule=rule,
        protected=protected,
        trace=trace,
        dense=dense,
    )
    adapter.attach(state)
    if not dense:
        place_patch.begin_tower(model)
    asked = asked.without_files(resolved, found)
    handle = Patched(model, adapter, state, family, parse_layers(layers, adapter.depth), asked)
    host: Any = adapter.host  # torch types the attributes of a module as Tensor | Module
    host._pitome = handle
    host.__prepare_scriptable__ = _refuse_scripting
    host.extra_repr = handle.extra_repr
    saved.note(model, place_patch.arguments_of(model))
    return handle


def _checked_dense(model: nn.Module, adapter: Adapter, entry: Method, dense: bool | None) -> bool:
    """Whether outputs have all tokens. Raises where they must but may not, and for methods without groups."""
    dense = adapter.dense if dense is None else dense
    if adapter.reads_all and not dense:
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: {adapter.reads_all}; dense=True gives it all of them"
        )
    if dense and not entry.guarantees.groups:
        raise UsageError(
            f"merge={entry.name} mixes all tokens, and every one of them may be read; "
            "use a method that groups tokens"
        )
    return dense


_NOT_THE_MODEL = (
    "this is the handle of the patch; pitome.patch changes the model in place, so go on with the model itself"
)


def patched(model: nn.Module) -> Patched | PatchedPlace | None:
    """The handle of a patched model, of a deepcopy of one or of a module that holds one; None if
    nothing in `model` is patched. Of several places, that of the last one patched after the tower."""
    return place_patch.handle_of(model) or tower_patch(model)


def tower_patch(model: nn.Module) -> Patched | None:
    """The handle of the patch whose layers merge; None if no layers of `model` do."""
    for module in model.modules():
        handle = vars(module).get("_pitome")
        if isinstance(handle, Patched):
            return handle
    return None


def remove(model: nn.Module) -> None:
    """Undo the patch of `model`, at all its places. Raises UsageError if it is not patched."""
    if patched(model) is None:
        raise UsageError(f"this {type(model).__name__} is not patched, so there is nothing to remove")
    place_patch.remove_places(model)
    if (handle := tower_patch(model)) is not None:
        handle.remove()


def _adapt(model: nn.Module) -> Adapter:
    """The adapter of the one part of `model` that can be patched, whatever is around it."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"cannot patch a {type(model).__name__}: looked for a torch.nn.Module")
    for module in model.modules():
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            raise UsageError("the model is compiled already; patch first, compile second")
    handle = tower_patch(model)
    if handle is not None:
        raise UsageError(
            f"the model is patched already, with {handle.method.name}; call pitome.remove(model)"
        )
    hosts = _hosts(model)
    if len(hosts) == 1:
        library, host = next(iter(hosts.values()))
        adapter: Adapter = library.adapt(model, host)
        return adapter
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        if isinstance(kind, str) and kind in MISSING:
            raise UnsupportedModelError(f"cannot patch {type(module).__name__}: {MISSING[kind]}")
    raise UnsupportedModelError(f"cannot patch {type(model).__name__}: {_looked_for(model, hosts)}")


def _hosts(model: nn.Module) -> dict[str, tuple[Any, nn.Module]]:
    """What can be patched in `model`: name of the part -> its library's adapters, the part.

    A part of a part that can be patched does not count, nor does what a library says to leave alone.
    """
    libraries = _libraries(model)
    hosts: dict[str, tuple[Any, nn.Module]] = {}
    closed: list[str] = []
    for name, module in model.named_modules():
        if any(_within(name, outer) for outer in closed):
            continue
        for library in libraries:
            if isinstance(module, library.HOSTS):
                hosts[name] = library, module
            if isinstance(module, (*library.HOSTS, *getattr(library, "IGNORED", ()))):
                closed.append(name)
    return hosts


def _libraries(model: nn.Module) -> list[Any]:
    """The adapters of the libraries that classes in `model` come from."""
    return [importlib.import_module(f"pitome.adapters.{name}") for name in sorted(_origins(model))]


def _origins(model: nn.Module) -> set[str]:
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    return {cls.__module__.partition(".")[0] for cls in classes} & LIBRARIES


def _looked_for(model: nn.Module, hosts: Mapping[str, tuple[Any, nn.Module]]) -> str:
    """What was looked for and found, where there is not exactly one part to patch."""
    if hosts:
        parts = [f"{name} ({_class_name(host)})" for name, (_, host) in hosts.items()]
        return (
            f"looked for one model, found {len(hosts)} of them: {', '.join(parts)}; patch the part you "
            f'mean, e.g. pitome.patch(model.get_submodule("{next(iter(hosts))}"), ...)'
        )
    libraries = _libraries(model)
    known = [f"{cls.__module__.partition('.')[0]} {cls.__name__}" for part in libraries for cls in part.HOSTS]
    # The outermost modules of these libraries, wrappers of other origin left aside.
    inside = {name: part for name, part in model.named_modules() if _of_library(part)}
    outer = [name for name in inside if not any(_within(name, other) for other in inside)]
    found = [
        # Of a CLIP, its image tower is what counts.
        f"{_class_name(getattr(inside[name], 'visual', inside[name]))}{f' ({name})' if name else ''}"
        for name in outer
    ]
    looked = ", ".join(known) or f"a model of {', '.join(sorted(LIBRARIES))}"
    return f"looked for {looked}; found {', '.join(found) or _class_name(model)}"


def _of_library(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] in LIBRARIES


def _within(name: str, outer: str) -> bool:
    return name != outer and name.startswith(f"{outer}." if outer else "")


def _class_name(value: object) -> str:
    cls = value if isinstance(value, type) else type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def _refuse_scripting() -> None:
    """Called by torch.jit.script for every part of a model that has it as `__prepare_scriptable__`."""
    raise UsageError(
        "a patched model cannot be scripted: its layers hand sizes on outside of the graph; "
        "use torch.jit.trace or torch.export, or remove the patch"
    )


def _tokens(adapter: Adapter, input_size: InputSize) -> int | None:
    """How many tokens enter the first layer; None where the model takes any number."""
    if isinstance(input_size, Mapping):
        return None
    try:
        return adapter.architecture(input_size).tokens
    except (UsageError, UnsupportedModelError):
        return None
