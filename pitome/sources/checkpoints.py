"""Checkpoints: read without running code, and fitted to the names of a model.

What people save wraps a model's tensors in many ways: mappings (`state_dict`, `model`, `model_ema`, ...) and
prefixes (`module.`, `backbone.`, `visual.`, ...), in any order. One rule undoes them all: every tensor has a
dotted name through the mappings it lies in, and what stands in front of the model's own names most often is
taken away.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.errors import CheckpointError
from pitome.sources.checkpoint_files import (
    check_checkpoint,
    sha256_of,
    sha256_of_files,
    shard_hint,
    shards_of,
)
from pitome.sources.hub import say
from pitome.sources.pickles import load_pickle, load_script
from pitome.sources.weights import SHIPPED

if TYPE_CHECKING:
    from torch import Tensor, nn

_DEEPEST, _MOST_MAPPINGS = 8, 100_000  # mappings in mappings
_TOP = "."  # as `weights_key`: what lies in no mapping and has no prefix
_WRAPPERS = {
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "module",
}  # anywhere in a name
_AVERAGED = re.compile(r"(^|[._])(ema|teacher|swa|avg|averaged|shadow)([._]|$)")
_HEADS = r"head|heads|head_dist|fc|classifier|pre_logits|last_layer|linear|lm_head|cls"
_HEAD = re.compile(rf"({_HEADS})\.")
# Tensors that a model computes itself, or that only its pretraining used.
_UNUSED = re.compile(
    r"(.*\.)?(position_ids|num_batches_tracked|n_averaged|relative_position_index)"
    r"|input_resolution|context_length|vocab_size"  # OpenAI's CLIP
    r"|(mask_token|decoder\w*|projector|projection_head|predictor|queue|queue_ptr|criterion|loss\w*)(\..*)?"
)


@dataclass(frozen=True)
class Checkpoint:
    """Tensors under the names of a model."""

    path: Path
    state: dict[str, Tensor]
    # Hex digits; of the file, or of all files of a model in several.
    sha256: str
    # One line: what was taken away from the names, chosen and left out; None if nothing was.
    note: str | None = None


def load_checkpoint(
    path: str | Path, model: nn.Module | Mapping[str, Tensor], key: str | None = None
) -> Checkpoint:
    """Read what `check_checkpoint` knows on the CPU, without running code of the file, for `model` or the
    tensors that it is to fill.

    key: the part of the file to read (`weights_key`); None: the one that fits most tensors of the model, of
    several alike the moving average. What was taken is said on standard error. Raises CheckpointError for
    what `check_checkpoint` refuses, for types in a pickle that could run code, for a file without tensors,
    for a key that it does not have, and where several parts fit alike.
    """
    path = Path(path)
    kind = check_checkpoint(path)
    files = shards_of(path) if kind == "index" else [path]
    content: dict[str, Any] = {}
    for file in files:
        content |= _read(file, check_checkpoint(file) if kind == "index" else kind)
    try:
        tensors = _flat(content)
    except CheckpointError as problem:
        raise CheckpointError(f"{path} holds {problem}") from None
    if not tensors:
        raise CheckpointError(
            f"{path} holds no state_dict; expected names and tensors, at the top or in mappings "
            f"(it holds {', '.join(list(content)[:5]) or 'nothing'})"
        )
    wanted = model if isinstance(model, Mapping) else model.state_dict()
    state, note = _fit(tensors, {name: tuple(value.shape) for name, value in wanted.items()}, path, key)
    state = {
        name: value.to_dense() if value.is_sparse or value.is_sparse_csr else value
        for name, value in state.items()
    }
    fitting = {
        k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape and v.itemsize > 1
    }
    if broken := [name for name, value in fitting.items() if value.isnan().any()]:
        raise CheckpointError(
            f"{path} holds values that are no numbers, e.g. in {broken[0]}: its training diverged"
        )
    if note and path.parent != SHIPPED:
        _say_once(note)
    return Checkpoint(path, state, sha256_of(path) if kind != "index" else sha256_of_files(files), note)


def load_into(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the tensors into `model`; every name and shape must match.

    Raises CheckpointError, naming the first mismatch, both shapes and the number of others.
    """
    wanted = model.state_dict()
    check_fit(wanted, checkpoint)
    model.load_state_dict(checkpoint.state)


