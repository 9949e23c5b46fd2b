"""Vision-language models after their image tower: tokens taken out between tower and language model (place
`projector`), and before one of the language model's layers (`language.py`). One path for all families.

`CutInputs`, a hook before the forward, encodes the images, has the method decide which of their tokens stay
and takes the placeholders of the others out of everything with one entry per token. So a caller, `generate`
among them, goes on counting all of them: what was removed is noted on the cache of keys and values, and the
attention masks and positions of later calls are cut to it.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GenerationMixin

from pitome.adapters.core import (
    Replacement,
    _no_autocast,
    _wide,
    remove_hooks,
    replace_methods,
    restore_methods,
)
from pitome.adapters.place_patch import READ
from pitome.adapters.saved import Positions
from pitome.adapters.transformers.families import Family
from pitome.adapters.transformers.families import family_of as family_of
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.contract import check_plan
from pitome.merge.plan import AnyPlan, Plan, Tokens
from pitome.merge.registry import Method, ModelPlace, PlaceOptions
from pitome.merge.schedule import kept_of

PLACES = "_pitome_places"  # of the model, its `Places`
_READY = "_pitome_ready"  # among the arguments of a forward: they are cut already
_RECORD = "_pitome_removed"  # of a cache of keys and values, its `Removed`
_KINDS = ("image", "video")
_PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos", "image_patches")
_TYPES = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")


@dataclass
class PlaceState:
    """What one place does."""

    method: Method
    options: PlaceOptions
    keep: int | float  # tokens of an image that stay, or their share
    positions: Positions = "keep"  # of the tokens that stay: `keep` or `renumber`
    checked: bool = False  # whether its first plan has been looked at

    def kept(self, n: int) -> int:
        """How many of `n` tokens stay: no image loses all of them."""
        return kept_of(self.keep, n)

    def decide(self, tokens: Tokens) -> AnyPlan:
        """The method's plan for `tokens`, in full precision."""
        n = tokens.x.shape[1]
        remove = n - self.kept(n)
        with _no_autocast(tokens.x.device.type):
            plan = self.method.plan(tokens, remove, self.options)
        if not self.checked:
            self.checked = check_plan(plan, tokens, remove, self.method.name, False)
        return plan


@dataclass
class Removed:
    """What later calls with the same cache must know of its prompt."""

    prompt: int  # its tokens as the caller counts them, T
    columns: Tensor  # [B, M], which of these each token of the language model is
    valid: Tensor  # [B, M], False at padding
    shift: Tensor  # [.., B, 1], what the caller's positions of later tokens are too large by
    last: Tensor  # [.., B, 1], position of the last token
    inner: Tensor | None = None  # [B, L], which of the M tokens later layers hold; None: all of them
    inner_valid: Tensor | None = None  # [B, L], False at padding

    @property
    def length(self) -> int:
        return self.columns.shape[1]


@dataclass
class Pass:
    """One forward of the whole model."""

    depth: int  # layers of the language model
    rows: list[tuple[int, int]] = field(default_factory=list)  # of each image: its tokens before and after
    tokens: list[int] = field(default_factory=list)  # entering each layer of the language model, then left
    image: Tensor | None = None  # [B, M], which tokens are of images; None where no image is new
    valid: Tensor | None = None  # [B, M], False at padding
    removed: Removed | None = None  # to be noted on the cache, or read from it
    captured: dict[str, Any] = field(default_factory=dict)  # for the language place
    masks: dict[int, Any] = field(default_factory=dict)  # id of a mask -> it and what it was cut to
    seconds: dict[str, float] = field(default_factory=dict)  # of the methods, by place
    macs: dict[str, int] = field(default_factory=dict)  # likewise, multiply-accumulates


class _PassOfThread(threading.local):
    forward: Pass | None = None

    def __init__(self) -> None:
        self.read: dict[str, Tensor] = {}  # what hooks left of the image tower, which may run before a pass


