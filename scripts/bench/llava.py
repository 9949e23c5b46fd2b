"""LLaVA: image tower, prefill and decoding, timed apart.

The tower is CLIP ViT-L/14 at 336 pixels, the language model has the width of Llama 7B and 2 of its 32
layers, all of which cost the same; weights are random.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pitome
from scripts.bench.groups import LEAST_PAIRS, RATIO
from scripts.bench.record import Record
from scripts.bench.results import estimate
from scripts.bench.subjects import clip_tower
from scripts.bench.timing import UNMERGED, seconds, share, threads

PART = "llava"
STAGES = ("tower", "prefill", "decode")
DECODED = 8  # tokens


@dataclass(frozen=True)
class Sizes:
    """Of a LLaVA."""

    pixels: int  # of the tower
    tower_layers: int
    language: dict[str, Any]  # settings of the language model (`LlamaConfig`)
    text: int = 64  # tokens of the question


FULL = Sizes(
    336,
    24,
    {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "vocab_size": 2,
    },
)


class Llava:
    """The parts of a LLaVA in the order they run, on the tower as it is or merged by `method`.

    As there, the features are those that enter the tower's last layer, which therefore does not merge.
    """

    def __init__(
        self,
        tower: nn.Module,
        language: nn.Module,
        project: nn.Module,
        method: str,
        ratio: float,
        sizes: Sizes,
    ):
        self.tower, self.language, self.project = share(tower), language, project
        self.sizes = sizes
        if method != UNMERGED:
            pitome.patch(self.tower, method, ratio=ratio, layers=list(range(sizes.tower_layers - 1)))

    def run(self, image: Tensor, device: str, clock: Any) -> tuple[dict[str, float], int]:
        """Seconds of every stage for `image` [1, 3, H, W], and the image's tokens in the prompt."""
        held: dict[str, Any] = {}
        text = image.new_zeros(1, self.sizes.text, self.sizes.language["hidden_size"])

        def tower() -> None:
            held["rows"] = self.project(self.tower(image).last_hidden_state[:, 1:])

        def prefill() -> None:
            held["cache"] = self._read(torch.cat([held["rows"], text], dim=1), None)

        def decode() -> None:
            for _ in range(DECODED):
                held["cache"] = self._read(text[:, :1], held["cache"])

        taken = {stage.__name__: seconds(stage, clock, device) for stage in (tower, prefill, decode)}
        return taken, held["rows"].shape[1]

    def _read(self, embeddings: Tensor, cache: Any) -> Any:
        return self.language(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).past_key_values


def time_llava(
    record: Record,
    deadline: float,
    device: str,
    dtype: torch.dtype,
    sizes: Sizes = FULL,
    methods: tuple[str, ...] = ("pitome", "tome"),
    ratio: float = RATIO,
    pairs: int = LEAST_PAIRS,
) -> bool:
    """Time every stage with and without merging, in turn, one thread, CPU time (wall time on an
    accelerator). Returns whether the record has all of it."""
    keys = {method: method if ratio == RATIO else f"{method}, ratio {ratio}" for method in methods}
    cells = {method: record.find(PART, key) for method, key in keys.items()}
    methods = tuple(m for m, cell in cells.items() if cell is None or cell.get("pairs", LEAST_PAIRS) < pairs)
    if not methods:
        return True
    if time.monotonic() > deadline:
        return False
    clock = time.process_time if device == "cpu" else time.perf_counter
    rounds: list[dict[str, dict[str, float]]] = []
    rows: dict[str, int] = {}
    with threads(1), torch.no_grad():
        image, variants = _build(sizes, methods, ratio, device, dtype)
        for number in range(pairs + 1):
            names = list(variants) if number % 2 == 0 else list(variants)[::-1]
            taken = {}
            for name in names:
                taken[name], rows[name] = variants[name].run(image, device, clock)
            rounds.append(taken)
    for method in methods:
        row = _row(rounds[1:], method, rows)  # the first round warms up
        record.keep(PART, keys[method], {"ratio": ratio, "pairs": pairs, **row})
    return True


def _build(
    sizes: Sizes, methods: tuple[str, ...], ratio: float, device: str, dtype: torch.dtype
) -> tuple[Tensor, dict[str, Llava]]:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    tower: Any = clip_tower(sizes.pixels, sizes.tower_layers)
    language: Any = LlamaModel(LlamaConfig(**sizes.language))
    width = sizes.language["hidden_size"]
    project = nn.Sequential(nn.Linear(tower.config.hidden_size, width), nn.GELU(), nn.Linear(width, width))
    for part in (tower, language, project):
        part.to(device, dtype).eval()
    image = torch.randn(1, 3, sizes.pixels, sizes.pixels, device=device, dtype=dtype)
    return image, {name: Llava(tower, language, project, name, ratio, sizes) for name in (UNMERGED, *methods)}


def _row(rounds: list[dict[str, dict[str, float]]], method: str, rows: dict[str, int]) -> dict[str, Any]:
    """Speed-up and milliseconds of every stage, for one method."""
    row: dict[str, Any] = {"image_tokens": rows[method], "image_tokens_unmerged": rows[UNMERGED]}
    for stage in STAGES:
        merged, plain = (np.array([timing[name][stage] for timing in rounds]) for name in (method, UNMERGED))
        speedup = estimate(plain / merged)
        row[f"{stage}_ms"] = 1e3 * float(np.median(merged))
        row[f"{stage}_speedup"], row[f"{stage}_low"], row[f"{stage}_high"] = vars(speedup).values()
    return row
