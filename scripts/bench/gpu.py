"""All that is asked of a GPU, in one command: python -m scripts.bench.gpu [--minutes 8] [--device cuda]

From what decides to what takes longest, each cell saved when it is measured: the same command goes on where
it was stopped. `--tiny` runs all of it on small models, on a CPU as well. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import functools
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import pitome
from pitome.cli.arguments import parse
from pitome.config import ModelConfig
from pitome.errors import PitomeError, print_error
from pitome.fields import decode
from pitome.records.files import write_atomically
from pitome.runs.environment import resolve_device
from pitome.tasks.classification.models import build_vision_model
from scripts.bench import llava, table
from scripts.bench.command import RESULTS
from scripts.bench.groups import BASE, BERT, CLIP, HUGE, LARGE, LEAST_PAIRS, METHODS, QUICK_MODEL, Group
from scripts.bench.record import ROOT, Record
from scripts.bench.reference import reference
from scripts.bench.results import results
from scripts.bench.run import describe, file_name
from scripts.bench.subjects import build
from scripts.bench.timing import seconds, time_group

NAMES = ("pitome", "tome")
TINY_LLAVA = llava.Sizes(56, 2, {**llava.FULL.language, "hidden_size": 64, "intermediate_size": 64}, text=4)
Step = Callable[[Record, float], bool]
Sides = Mapping[str, Callable[[], object]]

# Runs the golden cases with tensors on a device: python -c GOLDEN device [pytest's words]
GOLDEN = """
import sys, pytest, torch, safetensors.torch as files
device, load = sys.argv[1], files.load_file
torch.set_default_device(device)
files.load_file = lambda path: load(path, device=device)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
words = ["-o", "addopts=", "-p", "no:cacheprovider", "tests/merge/test_golden.py", *sys.argv[2:]]
sys.exit(pytest.main(words))
"""


def main(words: list[str]) -> int:
    """Measure what is missing within the minutes, write the record and its page. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.gpu", description="All that is asked of a GPU."
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing after so many; default: 8")
    parser.add_argument("--reference", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="small models: to see that it works")
    try:
        asked = parse(parser, words)
        complete = pack(asked.device, asked.minutes, asked.results, asked.reference, asked.tiny)
    except (PitomeError, OSError) as problem:
        return print_error(problem)
    print("all of it is measured" if complete else "not everything is measured; the same command goes on")
    return 0


def pack(device: str, minutes: float, folder: Path, checkout: Path | None = None, tiny: bool = False) -> bool:
    """What `main` does; returns whether nothing is missing. Raises UsageError without such a device."""
    device = str(resolve_device(device))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    conditions = describe(device, "bfloat16", 0) | {"pack": "tiny" if tiny else "full"}
    name = f"gpu-pack-{file_name(conditions)}{'-tiny' if tiny else ''}"
    record, deadline = Record(folder / f"{name}.json", conditions), time.monotonic() + 60 * minutes
    complete = True
    for title, step in _steps(device, checkout, tiny):
        print(title, flush=True)
        complete = step(record, deadline) and complete
        page = table.markdown(record.conditions, record.parts)
        write_atomically(record.path.with_suffix(".md"), page.encode())
    return complete


def _steps(device: str, checkout: Path | None, tiny: bool) -> list[tuple[str, Step]]:
    """What there is to do, with titles."""
    dtype = torch.bfloat16
    steps = [_once("golden", f"float32 on {device}", functools.partial(golden, device, tiny))]
    steps += [_once("agreement", name, functools.partial(agreement, device, name)) for name in METHODS]
    for batch, tokens in [(2, 20)] if tiny else [(64, 197), (256, 197), (64, 577)]:
        for question, sides in QUESTIONS.items():
            measure = functools.partial(decide, sides, device, batch, tokens)
            steps.append(_once("decisions", f"{question}, batch {batch}, {tokens} tokens", measure))
    for group in groups(tiny):
        steps.append((group.key, functools.partial(time_group, group, device=device, dtype=dtype)))
    sizes = TINY_LLAVA if tiny else llava.FULL
    steps.append(("LLaVA", functools.partial(llava.time_llava, device=device, dtype=dtype, sizes=sizes)))
    if checkout is not None:
        for batch in (2,) if tiny else (64, 256):
            where: dict[str, Any] = {
                "device": device,
                "dtype": "bfloat16",
                "batch": batch,
                "pairs": LEAST_PAIRS,
            }
            steps.append((f"their code, batch {batch}", functools.partial(reference, checkout, **where)))
    return [*steps, ("profile of the slowest row", functools.partial(slowest, device=device))]


def groups(tiny: bool) -> list[Group]:
    """The rows, those that decide first."""
    if tiny:
        one = Group(QUICK_MODEL, 160, 2, methods=NAMES, clock="wall", pairs=LEAST_PAIRS)
        return [one, replace(one, batch=1, mode="graphs", methods=("tome",))]
    wide = [(model, 224) for model in (BASE, LARGE, HUGE)] + [(CLIP, 336)]
    row = Group(BASE, methods=NAMES, clock="wall", pairs=LEAST_PAIRS)
    eager = [replace(row, model=m, size=s, batch=b) for b in (64, 256, 1) for m, s in wide]
    alone = [replace(row, model=m, size=s, batch=1, mode="graphs") for m, s in wide]
    text = [
        replace(row, model=BERT, size=s, batch=b, ratio=0.8, layers="first3")
        for s in (128, 512)
        for b in (64, 1)
    ]
    compiled = [replace(row, model=m, size=s, batch=64, mode="compile") for m, s in wide]
    return [*eager, *text, *alone, *compiled]