class Places:
    """The places of one model and their last forward passes, one for each thread."""

    def __init__(self, family: Family, depth: int) -> None:
        self.family = family
        self.depth = depth
        self.states: dict[ModelPlace, PlaceState] = {}
        self.tower = False  # whether tokens merge in the image tower
        self.timed = False  # whether `Pass.seconds` is filled, for which devices must wait
        self.counted = False  # whether `Pass.macs` is
        self._thread = _PassOfThread()
        self._last = Pass(depth)

    def __reduce__(self) -> tuple[Any, ...]:
        # Also for deepcopy: the state of a forward stays where it is.
        return _restored, (self.family, self.depth, self.states, self.tower)

    @property
    def positions(self) -> Positions:
        """Of the tokens that stay. Tokens that merged in the tower have none of their own."""
        if "projector" in self.states:
            return self.states["projector"].positions
        return "renumber" if self.tower else "keep"

    def begin(self, removed: Removed | None = None) -> Pass:
        """The state of a forward that begins in this thread; removed: from the prompt that it goes on after,
        whose counts it keeps."""
        before, forward = self.current(), Pass(self.depth, removed=removed)
        if removed is not None:
            forward.rows, forward.tokens = before.rows, before.tokens
            forward.seconds, forward.macs = before.seconds, before.macs
        self._thread.forward = self._last = forward
        return forward

    @property
    def read(self) -> dict[str, Tensor]:
        """What hooks keep of the image tower."""
        return self._thread.read

    def current(self) -> Pass:
        """The forward that runs in this thread, or ran last in it; where it ran none, that of any thread."""
        return self._thread.forward or self._last

    def shorten(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a forward without the placeholders of image tokens that go."""
        removed = record(given.get("past_key_values"))
        forward = self.begin(removed)
        if not has_images(given):
            if removed is None:
                return given
            count = _length(given)
            mask, positions = later(
                removed,
                given.get("past_key_values"),
                given.get("attention_mask"),
                given.get("position_ids"),
                count,
            )
            return given | {"attention_mask": mask, "position_ids": positions}
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if removed is not None:
            raise UsageError(
                "an image after a cached prompt: of a patched model, give the whole prompt and no cache"
            )
        if ids is None:
            raise UsageError("a patched model takes input_ids with images, not inputs_embeds")
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            raise UsageError("a patched model takes an attention_mask [B, N] with images")
        given = dict(given)
        if given.get("position_ids") is None:
            given["position_ids"] = self._positions(model, ids, given)
        outputs = encode(model, given)
        return self._cut(model, given, outputs, forward)

    def _positions(self, model: Any, ids: Tensor, given: Mapping[str, Any]) -> Tensor:
        """What the model itself takes where none are given."""
        own = type(model)._prepare_position_ids_for_generation
        if own is not GenerationMixin._prepare_position_ids_for_generation:
            made: Tensor = own(model, ids, {**given, "past_key_values": None})
            return made
        return torch.arange(ids.shape[1], device=ids.device)[None] + self.family.first_position

    def _cut(
        self, model: Any, given: dict[str, Any], outputs: dict[str, Any], forward: Pass
    ) -> dict[str, Any]:
        ids: Tensor = given["input_ids"]
        batch, length = ids.shape
        live = torch.ones_like(ids, dtype=torch.bool)  # tokens that stay
        image = torch.zeros_like(live)
        place = torch.arange(length, device=ids.device).repeat(batch, 1)  # whose position each token takes
        for kind, output in outputs.items():
            if output is None:
                continue
            marker = getattr(model.config, f"{kind}_token_id")
            at = (ids == marker).nonzero()
            image |= ids == marker
            rows = self.family.images(model, output.pooler_output)
            spans = _spans(rows, at, self.tower)
            if sum(map(len, spans)) < len(
                at
            ):  # merged in the tower: the first placeholders of each image are taken
                live[at[:, 0], at[:, 1]] = False
                for span in spans:
                    live[span[:, 0], span[:, 1]] = True
            plans = self._plans(model, given, rows, spans)
            for span, plan in zip(spans, plans, strict=True):
                forward.rows.append((len(span), len(span) if plan is None else plan.n_out))
                if plan is not None:
                    anchors = _anchors(plan).to(ids.device)
                    slots = span[anchors.sort().values]
                    live[span[:, 0], span[:, 1]] = False
                    live[slots[:, 0], slots[:, 1]] = True
                    place[slots[:, 0], slots[:, 1]] = span[anchors, 1]
            if any(plan is not None for plan in plans):
                with self.clock("projector", rows[0].device):
                    outputs[kind] = _applied(output, rows, plans)
        given["mm_encoder_outputs"] = outputs
        return self._gathered(given, live, image, place, forward)

    def _plans(
        self, model: Any, given: Mapping[str, Any], rows: Sequence[Tensor], spans: Sequence[Tensor]
    ) -> list[AnyPlan | None]:
        """For each image what happens to its tokens; None: nothing."""
        plans: list[AnyPlan | None] = [None] * len(rows)
        state = self.states.get("projector")
        if state is None:
            return plans
        needs = state.method.needs(state.options)
        read: Mapping[str, list[Tensor]] = {}
        with self.clock("projector", rows[0].device):
            if needs & READ:
                made = self.family.scores(model, self.read, needs)
                read = {name: _repeated(values, rows, spans) for name, values in made.items()}
            for numbers in _alike(rows, alone="text" in needs):
                if state.kept(len(rows[numbers[0]])) == len(rows[numbers[0]]):
                    continue
                x = torch.stack([rows[number] for number in numbers])
                wide = x.to(_wide(x))
                parts: dict[str, Any] = {
                    name: torch.stack([values[number] for number in numbers]).to(x.device)
                    for name, values in read.items()
                }
                if "text" in needs:
                    parts["text"] = _text(model, given, spans[numbers[0]], state.method.name).to(wide)
                if "grid" in needs:
                    parts["grid"] = self.family.grid(model, given, len(rows[numbers[0]]))
                tokens = Tokens(
                    x=x, metric=wide, size=x.new_ones(x.shape[:2], dtype=wide.dtype), protected=0, layer=0,
                    depth=0, **parts,
                )  # fmt: skip
                plan = state.decide(tokens)
                for at, number in enumerate(numbers):
                    plans[number] = _of_image(plan, at)
        return plans

    def _gathered(
        self, given: dict[str, Any], live: Tensor, image: Tensor, place: Tensor, forward: Pass
    ) -> dict[str, Any]:
        """`given` with the tokens that are `live` [B, T]; padding goes where it was."""
        ids, mask = given["input_ids"], given.get("attention_mask")
        real = torch.ones_like(live) if mask is None else mask.to(live.device).bool()
        stays = live & real
        longest = int(stays.sum(dim=1).max())
        right = bool((~real[:, -1]).any())
        order = stays.long().argsort(dim=1, descending=right, stable=True)
        columns = order[:, :longest] if right else order[:, -longest:]
        valid = stays.gather(1, columns)
        padded = not bool(valid.all())
        fill = self.family.filler(given["input_ids"], image)
        given["input_ids"] = ids.gather(1, columns).masked_fill(~valid, fill)
        if mask is not None or padded:
            kind = torch.long if mask is None else mask.dtype
            given["attention_mask"] = valid.to(kind)
        for name in _TYPES:
            if given.get(name) is not None:
                given[name] = given[name].gather(1, columns).masked_fill(~valid, 0)
        if given.get("labels") is not None:
            given["labels"] = given["labels"].gather(1, columns).masked_fill(~valid, -100)
        whole = given["position_ids"].expand(*given["position_ids"].shape[:-2], *ids.shape)
        index = place.gather(1, columns)
        positions = whole.gather(-1, index.expand(*whole.shape[:-2], -1, -1))
        last = whole[..., -1:]
        if self.positions == "renumber" and not torch.equal(stays, real):  # else the caller has placed them
            first = positions.masked_fill(~valid, torch.iinfo(positions.dtype).max).amin(-1, keepdim=True)
            positions = (valid.long().cumsum(-1) - 1).clamp_min(0) + first
        given["position_ids"] = positions
        forward.image, forward.valid = image.gather(1, columns) & valid, valid
        end = positions[..., -1:]
        forward.removed = Removed(ids.shape[1], columns, valid, last - end, end)
        if self.positions == "keep":
            forward.removed.shift = torch.zeros_like(end)
            forward.removed.last = last
        return given

    def clock(self, name: str, device: torch.device) -> _Clock:
        return _Clock(self, name, device)

    @property
    def counts(self) -> dict[str, list[int]]:
        """Place -> tokens in the last forward: at the projector those of the largest image, before and after;
        in the language model those that enter each layer, then those that are left."""
        forward = self.current()
        found: dict[str, list[int]] = {}
        if "projector" in self.states:
            found["projector"] = list(max(forward.rows)) if forward.rows else []
        if "language" in self.states:
            found["language"] = list(forward.tokens)
        return found


def _restored(family: Family, depth: int, states: dict[ModelPlace, PlaceState], tower: bool) -> Places:
    places = Places(family, depth)
    places.states, places.tower = states, tower
    return places


class _Clock:
    """Adds the seconds and the multiply-accumulates of a part of a forward to it, if they are asked for."""

    def __init__(self, places: Places, name: str, device: torch.device) -> None:
        self.places, self.name, self.device = places, name, device

    def __enter__(self) -> None:
        self.counter = FlopCounterMode(display=False) if self.places.counted else None
        if self.counter is not None:
            self.counter.__enter__()
        self.start = self._now()

    def __exit__(self, *error: object) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            macs = self.places.current().macs
            macs[self.name] = macs.get(self.name, 0) + self.counter.get_total_flops() // 2
        if self.places.timed:
            seconds = self.places.current().seconds
            seconds[self.name] = seconds.get(self.name, 0.0) + self._now() - self.start

    def _now(self) -> float:
        if self.places.timed and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class CutInputs:
    """Hook before the forward of the whole model: cuts its arguments."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names = inspect.signature(type(module).forward).parameters
        given = dict(zip(list(names)[1:], args, strict=False)) | kwargs
        if given.pop(_READY, False):
            return (), given
        return (), self.places.shorten(module, given)


class NoteRemoved:
    """Hook after it: notes on the cache what was removed."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        forward = self.places.current()
        cache = getattr(output, "past_key_values", None)
        if cache is not None and forward.removed is not None:
            setattr(cache, _RECORD, forward.removed)


class Generation(Replacement):
    """What `generate` calls of a patched model."""

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As the model's own, of the prompt that is left."""
        places: Places = vars(self)[PLACES]
        given = kwargs | {
            "input_ids": input_ids,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
            "next_sequence_length": next_sequence_length,
            "is_first_iteration": is_first_iteration,
        }
        prepare: Any = super().prepare_inputs_for_generation  # type: ignore[misc]
        removed, cached = record(past_key_values), kwargs.get("use_cache", True)
        if (is_first_iteration or not cached) and has_images(given):
            if (
                isinstance(attention_mask, Tensor)
                and attention_mask.ndim == 2
                and bool((attention_mask[:, -1] == 0).any())
            ):
                raise UsageError(
                    "the prompts are padded on the right; generating needs padding_side='left' in the "
                    "processor's tokenizer"
                )
            if not cached and "language" in places.states:
                raise UsageError("a patch inside the language model generates with use_cache=True alone")
            given = places.shorten(self, given)
            outputs = given.pop("mm_encoder_outputs")
            removed = places.current().removed
            assert removed is not None
            removed.last = removed.last + places.family.first_position  # which `prepare` adds
            made: dict[str, Any] = prepare(**given | {"next_sequence_length": None})
            return made | {"mm_encoder_outputs": outputs, _READY: True}
        if removed is None or not cached:
            return dict(prepare(**given))
        if is_first_iteration and next_sequence_length is not None:  # a prompt that continues a cached one
            given["next_sequence_length"] = next_sequence_length - (removed.prompt - removed.length)
        count = given["next_sequence_length"] or input_ids.shape[1]
        mask, positions = later(removed, past_key_values, attention_mask, kwargs.get("position_ids"), count)
        places.begin(removed)
        made = prepare(**given | {"attention_mask": mask, "position_ids": positions})
        return made | {_READY: True}

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> None:
        raise UsageError(
            "a patched model generates without an assistant: its cache is shorter than its prompt"
        )

    def _prefill(self, input_ids: Tensor, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        if generation_config.prefill_chunk_size is not None:
            raise UsageError("a patched model reads its prompt at once: leave prefill_chunk_size out")
        return super()._prefill(input_ids, generation_config, *args, **kwargs)  # type: ignore[misc]


def record(cache: Any) -> Removed | None:
    """What was removed from the prompt that `cache` holds; None: nothing."""
    removed: Removed | None = getattr(cache, _RECORD, None)
    return removed if removed is not None and int(cache.get_seq_length()) > 0 else None


def has_images(given: Mapping[str, Any]) -> bool:
    outputs = given.get("mm_encoder_outputs") or {}
    return any(given.get(name) is not None for name in _PIXELS) or any(
        outputs.get(kind) is not None for kind in _KINDS
    )


def encode(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The outputs of the image tower by kind; what it takes leaves `given`."""
    outputs: dict[str, Any] = dict(given.get("mm_encoder_outputs") or {})
    used: set[str] = set()
    for kind in _KINDS:
        function = getattr(model.base_model, f"get_{kind}_features", None)
        if function is None:
            continue
        names = inspect.signature(function).parameters
        taken = {name: given[name] for name in names if name != "kwargs" and given.get(name) is not None}
        used |= taken.keys()
        if set(_PIXELS) & taken.keys():
            outputs[kind] = function(**taken, return_dict=True)
    for name in used:
        given.pop(name)
    return outputs


def later(
    removed: Removed, cache: Any, mask: Any, positions: Tensor | None, count: int
) -> tuple[Any, Tensor | None]:
    """Attention mask and positions of `count` tokens after a cached prompt, for the language model."""
    written = int(cache.get_seq_length()) - removed.length  # tokens after the prompt that are cached
    if mask is None:
        if not bool(removed.valid.all()):
            new = removed.valid.new_ones(len(removed.valid), written + count)
            mask = torch.cat([removed.valid, new], dim=1).long()
    elif isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] == removed.prompt + written + count:
        prompt = mask.gather(1, removed.columns.to(mask.device)) * removed.valid.to(mask.device, mask.dtype)
        mask = torch.cat([prompt, mask[:, removed.prompt :]], dim=1)
    if positions is None:
        steps = torch.arange(written + 1, written + count + 1, device=removed.last.device)
        return mask, removed.last + steps
    return mask, positions[..., -count:] - removed.shift.to(positions.device)


def _length(given: Mapping[str, Any]) -> int:
    embeds = given.get("inputs_embeds")
    return int(given["input_ids"].shape[1] if embeds is None else embeds.shape[1])


def _spans(rows: Sequence[Tensor], at: Tensor, merged: bool) -> list[Tensor]:
    """The placeholders [n, 2] (sample, column) of each image; `at` [R, 2]: all of them, of which an image may
    have too many where tokens are `merged` in the tower."""
    counts = [len(row) for row in rows]
    if merged and sum(counts) < len(at) and len(at) % len(rows) == 0:
        each = len(at) // len(rows)
        return [span[:count] for span, count in zip(at.split(each), counts, strict=True)]
    if sum(counts) != len(at):
        raise UsageError(
            f"the prompts hold {len(at)} placeholders for {sum(counts)} image tokens; "
            "give the model's own processor the same images"
        )
    return list(at.split(counts))


def _alike(rows: Sequence[Tensor], *, alone: bool) -> list[list[int]]:
    """Numbers of images with equally many tokens, which are decided together."""
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(number if alone else -len(row), []).append(number)
    return list(groups.values())


def _repeated(values: list[Tensor], rows: Sequence[Tensor], spans: Sequence[Tensor]) -> list[Tensor]:
    """What was read of each image, for each of `rows`: beams repeat the images of every prompt."""
    beams = len(rows) // max(len(values), 1)
    if beams > 1:
        samples = [int(span[0, 0]) for span in spans]
        starts = [samples.index(sample) for sample in samples]
        first = {
            sample: sum(other < sample // beams * beams for other in samples) // beams for sample in samples
        }
        values = [
            values[first[sample] + number - start]
            for number, (sample, start) in enumerate(zip(samples, starts, strict=True))
        ]
    if [len(value) for value in values] != [len(row) for row in rows]:
        raise UnsupportedModelError(
            f"the image tower has {sum(map(len, values))} tokens where the language model is given "
            f"{sum(map(len, rows))}, and this method ranks them by the tower's attention: give images, not "
            "features, or use divprune, random, stride or pool"
        )
    return values


def _of_image(plan: AnyPlan, number: int) -> AnyPlan:
    """The part of a plan for one image of several."""
    changes: dict[str, Any] = {
        spec.name: value[number : number + 1]
        for spec in dataclasses.fields(plan)
        if isinstance(value := getattr(plan, spec.name), Tensor)
    }
    return dataclasses.replace(plan, **changes)


def _anchors(plan: AnyPlan) -> Tensor:
    """The token of its image whose place each row takes, [M]."""
    if isinstance(plan, Plan):
        return plan.kept[0]
    return plan.weights[0].abs().argmax(dim=-1) if plan.kept is None else plan.kept[0]


def _applied(output: Any, rows: Sequence[Tensor], plans: Sequence[AnyPlan | None]) -> Any:
    """The tower's output with the rows of `plans`."""

    def apply(features: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(features, plans, strict=True)
        return [row if plan is None else plan.apply(row[None])[0] for row, plan in pairs]

    new = apply(rows)
    whole = output.pooler_output
    changes: dict[str, Any] = {"pooler_output": torch.cat(new)[None] if isinstance(whole, Tensor) else new}
    if getattr(output, "deepstack_features", None) is not None:
        changes["deepstack_features"] = [apply(list(layer)) for layer in output.deepstack_features]
    return dataclasses.replace(output, **changes)


def _text(model: Any, given: Mapping[str, Any], span: Tensor, method: str) -> Tensor:
    """The embeddings [1, S, C] of the text of the prompt that holds an image."""
    sample = int(span[0, 0])
    ids, mask = given["input_ids"][sample], given.get("attention_mask")
    text = torch.ones_like(ids, dtype=torch.bool)
    for kind in _KINDS:
        marker = getattr(model.config, f"{kind}_token_id", None)
        if marker is not None:
            text &= ids != marker
    if mask is not None:
        text &= mask[sample].bool().to(text.device)
    special = torch.tensor(sorted(_special(model)), device=ids.device)
    text &= ~torch.isin(ids, special)
    if not bool(text.any()):
        raise UsageError(
            f"merge={method} ranks image tokens by the text of the prompt, and this one has none"
        )
    embedded: Tensor = model.get_input_embeddings()(ids[text])
    return embedded[None]


def _special(model: Any) -> set[int]:
    """Ids that stand for no text, as far as the configuration names them."""
    config, found = model.config, set()
    for part in (config, config.get_text_config()):
        for name in (
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "vision_start_token_id",
            "vision_end_token_id",
        ):
            value = getattr(part, name, None)
            found |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    return found


def check_model(model: nn.Module) -> None:
    """Refuse a model that takes no image features. Raises UnsupportedModelError."""
    if "mm_encoder_outputs" not in inspect.signature(type(model).forward).parameters:
        raise UnsupportedModelError(
            f"{type(model).__name__} takes no features of images ready-made; use transformers >= 5.18"
        )


HOOKS = (CutInputs, NoteRemoved)


def places_of(model: Any) -> Places:
    """The places of a model, which cut its inputs from now on."""
    places: Places | None = vars(model).get(PLACES)
    if places is None:
        family = family_of(model.config.model_type)
        places = Places(family, len(family.decoder(model).layers))
        setattr(model, PLACES, places)
        model.register_forward_pre_hook(CutInputs(places), with_kwargs=True)
        model.register_forward_hook(NoteRemoved(places), with_kwargs=True)
        replace_methods(model, Generation)
    return places


def attach(model: Any, place: ModelPlace, state: PlaceState) -> Places:
    """Have `model` remove tokens at a place."""
    from pitome.adapters.transformers import language

    family, needs = family_of(model.config.model_type), state.method.needs(state.options)
    first = int(getattr(state.options, "layer", 2))
    if place == "language":
        language.check(model, family, first, bool(needs - {"text"}))
    elif needs & READ:
        family.check(model)
    places = places_of(model)
    if place == "language":
        language.attach(model, places, first, bool(needs - {"text"}))
    elif needs & READ:
        family.attach(model, places)
    places.states[place] = state
    return places


def detach(model: Any, places: Places, place: ModelPlace) -> None:
    """Undo `attach`."""
    from pitome.adapters.transformers import language, tower_scores

    remove_hooks(model, language.HOOKS if place == "language" else (tower_scores.ReadTower,))
    del places.states[place]
    end(model, places)


def end(model: Any, places: Places) -> None:
    """Leave the inputs of a model as they are, if nothing removes tokens from it any more."""
    if not places.states and not places.tower:
        restore_methods(model)
        remove_hooks(model, HOOKS)
        delattr(model, PLACES)
