"""The patch of a vision-language model at a place after its image tower, and its handle."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pitome.adapters import saved
from pitome.adapters.saved import PatchArguments, Positions
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.registry import Method, ModelPlace, PlaceOptions
from pitome.merge.schedule import check_place, kept_of

if TYPE_CHECKING:
    from pitome.adapters.patch import Patched

_ADAPTERS = "pitome.adapters.transformers"
IN_LAYERS = frozenset({"cls_attention", "attention", "values", "mlp"})
"""What methods read in the layer that merges."""
READ = frozenset({"received", "keys"})
"""What methods read in an image tower."""
PLACES = "_pitome_places"  # of a patched model: the state of its places
HANDLES = "_pitome_handles"  # of it: place -> handle


class PatchedPlace:
    """The handle of a vision-language model patched after its image tower; a context manager that removes
    this place's patch at its end.

    >>> patched = pitome.patch(vlm, "divprune", keep=64)  # doctest: +SKIP
    >>> patched = pitome.patch(vlm, "fastv", keep=0.5, layer=2)  # doctest: +SKIP
    >>> model.generate(**processor(images=image, text=prompt, return_tensors="pt"))  # doctest: +SKIP
    >>> patched.tokens  # doctest: +SKIP
    {'projector': [576, 64], 'language': [120, 120, 88, 88, ...]}
    """

    def __init__(
        self, host: Any, state: Any, places: Any, place: ModelPlace, arguments: PatchArguments
    ) -> None:
        self._host, self._places = host, places
        self.place = place
        self.arguments = arguments
        self.method: Method = state.method
        self.options: PlaceOptions = state.options
        self.keep: int | float = state.keep  # tokens of each image, or a share of them
        self.family: str = places.family.name

    @property
    def places(self) -> tuple[ModelPlace, ...]:
        """All places of the model that are patched."""
        tower: tuple[ModelPlace, ...] = ("tower",) if self._tower is not None else ()
        return (*tower, *places_of(self._host))

    @property
    def tokens(self) -> dict[str, list[int]]:
        """Place -> tokens in the last forward. `tower`: entering each block, then left; `projector`: of the
        largest image, before and after; `language`: entering each layer, then left (padded lengths)."""
        tower = {} if self._tower is None else {"tower": self._tower.tokens}
        return {**tower, **self._places.counts}

    @property
    def images(self) -> list[tuple[int, int]]:
        """Of each image of the last forward that had any, its tokens before and after the projector place."""
        return list(self._places.current().rows)

    @property
    def timed(self) -> bool:
        """Whether `seconds` is measured, for which a device is waited for; False unless it is set."""
        return bool(self._places.timed)

    @timed.setter
    def timed(self, value: bool) -> None:
        self._places.timed = value

    @property
    def counted(self) -> bool:
        """Whether `macs` are counted, operation by operation; False unless it is set."""
        return bool(self._places.counted)

    @counted.setter
    def counted(self, value: bool) -> None:
        self._places.counted = value

    @property
    def macs(self) -> dict[str, int]:
        """Place -> multiply-accumulates of its method in the last forward with images, what it reads of the
        model included; empty unless `counted`."""
        return dict(self._places.current().macs)

    @property
    def layer(self) -> int | None:
        """The layer of the language model before which tokens go; None at the projector."""
        return int(getattr(self.options, "layer", 2)) if self.place == "language" else None

    @property
    def reads_tower(self) -> bool:
        """Whether the method ranks tokens by the tower's attention or keys, for which it needs pixels."""
        return self.place == "projector" and bool(self.method.needs(self.options) & READ)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the method and of the adapter, by name."""
        names = ("language", "places") if self.place == "language" else ("places", "tower_scores")
        adapters = (type(self).__module__, *(f"{_ADAPTERS}.{name}" for name in names))
        tower = () if self._tower is None else self._tower.modules
        return (self.method.plan.__module__, *adapters, type(self._places.family).__module__, *tower)

    def kept(self, tokens: int) -> int:
        """How many of `tokens` image tokens stay."""
        return kept_of(self.keep, tokens)

    @property
    def seconds(self) -> dict[str, float]:
        """Place -> seconds that its method took in the last forward with images, apart from encoder, prefill
        and decoding; empty unless `timed`."""
        return dict(self._places.current().seconds)

    def __repr__(self) -> str:
        where = ", ".join(self.places)
        return (
            f"<{self.method.name}, keep {self.keep}, at the {self.place} of {self.family}; patched: {where}>"
        )

    def __call__(self, *_: object, **__: object) -> None:
        raise UsageError(
            "this is the handle of the patch; pitome.patch changes the model, so go on with the model"
        )

    def save(self, folder: str | Path) -> Path:
        """Write what was asked for, at all places, to `folder`/pitome.json."""
        return saved.save(self, folder, arguments_of(self._host))

    def remove(self) -> None:
        """Undo the patch at all places: the model computes bit for bit what it did before. A second call does
        nothing."""
        remove_places(self._host)
        if self._tower is not None:
            self._tower.remove()

    def __enter__(self) -> PatchedPlace:
        return self

    def __exit__(self, *error: object) -> None:
        remove_places(self._host, self.place)

    @property
    def _tower(self) -> Patched | None:
        from pitome.adapters.patch import tower_patch

        return tower_patch(self._host)


def patch_place(
    model: nn.Module,
    entry: Method,
    keep: int | float | None,
    place: ModelPlace | None,
    positions: Positions,
    options: Mapping[str, Any],
    others: Sequence[str] = (),
) -> PatchedPlace:
    """Patch `model` after its image tower; see `pitome.patch`. others: amounts given beside `keep`."""
    place = check_place(entry.name, entry.places, keep, place, others)
    assert keep is not None
    if positions not in ("keep", "renumber"):
        raise UsageError(f"positions={positions!r} is not known; give keep or renumber")
    library = _library("places")
    host = _host(model)
    resolved = entry.build_options(dict(options))
    if missing := sorted(entry.needs(resolved) & IN_LAYERS):
        raise UsageError(
            f"merge={entry.name} with these options reads {' and '.join(missing)} of a layer, which is not "
            "there after an image tower; give other options, or ratio= instead of keep="
        )
    state = library.PlaceState(entry, resolved, keep, positions)
    there: Any = vars(host).get(PLACES)
    if there is not None and place in there.states:
        raise UsageError(
            f"the {place} is patched already, with {there.states[place].method.name}; each place takes one "
            "patch: call pitome.remove(model)"
        )
    there = library.attach(host, place, state)
    arguments = PatchArguments(
        method=entry.name, keep=keep, place=place, positions=positions, options=dict(options)
    )
    handle = PatchedPlace(host, state, there, place, arguments)
    vars(host).setdefault(HANDLES, {})[place] = handle
    saved.note(host, arguments_of(host))
    return handle


def _library(name: str) -> Any:
    """A module of the adapters of transformers: by name, as they are no part of the code of other models."""
    return importlib.import_module(f"{_ADAPTERS}.{name}")


def begin_tower(model: nn.Module) -> None:
    """Take out surplus placeholders of a vision-language model from now on: its tower merges."""
    if (host := _found(model)) is not None:
        library = _library("places")
        library.places_of(host).tower = True


def end_tower(model: nn.Module) -> None:
    """Undo `begin_tower`."""
    for module in list(model.modules()):
        if (there := vars(module).get(PLACES)) is not None:
            library = _library("places")
            there.tower = False
            library.end(module, there)


def _found(model: nn.Module) -> Any:
    """The vision-language model of a known family in `model`; None: there is none."""
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        if isinstance(kind, str) and hasattr(module, "generate") and kind in _library("families").known():
            return module
    return None


def _host(model: nn.Module) -> Any:
    """The vision-language model in `model`. Raises UnsupportedModelError."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"cannot patch a {type(model).__name__}: looked for a torch.nn.Module")
    families, places = _library("families"), _library("places")
    for module in model.modules():
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            raise UsageError("the model is compiled already; patch first, compile second")
    if (host := _found(model)) is not None:
        places.check_model(host)
        return host
    raise UnsupportedModelError(
        f"cannot patch {type(model).__name__} after its image tower: looked for a model of transformers that "
        f"generates text, of one of these families: {families.names()}"
    )