def _once(part: str, key: str, measure: Callable[[], dict[str, Any]]) -> tuple[str, Step]:
    """A step that is one cell."""

    def step(record: Record, deadline: float) -> bool:
        if record.find(part, key) is None:
            if time.monotonic() > deadline:
                return False
            record.keep(part, key, measure())
        return True

    return f"{part}: {key}", step


def golden(device: str, tiny: bool = False) -> dict[str, Any]:
    """How many of the golden cases of the merge step pass on `device`, in float32 without TF32."""
    few = ["-k", "two_layers"] if tiny else []
    command = [sys.executable, "-c", GOLDEN, device, *few]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing"])[-1]
    return {"passed": counts.get("passed", 0), "failed": sum(counts.values()) - counts.get("passed", 0)} | {
        "said": last
    }


def agreement(device: str, method: str) -> dict[str, Any]:
    """Images whose class in bfloat16 on `device` is that in float32 on the CPU: 64 of Fashion-MNIST, with the
    weights that come with the project."""
    config = yaml.safe_load((ROOT / "conf" / "model" / "vit_fmnist.yaml").read_text())
    sheet = np.asarray(Image.open(ROOT / "tests" / "data" / "fashion_mnist.png")).reshape(8, 28, 8, 28)
    pixels = torch.from_numpy(sheet.swapaxes(1, 2).reshape(64, 1, 28, 28).copy())
    images = (pixels / 255 - 0.286) / 0.353
    model = build_vision_model(decode(ModelConfig, {"task": "classification"} | config)).model.eval()
    with torch.no_grad(), pitome.patch(model, method, ratio=0.9):
        want = model(images).argmax(-1)
        got = model.to(device, torch.bfloat16)(images.to(device, torch.bfloat16)).argmax(-1).cpu()
    return {"images": len(images), "same_class": int((want == got).sum())}


def _bias(device: str, batch: int, tokens: int) -> Sides:
    """log(size) added by the attention, or folded into the keys as 8 more columns, of which one is used."""
    query, key, value = torch.randn(3, batch, 12, tokens, 64, device=device, dtype=torch.bfloat16)
    size = torch.randint(1, 4, (batch, tokens), device=device).to(query.dtype).log()

    def column() -> Tensor:
        one = functional.pad(query, (0, 8))
        one[..., 64] = 8  # the square root of the width, which the attention divides by
        folded = functional.pad(key, (0, 8))
        folded[..., 64] = size[:, None]
        return functional.scaled_dot_product_attention(
            one, folded, functional.pad(value, (0, 8)), scale=0.125
        )

    add = functools.partial(functional.scaled_dot_product_attention, query, key, value)
    return {
        "broadcast": lambda: add(attn_mask=size[:, None, None]),
        "key column": column,
        "no bias": add,
    }


def _sums(device: str, batch: int, tokens: int) -> Sides:
    """Rows of the tokens that merge added to those that stay."""
    gone = max(tokens // 13, 1)
    out = torch.randn(batch, tokens - gone, 768, device=device)
    step = torch.randn(batch, gone, 768, device=device)
    row = torch.randint(tokens - gone, (batch, gone), device=device)
    flat = (row + torch.arange(batch, device=device)[:, None] * (tokens - gone)).flatten()
    return {
        "index_add": lambda: out.flatten(0, 1).index_add(0, flat, step.flatten(0, 1)),
        "one-hot product": lambda: out + functional.one_hot(row, tokens - gone).to(step.dtype).mT @ step,
    }


def _ranks(device: str, batch: int, tokens: int) -> Sides:
    """The ranking of all tokens, and of the twelfth part that merges."""
    scores = torch.randn(batch, tokens, device=device)
    return {
        "stable sort": lambda: scores.sort(dim=-1, descending=True, stable=True),
        "topk": lambda: scores.topk(max(tokens // 12, 1), dim=-1),
    }


QUESTIONS: dict[str, Callable[[str, int, int], Sides]] = {"bias": _bias, "sums": _sums, "ranks": _ranks}


def decide(
    make: Callable[[str, int, int], Sides], device: str, batch: int, tokens: int, calls: int = 20
) -> dict[str, Any]:
    """Median microseconds of `calls` of every side, in turn, and which is fastest of those to choose from."""
    sides = make(device, batch, tokens)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(calls + 3):  # three to warm up
        for name, call in sides.items():
            taken[name].append(1e6 * seconds(call, time.perf_counter, device))
    median = {name: statistics.median(values[3:]) for name, values in taken.items()}
    return {**median, "fastest": min((name for name in median if name != "no bias"), key=median.__getitem__)}


def slowest(record: Record, deadline: float, device: str) -> bool:
    """The operators that take longest in the eager row that is furthest from `cut`."""
    if record.find("profile", "slowest") is not None:
        return True
    rows = [row for row in results(record.part("speed")) if row.group["mode"] == "eager"]
    if not rows or time.monotonic() > deadline:
        return False
    row = min(rows, key=lambda result: (result.of_cut or result.saved or result.speedup).value)
    group = row.group
    subject = build(group["model"], group["batch"], group["size"], device, torch.bfloat16)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device != "cpu" else [])]
    with (
        torch.no_grad(),
        pitome.patch(subject.model, row.method, ratio=group["ratio"], layers=group["layers"]),
    ):
        subject.model(subject.inputs)
        with profile(activities=kinds) as profiled:
            subject.model(subject.inputs)
    by = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    events = sorted(profiled.key_averages(), key=lambda event: -getattr(event, by))[:20]
    cell: dict[str, Any] = {"row": f"{row.method} in {group['model']}, batch {group['batch']}"}
    record.keep("profile", "slowest", cell | {event.key: getattr(event, by) for event in events})
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
