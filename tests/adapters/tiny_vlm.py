"""Tiny vision-language models of every family, by their own classes, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

IMAGE, VIDEO, PAD, START = 3, 4, 0, 5  # token ids
WORDS = 40
_TEXT: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GEMMA = _TEXT | {"head_dim": 8}
_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "image_token_index": IMAGE, "pad_token_id": PAD}
_CLIP = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 4,
}  # fmt: skip


def _llava() -> Any:
    return hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_CLIP),
        text_config=hf.LlamaConfig(**_TEXT),
        image_token_index=IMAGE,
    )


def _llava_next() -> Any:
    return hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**_CLIP),
        text_config=hf.LlamaConfig(**_TEXT),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
    )


def _onevision() -> Any:
    return hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**_CLIP),
        text_config=hf.Qwen2Config(**_TEXT),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
    )


def _qwen2_5() -> Any:
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [2], "spatial_merge_size": 2,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return hf.Qwen2_5_VLConfig(vision_config=vision, text_config=_TEXT | {"rope_parameters": rope}, **_IDS)


def _qwen3() -> Any:
    vision = {
        "depth": 4, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "out_hidden_size": 32, "spatial_merge_size": 2, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1, 2],
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = _TEXT | {"head_dim": 8, "rope_parameters": rope}
    return hf.Qwen3VLConfig(vision_config=vision, text_config=text, **_IDS)


def _internvl() -> Any:
    vision = hf.InternVLVisionConfig(**_CLIP | {"image_size": [24, 24], "patch_size": [4, 4]})
    return hf.InternVLConfig(vision_config=vision, text_config=hf.Qwen2Config(**_TEXT), image_token_id=IMAGE)


def _smolvlm() -> Any:
    vision = hf.SmolVLMVisionConfig(**_CLIP)
    text = hf.LlamaConfig(**_TEXT)
    return hf.SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2)


def _idefics3() -> Any:
    vision = hf.Idefics3VisionConfig(**_CLIP)
    text = hf.LlamaConfig(**_TEXT)
    return hf.Idefics3Config(vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2)


def _paligemma() -> Any:
    return hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**_CLIP, projection_dim=32, vision_use_head=False),
        text_config=hf.GemmaConfig(**_GEMMA),
        image_token_index=IMAGE,
        projection_dim=32,
    )


def _gemma3() -> Any:
    text = hf.Gemma3TextConfig(
        **_GEMMA,
        sliding_window=512,
        layer_types=["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
    )
    vision = hf.SiglipVisionConfig(**_CLIP, vision_use_head=False)
    return hf.Gemma3Config(
        vision_config=vision, text_config=text, image_token_index=IMAGE, mm_tokens_per_image=9
    )


def _mistral3() -> Any:
    return hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**_CLIP),
        text_config=hf.MistralConfig(**_TEXT, head_dim=8, sliding_window=None),
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5,
    "internvl": _internvl,
    "qwen3_vl": _qwen3,
    "llava_onevision": _onevision,
    "llava_next": _llava_next,
    "smolvlm": _smolvlm,
    "idefics3": _idefics3,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "mistral3": _mistral3,
}
"""`model_type` -> a tiny configuration."""


def vlm(name: str, seed: int = 0, dtype: torch.dtype = torch.float64, window: int | None = None) -> Any:
    """A model with weights so uneven that what is removed changes answers; window: of sliding layers."""
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    if window is not None:
        config.text_config.sliding_window = window
    model = hf.AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.3)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD, None
    model.generation_config.suppress_tokens = [IMAGE, VIDEO]
    return model.to(dtype)


SIZES = {"qwen2_5_vl": (6, 8), "qwen3_vl": (6, 8), "mistral3": (6, 8)}  # patches of the first image, if free


def inputs(
    name: str, images: Sequence[int] = (1,), dtype: torch.dtype = torch.float64, text: int = 7
) -> dict[str, Any]:
    """What a processor makes of prompts of different lengths with so many images each."""
    torch.manual_seed(1)
    total = sum(images)
    shapes = [(6, 6 if number else 8) for number in range(total)]
    given: dict[str, Any]
    if name.startswith("qwen"):
        grid = torch.tensor([[1, h, w] for h, w in shapes])
        width = 3 * 2 * 4 * 4
        given = {"pixel_values": torch.randn(int(grid.prod(-1).sum()), width), "image_grid_thw": grid}
        counts = [h * w // 4 for h, w in shapes]
    elif name == "mistral3":
        pixels = torch.randn(total, 3, 24, 32)
        given = {"pixel_values": pixels, "image_sizes": torch.tensor([[h * 4, w * 4] for h, w in shapes])}
        counts = [h * w // 4 for h, w in shapes]
    elif name in ("smolvlm", "idefics3"):
        pixels = torch.zeros(len(images), max(images), 3, 24, 24)
        for sample, count in enumerate(images):
            pixels[sample, :count] = torch.randn(count, 3, 24, 24)
        given, counts = {"pixel_values": pixels}, [9] * total
    elif name in ("llava_next", "llava_onevision"):
        tiles = [3 if number == 0 else 5 for number in range(total)]
        pixels = torch.zeros(total, max(tiles), 3, 24, 24)
        for number, count in enumerate(tiles):
            pixels[number, :count] = torch.randn(count, 3, 24, 24)
        sizes = torch.tensor([[24, 48] if number == 0 else [48, 48] for number in range(total)])
        given = {"pixel_values": pixels, "image_sizes": sizes}
        counts = [36 + 6 * (12 + 1) if number == 0 else 36 + 12 * (12 + 1) for number in range(total)]
        if max(images) > 1 and name == "llava_onevision":
            given["batch_num_images"] = torch.tensor([1] * total)
    else:
        given = {"pixel_values": torch.randn(total, 3, 24, 24)}
        counts = [{"llava": 36, "paligemma": 36}.get(name, 9)] * total
    given["pixel_values"] = given["pixel_values"].to(dtype)
    rows, numbers = [], iter(counts)
    for sample, count in enumerate(images):
        row = [1]
        for _ in range(count):
            row += [START, *[IMAGE] * next(numbers), 6]
        rows.append(row + torch.randint(7, WORDS, (text + 2 * sample,)).tolist())
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    given |= {"input_ids": ids, "attention_mask": mask}
    if name.startswith("qwen"):
        given["mm_token_type_ids"] = (ids == IMAGE).int()
    if name in ("gemma3", "gemma4"):
        given["token_type_ids"] = (ids == IMAGE).long()
    if name == "paligemma":  # the prompt, which is all a prefix
        given["token_type_ids"] = torch.zeros_like(ids)
    return given


def single(name: str, given: dict[str, Any], images: Sequence[int], sample: int) -> dict[str, Any]:
    """One prompt of `inputs`, without padding."""
    start, count = sum(images[:sample]), images[sample]
    real = given["attention_mask"][sample].bool()
    made = {
        key: value[sample : sample + 1][:, real]
        for key, value in given.items()
        if isinstance(value, Tensor) and value.shape == given["attention_mask"].shape
    }
    for key in given.keys() - made.keys():
        value = given[key]
        if name in ("smolvlm", "idefics3"):
            made[key] = value[sample : sample + 1, :count]
        elif key == "pixel_values" and name.startswith("qwen"):
            ends = given["image_grid_thw"].prod(-1).cumsum(0).tolist()
            made[key] = value[([0, *ends])[start] : ends[start + count - 1]]
        else:
            made[key] = value[start : start + count]
    return made
