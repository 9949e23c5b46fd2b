"""What a patch was asked for, kept beside a model's weights, and the same patch on a model loaded again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from pitome.errors import UsageError
from pitome.fields import decode
from pitome.merge.registry import MethodOptions
from pitome.merge.schedule import AMOUNTS
from pitome.records.files import write_atomically
from pitome.sources.json_files import read_json
from pitome.sources.schedule_file import NAMES, PUBLISHED, KeptTokens

if TYPE_CHECKING:
    from pitome.adapters.patch import Patched
    from pitome.adapters.place_patch import PatchedPlace

FILE = "pitome.json"
Positions = Literal["keep", "renumber"]
KEY = "pitome"  # in a transformers configuration
_SEVERAL = "places"  # of both, where a model is patched at several places


@dataclass(frozen=True, kw_only=True)
class PatchArguments:
    """The arguments of `patch`, as they were given."""

    method: str
    ratio: float | Sequence[float] | None = None  # the share of tokens each layer keeps
    r: int | Sequence[int] | None = None  # tokens that each layer removes
    inflection: float | None = None  # of `r`
    flops: float | None = None  # share of the unmerged cost
    schedule: str | Sequence[int] | None = (
        None  # tokens that each layer leaves, or a published schedule's name
    )
    input_size: int | Sequence[int] | None = None  # that `flops` is of
    layers: str | Sequence[int] | None = None  # that merge; None: the method's
    family: str | None = None  # of models; None: the model's
    keep: int | float | None = None  # tokens of an image, or a share of them, after an image tower
    place: Literal["projector", "language"] | None = None  # None: in the layers
    dense: bool | None = None  # whether outputs have all tokens; None: where the model needs them
    positions: Positions = "keep"  # after an image tower
    options: dict[str, Any] = field(default_factory=dict)  # of the method

    def __post_init__(self) -> None:
        """Tuples and ranges as lists, as JSON has them."""
        for spec in dataclasses.fields(self):
            if isinstance(value := getattr(self, spec.name), (tuple, range)):
                object.__setattr__(self, spec.name, list(value))

    @property
    def amount(self) -> str:
        """How much is merged, in words; empty for a method's own schedule."""
        given = {name: value for name in AMOUNTS if (value := getattr(self, name)) is not None}
        return ", ".join(f"{name} {'by layer' if isinstance(v, list) else v}" for name, v in given.items())

    def without_files(self, resolved: MethodOptions, found: KeptTokens | None) -> PatchArguments:
        """The same with counts in place of a file, which other machines lack. resolved: the options
        as the method has them; found: the schedule."""
        options = dict(self.options)
        from_option = options.pop("schedule_file", None) is not None
        if not from_option and (not isinstance(self.schedule, str) or self.schedule.startswith(PUBLISHED)):
            return self
        lists = {name: list(v) for name in NAMES if (v := getattr(resolved, name, None)) is not None}
        if found is not None and found.ratio is not None:
            return dataclasses.replace(self, schedule=None, ratio=list(found.ratio), options=options)
        schedule = None if lists or found is None else list(found.kept)
        return dataclasses.replace(self, schedule=schedule, options=options | lists)

    def plain(self) -> dict[str, Any]:
        """What differs from the defaults, for JSON."""
        defaults = {spec.name: spec.default for spec in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value not in (defaults[name], {})}


def save(handle: Patched | PatchedPlace, folder: str | Path, given: Sequence[PatchArguments] = ()) -> Path:
    """Write what the patch was asked for (or `given`, at several places) to `folder`/pitome.json, which is
    returned; the weights are saved as those of any model. Raises UsageError for options that JSON cannot
    hold, RecordError if the folder cannot be written."""
    path = Path(folder) / FILE
    try:
        text = json.dumps(_content(given or [handle.arguments]), indent=2)
    except TypeError as problem:
        raise UsageError(
            f"the options of {handle.method.name} cannot be written as JSON: {problem}"
        ) from None
    write_atomically(path, f"{text}\n".encode())
    return path


def _content(given: Sequence[PatchArguments]) -> dict[str, Any]:
    plain = [part.plain() for part in given]
    return plain[0] if len(plain) == 1 else {_SEVERAL: plain}


def load(model: nn.Module, folder: str | Path | None = None) -> Patched | PatchedPlace:
    """Patch `model`, in place, as `folder`/pitome.json says, or, without a folder, as the configuration of a
    transformers model says that was saved while it was patched.

    A method of one's own has to be imported before. Raises UsageError where nothing says how, DataError for
    a file that cannot be read, and what `patch` raises.
    """
    from pitome.adapters.patch import patch

    content, where = _read(model, folder)
    parts = content[_SEVERAL] if isinstance(content.get(_SEVERAL), list) and content[_SEVERAL] else [content]
    try:
        given = [decode(PatchArguments, part) for part in parts]
    except UsageError as problem:
        raise UsageError(f"{where}: {problem}") from None
    for part in given:
        values = {spec.name: getattr(part, spec.name) for spec in dataclasses.fields(part)}
        options = values.pop("options")
        if isinstance(values["input_size"], list):
            values["input_size"] = tuple(values["input_size"])
        handle: Patched | PatchedPlace = patch(model, **values, **options)
    return handle


def note(model: nn.Module, given: Sequence[PatchArguments]) -> None:
    """Say in the configuration of a transformers model how it is patched, so that what `save_pretrained`
    writes says so; nothing given: that it is not."""
    config = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return
    if given:
        setattr(config, KEY, _content(given))
    elif hasattr(config, KEY):
        delattr(config, KEY)


def _read(model: nn.Module, folder: str | Path | None) -> tuple[Mapping[str, Any], str]:
    if folder is not None:
        path = Path(folder) / FILE
        if not path.is_file():
            raise UsageError(f"no {FILE} in {folder}; patched.save(FOLDER) writes it")
        content, where = read_json(path), str(path)
    else:
        content, where = getattr(getattr(model, "config", None), KEY, None), f"config.{KEY}"
        if content is None:
            raise UsageError(
                f"this {type(model).__name__} does not say how it was patched; give the folder of {FILE}"
            )
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} holds no mapping of arguments of pitome.patch")
    return content, where