def handle_of(model: nn.Module) -> PatchedPlace | None:
    """The handle of the place of `model` that was patched last; None: none after the tower is."""
    for module in model.modules():
        if handles := vars(module).get(HANDLES):
            return list(handles.values())[-1]  # type: ignore[no-any-return]
    return None


def handles_of(model: nn.Module) -> dict[str, PatchedPlace]:
    """Place -> handle of the places after the tower that are patched in `model`."""
    return {
        place: handle for module in model.modules() for place, handle in vars(module).get(HANDLES, {}).items()
    }


def places_of(model: nn.Module) -> tuple[ModelPlace, ...]:
    """The places after the tower that are patched in `model`."""
    handle = handle_of(model)
    return () if handle is None else tuple(handle._places.states)


def remove_places(model: nn.Module, place: ModelPlace | None = None) -> None:
    """Undo the patch of one place after the tower; None: of all of them."""
    for module in list(model.modules()):
        if (handles := vars(module).get(HANDLES)) is None:
            continue
        library = _library("places")
        for name in [name for name in handles if place in (None, name)]:
            library.detach(module, vars(module)[PLACES], name)
            del handles[name]
        if not handles:
            delattr(module, HANDLES)
        saved.note(module, arguments_of(module))


def arguments_of(model: nn.Module) -> list[PatchArguments]:
    """What the patches of `model` were asked for, at all places."""
    from pitome.adapters.patch import tower_patch

    tower = tower_patch(model)
    given = [] if tower is None else [tower.arguments]
    for module in model.modules():
        given += [handle.arguments for handle in vars(module).get(HANDLES, {}).values()]
    return given
