"""LLaVA-1.5 from transformers: images and questions to answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pitome.adapters.patch import tower_patch
from pitome.adapters.place_patch import PatchedPlace, handles_of
from pitome.errors import UsageError
from pitome.merge.costs import closed_form
from pitome.tasks.vqa.tokenizers import IMAGE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str  # without special tokens
    tokens: int  # generated, the end counted
    prompt_tokens: int  # with those of the images


class Llava(nn.Module):
    """transformers' `LlavaForConditionalGeneration` with its tokenizer and prompt.

    `template` holds `{question}` and `<image>`. What `pitome.patch` takes: the image tower merges, and
    every prompt gets as many placeholders as the tower passes on. Where tokens are merged in a layer
    after the one whose features are taken (`vision_feature_layer`), this changes nothing but the cost.
    """

    tower_merges: ClassVar[bool] = True  # whether tokens can merge inside the tower

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.template = template
        self.dispatched = hasattr(model, "hf_device_map")

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Llava:
        # accelerate has put the parts of a dispatched model where they belong.
        return self if self.dispatched else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @property
    def image_tower(self) -> nn.Module:
        """Images [B, C, H, W] -> transformers' output with the hidden states."""
        tower: nn.Module = self.model.model.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        """Features [B, N, C] of the tower -> [B, N, D] as the language model reads them."""
        projector: nn.Module = self.model.model.multi_modal_projector
        return projector

    @property
    def language_model(self) -> nn.Module:
        """The decoder without its head."""
        decoder: nn.Module = self.model.model.language_model
        return decoder

    @property
    def context(self) -> int:
        """Tokens a prompt and its answer may have together."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def image_rows(self) -> int:
        """Placeholders of one image: the tokens that the tower passes on, by the schedule if it merges, or
        all of them if it unmerges."""
        from pitome.adapters.transformers.llava import handed_on

        handle = tower_patch(self.image_tower)
        if handle is None or handle.state.dense:
            return self.unmerged_rows
        state = handle.state
        form = closed_form(handle.architecture(), state.schedule, state.method, state.options)
        return handed_on(self.model.config, form.tokens)

    @property
    def places(self) -> dict[str, PatchedPlace]:
        """What removes tokens after the tower: place -> its handle."""
        return handles_of(self.model)

    @property
    def read_rows(self) -> int:
        """Tokens of one image that the language model is given."""
        handle = self.places.get("projector")
        return self.image_rows if handle is None else handle.kept(self.image_rows)

    @property
    def left_rows(self) -> int:
        """Tokens of one image in the last layer of the language model, in a prompt about one image."""
        handle = self.places.get("language")
        return self.read_rows if handle is None else handle.kept(self.read_rows)

    @property
    def unmerged_rows(self) -> int:
        """Placeholders of one image where nothing merges."""
        from pitome.adapters.transformers.llava import handed_on

        tower: Any = self.image_tower
        tokens = tower.embeddings.position_embedding.num_embeddings
        return handed_on(self.model.config, [tokens] * (tower.config.num_hidden_layers + 1))

    def prompt(self, question: str) -> str:
        """The prompt of a question about one image."""
        return self.template.replace("{question}", question.replace(IMAGE, " ").strip())

    def encode(self, prompt: str, images: int = 1) -> list[int]:
        """Token ids of a prompt, every <image> as many times as an image has rows.

        Raises UsageError where the prompt does not show `images` images.
        """
        marker = self.model.config.image_token_id
        word = self.tokenizer.convert_ids_to_tokens(marker)
        ids = self.tokenizer(prompt.replace(IMAGE, word))["input_ids"]
        if ids.count(marker) != images:
            raise UsageError(f"the prompt holds {ids.count(marker)} times {IMAGE} for {images} images")
        rows = self.image_rows
        return [out for id in ids for out in ([marker] * rows if id == marker else [id])]

    def unknown(self, prompts: Sequence[str]) -> list[str]:
        """The words of `prompts` that the tokenizer has no id for, sorted."""
        words = sorted({word for prompt in prompts for word in prompt.replace(IMAGE, " ").split()})
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        return [w for w, pieces in zip(words, ids, strict=True) if self.tokenizer.unk_token_id in pieces]

    def encoded(self, images: Tensor) -> Any:
        """Images [I, C, H, W] -> transformers' output, as a forward takes it in `mm_encoder_outputs`."""
        images = images.to(next(self.image_tower.parameters()).dtype)
        return self.model.get_image_features(pixel_values=images, return_dict=True)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images [I, C, H, W] -> for each, [N, D] as the language model reads it."""
        return list(self.encoded(images).pooler_output)

    def places_of(self, prompt: Sequence[int]) -> Tensor:
        """Positions [K, N] in the language model of a prompt's token ids, of K kinds."""
        return torch.arange(len(prompt))[None]

    def generate(
        self,
        prompts: Sequence[str],
        images: Tensor,
        shown: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        min_new_tokens: int | None = None,
        keep_positions: bool = False,
    ) -> list[Answer]:
        """Answers by greedy decoding with a cache of keys and values, of `max_new_tokens` tokens at most.

        images [I, C, H, W]: each goes through the tower once; shown: for every prompt the images it
        shows, in their order. keep_positions: a merged token keeps the position of the first patch it
        holds, and the text after an image the position it has without merging (the patch needs
        trace=True); else positions are consecutive. Raises UsageError for a prompt that does not show
        its images or leaves no room for the answer, and where the tower passes on another number of
        tokens than the schedule says.
        """
        given, counts = self._inputs(prompts, images, shown, max_new_tokens, keep_positions)
        out = self.model.generate(
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._pad,
            eos_token_id=self.tokenizer.eos_token_id,
            **given,
        )
        made = [self._cut(row) for row in out[:, given["input_ids"].shape[1] :].tolist()]
        texts = self.tokenizer.batch_decode(made, skip_special_tokens=True)
        return [Answer(text.strip(), len(new), n) for text, new, n in zip(texts, made, counts, strict=True)]

    def next_word(
        self, prompts: Sequence[str], images: Tensor, shown: Sequence[Sequence[int]], *, keep_positions: bool
    ) -> Tensor:
        """The logits [P, V] of the first token of each answer; arguments and errors as of `generate`."""
        given, _ = self._inputs(prompts, images, shown, 1, keep_positions)
        counted = given["attention_mask"].cumsum(dim=-1) - 1
        positions = given.pop("position_ids", counted.clamp_min(0))
        logits: Tensor = self.model(position_ids=positions, logits_to_keep=1, use_cache=False, **given).logits
        return logits[:, -1]

    def _inputs(
        self,
        prompts: Sequence[str],
        images: Tensor,
        shown: Sequence[Sequence[int]],
        max_new_tokens: int,
        keep_positions: bool,
    ) -> tuple[dict[str, Any], list[int]]:
        """What the language model reads, and how many tokens each prompt has; see `generate`."""
        ids = [self.encode(prompt, len(entry)) for prompt, entry in zip(prompts, shown, strict=True)]
        longest = max(len(entry) for entry in ids)
        if longest + max_new_tokens > self.context:
            raise UsageError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the context of "
                f"{self.context} tokens"
            )
        order = [image for entry in shown for image in entry]
        device = self.model.get_input_embeddings().weight.device
        given = self._seen(images, order, ids, keep_positions) if order else {}
        given["attention_mask"] = pad_left([[1] * len(entry) for entry in ids], 0).to(device)
        given["input_ids"] = pad_left(ids, self._pad).to(device)
        given |= self._kinds(given["input_ids"])
        gone = self.image_rows - self.read_rows
        return given, [len(row) - gone * len(entry) for row, entry in zip(ids, shown, strict=True)]

    def _seen(
        self, images: Tensor, order: Sequence[int], ids: Sequence[Sequence[int]], keep_positions: bool
    ) -> dict[str, Any]:
        """What the model takes of the images [I, C, H, W], in the order of the placeholders of `ids`."""
        given: dict[str, Any] = {}
        read = any(handle.reads_tower for handle in self.places.values())
        if takes_features(self.model) and not read:
            rows = self.features(images)
            check_rows(self.image_rows, rows)
            given["mm_encoder_outputs"] = ready([rows[image] for image in order])
        else:
            given["pixel_values"] = images[list(order)].to(next(self.image_tower.parameters()).dtype)
        if keep_positions:
            if "pixel_values" in given:
                self.features(images)
            places = self._places(len(images))
            positions = self._positions(ids, [places[image] for image in order])
            device = self.model.get_input_embeddings().weight.device
            given["position_ids"] = pad_left(positions, 0).to(device)
        return given

    def _kinds(self, ids: Tensor) -> dict[str, Tensor]:
        """What the model takes beside token ids [B, N] to tell text from images."""
        return {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _cut(self, row: list[int]) -> list[int]:
        """Generated ids up to the first end."""
        end = self.tokenizer.eos_token_id
        return row[: row.index(end) + 1] if end in row else row

    def _places(self, images: int) -> Tensor:
        """Of every token the tower passed on in its last forward, the first patch it holds: [I, N]."""
        from pitome.adapters.transformers.llava import feature_entry

        config = self.model.config
        skip = int(config.vision_feature_select_strategy == "default")
        handle = tower_patch(self.image_tower)
        if handle is None or handle.state.dense:
            return torch.arange(self.image_rows).expand(images, -1)
        membership = handle.state.last.membership[feature_entry(config)]
        if membership is None:
            raise UsageError("positions can be kept of a model patched with trace=True only")
        return membership[:, skip:, skip:].gt(0).to(torch.int8).argmax(dim=-1)

    def _positions(self, ids: Sequence[Sequence[int]], places: Sequence[Tensor]) -> list[list[int]]:
        whole, marker = self.unmerged_rows, self.model.config.image_token_id
        images, out = iter(places), []
        for row in ids:
            positions: list[int] = []
            at = next_position = 0
            while at < len(row):
                if row[at] != marker:
                    positions.append(next_position)
                    at, next_position = at + 1, next_position + 1
                    continue
                places_of_image = next(images).tolist()
                positions += [next_position + place for place in places_of_image]
                at, next_position = at + len(places_of_image), next_position + whole
            out.append(positions)
        return out


def takes_features(model: nn.Module) -> bool:
    """Whether a prompt's image features can be given ready-made (transformers >= 5.18)."""
    return "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters


def ready(rows: list[Tensor]) -> dict[str, Any]:
    """Rows [N, C] of images in the order of their placeholders, as `mm_encoder_outputs`."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"image": BaseModelOutputWithPooling(pooler_output=rows)}  # type: ignore[arg-type]


def check_rows(expected: int, rows: Sequence[Tensor]) -> None:
    """Raise UsageError where an image has another number of rows than its placeholders."""
    others = {len(row) for row in rows} - {expected}
    if others:
        raise UsageError(
            f"the image tower passes on {others.pop()} tokens where the schedule says {expected}; "
            "patch the model with pitome.patch and change nothing else in its tower"
        )


def pad_left(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of different lengths as one tensor [B, N], `value` in front of the shorter ones."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[value] * (longest - len(row)) + list(row) for row in rows])
