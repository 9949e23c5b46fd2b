"""Merge schedules: tokens kept in every layer, from a list, a file, or those that others have published."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pitome.errors import UsageError, nearest
from pitome.fields import decode, number

NAMES = ("prune_kept", "merge_kept")
OPTIONS = (*NAMES, "schedule_file")  # of a method: any of them is a schedule of its own
PUBLISHED = "published/"
SHIPPED = Path(__file__).parent / "shipped"
MADE = ("searched/", "scaled/", "learned/")  # begin the names of those that scripts/schedules.py made
UNIFORM = "uniform"  # on a command line: no schedule, but one ratio for all layers
MADE_FOR = "made_for"
_THEIRS = {"prune_kept_num": "prune_kept", "merge_kept_num": "merge_kept"}  # in DiffRate's own file
_FORMS = f"a list, lists named {' and '.join(NAMES)}, or DiffRate's models and GFLOPs"


@dataclass(frozen=True, kw_only=True)
class MadeFor:
    """What a file that a search wrote says of its schedule."""

    method: str  # the merge method
    flops: float = number(above=0, most=1)  # share of the unmerged cost that it was to meet
    model: str = ""  # its name, for readers
    tokens: int | None = None  # entering the first layer; None: any number
    options: dict[str, Any] = field(default_factory=dict)  # of the method, those that were searched


@dataclass(frozen=True)
class SharesKept:
    """The share of its tokens that each layer keeps."""

    ratio: list[float] = number(above=0, most=1)


@dataclass(frozen=True)
class KeptTokens:
    """Tokens kept in every layer, protected ones counted."""

    merge_kept: tuple[int, ...] | None  # that leave the layer; None: as many as pruning leaves
    prune_kept: tuple[int, ...] | None = None  # left by pruning, which comes first; None: nothing is pruned
    tokens: int | None = None  # of the model it was made for, entering the first layer; None: unknown
    ratio: tuple[float, ...] | None = None  # instead, the share that each layer keeps, as texts need it
    made_for: MadeFor | None = None  # of a file that a search wrote

    @property
    def kept(self) -> tuple[int, ...]:
        """Those that leave each layer."""
        return self.merge_kept or self.prune_kept or ()

    def options(self) -> dict[str, list[int]]:
        """The two lists by name, without one that is not there."""
        lists = {name: getattr(self, name) for name in NAMES}
        return {name: list(counts) for name, counts in lists.items() if counts is not None}


def find_schedule(schedule: str | Sequence[int]) -> KeptTokens:
    """A schedule from a list of tokens kept; from `published/deit_s@2.9`, what DiffRate's authors learned for
    a model and GFLOPs; from `searched/vit_fmnist/tome@0.6`, what this project made (`MADE`); or from a file:
    YAML or JSON with a list, with lists named prune_kept and merge_kept (or one of them), with a list named
    ratio, or in the form of DiffRate's compression_rate.json: FILE@ViT-S-DeiT@2.9 says which.

    Raises UsageError, one line, for what cannot be read, for counts that rise from layer to layer, and for a
    merge count above its prune count. DiffRate's files may have both, and mean what their code does: a layer
    never has more tokens than entered, and does not merge where its merge count exceeds its prune count.
    """
    if not isinstance(schedule, str):
        return _checked("schedule", {"merge_kept": schedule})
    what = f"schedule={schedule}"
    if is_missing(schedule):
        raise UsageError(f"{what} is not there; {nearest(schedule, made_names())}")
    if schedule.startswith(PUBLISHED):
        model, _, amount = schedule.removeprefix(PUBLISHED).partition("@")
        return _of_models(what, published(), model, amount, PUBLISHED)
    path, choice = (str(made_path(schedule)), "") if schedule.startswith(MADE) else _split(schedule)
    content = _read(path, what)
    if isinstance(content, list):
        return _checked(what, {"merge_kept": content})
    if isinstance(content, dict) and content and all(isinstance(part, dict) for part in content.values()):
        model, _, amount = choice.partition("@")
        return _of_models(what, content, model, amount, f"{path}@")
    return _of_mapping(content, what)


def check_target(schedule: str | Sequence[int], flops: float) -> None:
    """Raise UsageError unless `schedule` is a file that says it was made for this share of the cost."""
    made = find_schedule(schedule).made_for
    if made is None:
        raise UsageError(
            f"flops={flops:g} goes with schedule={UNIFORM}, or with a file that a search made for it; "
            f"schedule={schedule} names no share, so leave out flops"
        )
    if made.flops != flops:
        raise UsageError(
            f"schedule={schedule} was made for flops={made.flops:g}, not for flops={flops:g}; give that, or "
            "leave out flops"
        )


def read_schedule(path: str | Path) -> dict[str, list[int]]:
    """The lists of a file by name, for the option `schedule_file`. Raises UsageError."""
    what = f"schedule_file={path}"
    return _named_lists(_read(path, what), what)


@functools.cache
def published() -> Mapping[str, Any]:
    """Model -> GFLOPs -> the lists that DiffRate's authors published."""
    content = json.loads((SHIPPED / "schedules.json").read_text(encoding="utf-8"))
    return {model: amounts for model, amounts in content.items() if model != "source"}


def published_names() -> list[str]:
    """`published/deit_t@0.6` and so on."""
    return [f"{PUBLISHED}{model}@{amount}" for model, amounts in published().items() for amount in amounts]


