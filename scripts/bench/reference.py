"""A checkout of the authors' repository beside this project: same weights, same inputs, in turn.

Each side runs in a process of its own (`reference_worker.py`), theirs with the timm it needs; nothing of it
is copied or imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pitome.errors import PitomeError
from pitome.sources.folders import cache_folder
from scripts.bench.allocator import ENVIRONMENT
from scripts.bench.checkout import METHODS, check_checkout
from scripts.bench.groups import RATIO
from scripts.bench.record import Record
from scripts.bench.targets import paired

PART = "reference"
ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("reference_worker.py")
SMALL = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "num_classes": 1000,
}
BASE = {**SMALL, "embed_dim": 768, "num_heads": 12}
TOLERANCE = 5e-5
"""Largest difference of an output; that of the golden model cases. Judged in float64: in float32 two tokens
may be so alike that the last bit decides which of them merges."""


class CheckoutError(PitomeError):
    """The reference checkout cannot be run."""


def reference(
    checkout: Path,
    record: Record,
    deadline: float,
    *,
    name: str = "vit_small",
    args: dict[str, Any] = SMALL,
    batch: int = 16,
    ratio: float = RATIO,
    pairs: int = 20,
    methods: tuple[str, ...] = tuple(METHODS),
    device: str = "cpu",
    dtype: str = "float32",
) -> bool:
    """Time the `_repo` presets against `checkout` on a ViT of `args`, one thread, CPU time (on an accelerator
    wall time), and compare the outputs. Returns whether every method was done before `deadline`
    (time.monotonic).

    Raises UsageError for a folder that is not a checkout, CheckoutError where their code fails.
    """
    check_checkout(checkout, methods)
    timm = _timm_folder(checkout)
    for method in methods:
        key = f"{name}-{method}-batch{batch}-{ratio}"
        cell = record.find(PART, key)
        if cell is not None and cell["pairs"] >= pairs:
            continue
        if time.monotonic() > deadline:
            return False
        where = {"device": device, "dtype": dtype}
        compared = _compare(checkout, timm, method, args, batch, ratio, pairs, where)
        record.keep(PART, key, {"model": name, "method": method, "ratio": ratio} | compared)
    return True


def _compare(
    checkout: Path,
    timm: Path | None,
    method: str,
    args: dict[str, Any],
    batch: int,
    ratio: float,
    pairs: int,
    where: dict[str, str],
) -> dict[str, Any]:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(**args).eval()
    x = torch.randn(batch, 3, args["img_size"], args["img_size"])
    with tempfile.TemporaryDirectory() as folder:
        tensors = Path(folder) / "in.safetensors"
        save_file({**model.state_dict(), "input": x}, tensors)
        common = {
            **where,
            "args": {**args, "qkv_bias": True},
            "ratio": ratio,
            "threads": 1,
            "tensors": str(tensors),
        }
        sides = {
            "ours": {"folder": str(ROOT), "timm": None, "module": None, "method": f"{method}_repo"},
            "theirs": {
                "folder": str(checkout.resolve()),
                "timm": None if timm is None else str(timm),
                "module": METHODS[method],
            },
        }
        outputs = {side: Path(folder) / f"{side}.safetensors" for side in sides}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        with contextlib.ExitStack() as stack:
            ask = {}
            for side, kwargs in sides.items():
                path = Path(folder) / f"{side}.json"
                path.write_text(json.dumps({**common, **kwargs, "output": str(outputs[side])}))
                ask[side] = stack.enter_context(_worker(path))
            for side in sides:
                ask[side]()  # as warm as the other
            for pair in range(pairs):
                for side in list(sides) if pair % 2 == 0 else list(sides)[::-1]:
                    seconds[side].append(ask[side]())
        ours, theirs = (load_file(path) for path in outputs.values())
    difference = (ours["double"] - theirs["double"]).abs().max().item()
    single = (ours["single"] - theirs["single"]).abs().amax(dim=-1)
    times = paired(seconds["ours"], seconds["theirs"])
    return {
        "speedup": times.value,
        "low": times.low,
        "high": times.high,
        "pairs": pairs,
        "difference": difference,
        "images": batch,
        "images_equal_in_float32": int((single <= TOLERANCE).sum()),
        "tolerance": TOLERANCE,
        **seconds,
    }


@contextlib.contextmanager
def _worker(settings: Path) -> Iterator[Any]:
    """A function that has the worker run one forward and returns its seconds."""
    with open(settings.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def failure() -> CheckoutError:
            log.seek(0)
            last = log.read().strip().splitlines()[-1:] or ["it said nothing"]
            whose = "the reference checkout" if settings.stem == "theirs" else "this project's side"
            return CheckoutError(f"{whose} does not run: {last[0]}")

        def answer() -> str:
            line = stdout.readline().strip()
            if line:
                return line
            raise failure()

        def ask() -> float:
            print("run", file=stdin, flush=True)
            return float(answer())

        try:
            answer()
            yield ask
        finally:
            stdin.close()
            process.wait()
            stdout.close()
        if process.returncode:
            raise failure()


def _timm_folder(checkout: Path) -> Path | None:
    """A folder with the timm that the checkout's requirements name, fetched once; None: the installed one.

    Raises CheckoutError where it cannot be fetched.
    """
    requirements = checkout / "requirements.txt"
    named = re.search(r"^timm==([\w.]+)", requirements.read_text(), re.M) if requirements.is_file() else None
    if named is None:
        return None
    folder = cache_folder() / "reference" / f"timm-{named[1]}"
    if (folder / "timm").is_dir():
        return folder
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    installer = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "install"]
    with tempfile.TemporaryDirectory() as partial:
        command = [*installer, "--quiet", "--no-deps", "--target", partial, f"timm=={named[1]}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CheckoutError(f"timm {named[1]}, which the checkout needs, cannot be installed: {reason}")
        shutil.copytree(partial, folder, dirs_exist_ok=True)
    return folder