def check_fit(wanted: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Raise CheckpointError, as `load_into` does, where a checkpoint lacks one of the tensors `own`, has
    one more, or one of another shape or kind."""
    given, path = checkpoint.state, checkpoint.path
    lacking = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    other = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    kinds = [
        name
        for name in wanted
        if name in given and wanted[name].is_floating_point() and not given[name].is_floating_point()
    ]
    if not (lacking or extra or other or kinds):
        return
    if hint := shard_hint(path):
        raise CheckpointError(f"{path} is not the whole model: {hint}")
    if not any(name in given for name in wanted):
        raise CheckpointError(
            f"{path} does not fit this model: its tensors have other names, e.g. {extra[0]}, the model's "
            f"{lacking[0]}; choose the model it was made for, or convert the names"
        )
    heads = [name for name in (*lacking, *other) if _HEAD.match(name)]
    if heads and not kinds and all(_HEAD.match(name) for name in (*lacking, *other, *extra)):
        name = heads[0]
        if lacking:
            what = f"it has no classifier ({name} is not in the file)"
        else:
            what = (
                f"its classifier has {len(given[name])} outputs and the model's {len(wanted[name])} ({name})"
            )
        raise CheckpointError(
            f"{path} does not fit this model: {what}; choose weights and a model for the same classes, or a "
            "model without a classifier"
        )
    wrong = [
        f"{name} is {list(given[name].shape)} in the file and {list(wanted[name].shape)} in the model"
        for name in other
    ]
    wrong += [f"{name} {list(wanted[name].shape)} is not in the file" for name in lacking]
    wrong += [f"{name} {list(given[name].shape)} is not in the model" for name in extra]
    wrong += [f"{name} is {given[name].dtype} in the file, quantised or no weight" for name in kinds]
    others = f" ({len(wrong) - 1} more do not fit)" if len(wrong) > 1 else ""
    raise CheckpointError(
        f"{path} does not fit this model: {wrong[0]}{others}; choose the model it was made for"
    )


def _read(path: Path, kind: str) -> dict[str, Any]:
    if kind == "safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    content = load_script(path) if kind == "script" else load_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds no state_dict but a {type(content).__name__}; save the state_dict alone"
        )
    return content


def _flat(content: Mapping[Any, Any]) -> dict[str, tuple[str, Tensor]]:
    """The tensors of mappings in mappings: dotted name -> the part of it that names the mapping, tensor.
    Raises CheckpointError for more mappings in mappings than a checkpoint has: a pickle of a few hundred
    bytes may repeat one without end."""
    import torch

    tensors: dict[str, tuple[str, Tensor]] = {}
    mappings = itertools.count()

    def walk(mapping: Mapping[Any, Any], place: str, depth: int) -> None:
        if next(mappings) > _MOST_MAPPINGS:
            raise CheckpointError(f"more than {_MOST_MAPPINGS:,} mappings in mappings, so no checkpoint")
        for name, value in mapping.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{place}{name}"] = place, value
            elif isinstance(value, dict) and depth < _DEEPEST:
                walk(value, f"{place}{name}.", depth + 1)

    walk(content, "", 0)
    return tensors


def _fit(
    tensors: Mapping[str, tuple[str, Tensor]],
    shapes: Mapping[str, tuple[int, ...]],
    path: Path,
    key: str | None,
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors by the model's names, and the note on them."""
    short, gone = _without_wrappers(list(tensors), shapes)
    named = {name: value for name, (_, value) in zip(short, tensors.values(), strict=True)}
    places = {name: place for name, (place, _) in zip(short, tensors.values(), strict=True)}
    if key not in (None, _TOP):
        part = "".join(f"{word}." for word in str(key).split(".") if word not in gone)
        kept = {name: value for name, value in named.items() if name.startswith(part)}
        if not kept:
            parts = _candidates(named, shapes) or {name.partition(".")[0] for name in named}
            raise CheckpointError(
                f"weights_key={key}: {path} has no such part; available: "
                f"{', '.join(sorted(map(_word, parts))[:10])}"
            )
        named = kept
    best = _candidates(named, shapes)
    if not best:
        # Nothing fits: the largest mapping is what the message will speak of.
        place = Counter(places[name] for name in named).most_common(1)[0][0]
        return {
            name.removeprefix(place): value for name, value in named.items() if places[name] == place
        }, None
    prefix, choice = (best[0], None) if key == _TOP else _choose(best, named, shapes, path)
    inner = tuple(other for other in best if other != prefix and other.startswith(prefix))
    state = {
        name.removeprefix(prefix): value
        for name, value in named.items()
        if name.startswith(prefix) and not (inner and name.startswith(inner))
    }
    used = {prefix + name for name in state}
    # Nearly all names have the prefix: others may have only the beginning of it.
    parts = prefix.split(".")[:-1]
    for outer in ("".join(f"{part}." for part in parts[:n]) for n in range(len(parts))):
        for name, value in named.items():
            rest = name.removeprefix(outer)
            fits = name.startswith(outer) and shapes.get(rest) == tuple(value.shape)
            if fits and name not in used and rest not in state:
                state[rest] = value
                used.add(name)
    headless = not any(_HEAD.match(name) for name in shapes)
    unused = {
        name
        for name in state
        if name not in shapes and (_UNUSED.fullmatch(name) or (headless and _HEAD.match(name)))
    }
    place = Counter(places[name] for name in used).most_common(1)[0][0]
    left = sorted(
        unused
        | {name.removeprefix(place) for name in named if places[name] == place}
        - {name.removeprefix(place) for name in used}
    )
    lost = [f"{word}." for word in sorted(gone)] + ([prefix] if prefix else [])
    notes = [f"names lose {' and '.join(map(repr, lost))}"] if lost else []
    notes += [choice] if choice else []
    if left:
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        notes.append(f"{len(left)} tensor{'s are' if len(left) > 1 else ' is'} not used ({shown})")
    state = {name: value for name, value in state.items() if name not in unused}
    return state, f"{path.name}: {'; '.join(notes)}" if notes else None


def _without_wrappers(names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[str], set[str]]:
    """Names without the parts that torch.compile, DistributedDataParallel and FSDP put into them, and which
    parts these are."""
    known = {part for name in shapes for part in name.split(".")}
    gone = ({part for name in names for part in name.split(".")} & _WRAPPERS) - known
    short = [".".join(part for part in name.split(".") if part not in gone) for name in names]
    return (short, gone) if len(set(short)) == len(short) else (names, set())


def _word(prefix: str) -> str:
    """How `weights_key` names a prefix."""
    return prefix.rstrip(".") or _TOP


def _candidates(named: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The prefixes under which the most tensors fit the model, by shape and then by name; shortest first."""
    fits: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for name, value in named.items():
        parts = name.split(".")
        for start in range(len(parts)):
            inner = ".".join(parts[start:])
            if inner in shapes:
                prefix = name[: len(name) - len(inner)]
                names[prefix] += 1
                fits[prefix] += shapes[inner] == tuple(value.shape)
    most = max(((fits[prefix], count) for prefix, count in names.items()), default=None)
    return sorted((p for p, count in names.items() if (fits[p], count) == most), key=lambda p: (len(p), p))


def _choose(
    best: list[str], named: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> tuple[str, str | None]:
    """The one prefix of several that fit alike, and what is to be said of the choice."""

    def same(first: str, second: str) -> bool:
        pairs = [(named.get(first + name), named.get(second + name)) for name in shapes]
        return all(
            a is b or (a is not None and b is not None and a.dtype == b.dtype and a.equal(b))
            for a, b in pairs
        )

    different: list[str] = []
    for prefix in best:  # a part may be registered twice
        if not any(same(prefix, other) for other in different):
            different.append(prefix)
    if len(different) == 1:
        return different[0], None
    averaged = [prefix for prefix in different if _AVERAGED.search(prefix)]
    words = [_word(prefix) for prefix in different]
    if len(averaged) != 1:
        raise CheckpointError(
            f"{path} holds {len(different)} sets of weights for this model, {', '.join(words[:5])}: "
            f"choose one with weights_key={words[-1]}"
        )
    others = [word for word in words if word != _word(averaged[0])]
    return averaged[0], f"the moving average is taken, weights_key={others[0]} takes the weights it is of"


@cache
def _say_once(line: str) -> None:
    say(line)