def made_path(name: str) -> Path:
    """The file of a schedule that this project made."""
    return SHIPPED / "schedules" / f"{name}.yaml"


def made_names() -> list[str]:
    """`searched/vit_fmnist/tome@0.6` and so on."""
    folder = SHIPPED / "schedules"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/*/*.yaml"))


def is_missing(schedule: object) -> bool:
    """Whether it has the name of a schedule that this project makes, and is not made yet."""
    return isinstance(schedule, str) and schedule.startswith(MADE) and not made_path(schedule).is_file()


def _split(schedule: str) -> tuple[str, str]:
    """The path, and what follows its first @ unless a file has that in its name."""
    path, _, choice = schedule.partition("@")
    return (schedule, "") if Path(schedule).exists() else (path, choice)


def _of_models(what: str, content: Mapping[str, Any], model: str, amount: str, before: str) -> KeptTokens:
    """One of several schedules, in the form of DiffRate's file."""
    if model not in content:
        raise UsageError(f"{what}: there is no model {model!r}; {nearest(model, content)}")
    amounts = content[model]
    lists = amounts.get(amount)
    if not isinstance(lists, Mapping):
        some = ", ".join(f"{before}{model}@{each}" for each in amounts)
        raise UsageError(f"{what}: there is no {model} at {amount or 'no'} GFLOPs; available: {some}")
    found: dict[str, list[int]] = {}
    for theirs, name in _THEIRS.items():
        counts = lists.get(theirs)
        if isinstance(counts, str):  # in their file the lists are texts
            try:
                counts = json.loads(counts.replace("None", "null"))
            except ValueError:
                counts = ()
        if counts is not None:
            found[name] = _whole(what, theirs, counts)
    if set(found) != set(NAMES):
        raise UsageError(f"{what} has no {' and '.join(_THEIRS)} for a plain transformer")
    pruned, merged, left = [], [], max(found["prune_kept"][0], found["merge_kept"][0])
    for prune, merge in zip(found["prune_kept"], found["merge_kept"], strict=True):
        pruned.append(min(prune, left))
        merged.append(min(merge, pruned[-1]))
        left = merged[-1]
    return KeptTokens(tuple(merged), tuple(pruned), tokens=found["prune_kept"][0])


def _checked(what: str, lists: Mapping[str, Sequence[int]]) -> KeptTokens:
    """A schedule from its lists. Raises UsageError."""
    found = {name: _whole(what, name if len(lists) > 1 else "", counts) for name, counts in lists.items()}
    for counts in found.values():
        check_falling(what, counts)
    check_pair(found.get("prune_kept"), found.get("merge_kept"))
    parts = {name: tuple(counts) for name, counts in found.items()}
    return KeptTokens(parts.get("merge_kept"), parts.get("prune_kept"))


def check_falling(what: str, counts: Sequence[int]) -> None:
    """Raise UsageError where a layer is to keep more tokens than the one before."""
    for layer, (before, after) in enumerate(itertools.pairwise(counts), start=1):
        if after > before:
            raise UsageError(
                f"{what} keeps {after} tokens in layer {layer} after {before} in layer {layer - 1}; "
                "give counts that never rise"
            )


def check_pair(pruned: Sequence[int] | None, merged: Sequence[int] | None) -> None:
    """Raise UsageError for two lists that do not go together."""
    if pruned is None or merged is None:
        return
    if len(pruned) != len(merged):
        raise UsageError(
            f"prune_kept has {len(pruned)} entries, merge_kept {len(merged)}; give one per layer"
        )
    if any(m > p for p, m in zip(pruned, merged, strict=True)):
        raise UsageError("merge_kept exceeds prune_kept in a layer; pruning comes first, so it keeps more")


def _whole(what: str, name: str, counts: object) -> list[int]:
    if isinstance(counts, list | tuple) and counts and all(type(c) is int and c > 0 for c in counts):
        return list(counts)
    raise UsageError(
        f"{what}{f': {name}' if name else ''} must be a list of whole numbers above 0, one per layer"
    )


def _of_mapping(content: object, what: str) -> KeptTokens:
    """From lists by name, with what a search says of them."""
    made = None
    if isinstance(content, dict) and MADE_FOR in content:
        made = decode(MadeFor, content[MADE_FOR], f"{what}: {MADE_FOR}")
        content = {name: value for name, value in content.items() if name != MADE_FOR}
    if isinstance(content, dict) and set(content) == {"ratio"}:
        shares = decode(SharesKept, content, what).ratio
        return KeptTokens(None, ratio=tuple(shares), made_for=made)
    found = _checked(what, _named_lists(content, what))
    return replace(found, tokens=made.tokens if made else None, made_for=made)


def _named_lists(content: object, what: str) -> dict[str, list[int]]:
    if not isinstance(content, dict) or not content or not set(content) <= set(NAMES):
        raise UsageError(
            f"{what} must hold lists named {' and '.join(NAMES)}, or one of them, and nothing else"
        )
    return {name: _whole(what, name, counts) for name, counts in content.items()}


def _read(path: str | Path, what: str) -> object:
    import yaml  # JSON is YAML, so one reader serves both

    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{what} cannot be read ({error.strerror}); give a YAML or JSON file, a list, or a name such as "
            f"{PUBLISHED}deit_s@2.9"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UsageError(f"{what} is neither YAML nor JSON; expected {_FORMS}") from None
