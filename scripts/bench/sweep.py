"""What a sweep costs beside the forwards it is made of: `python -m scripts.bench.sweep WORD ...`.

Run as a program, this is `run.py WORD ...` with a stopwatch on every forward of a timm model and on the first
decoding of each image; the last line it prints is a JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.bench.record import Record

PART = "sweep"
_RATIOS = [round(0.99 - 0.01 * step, 2) for step in range(16)]


def sweep(record: Record, deadline: float, limit: int = 2000) -> bool:
    """A sweep of 16 ratios over `limit` images in a process of its own, CPU time on one thread: the whole
    of it over its forwards and one start (up to the first forward). Returns whether it is in `record`."""
    name = f"16 ratios of pitome, {limit} images"
    ratios = ",".join(map(str, _RATIOS))
    return _measure(record, name, deadline, [f"ratio={ratios}", f"limit={limit}", "source=package"])


def sweep_over_files(record: Record, deadline: float, count: int = 5000, depth: int = 2) -> bool:
    """A sweep of 8 ratios over `count` JPEG of 500 x 375 pixels made on the spot, as `sweep`: the whole of it
    over its forwards, one decoding of each image and one start. depth: blocks of the model, DeiT-T; few, so
    that the images count. Returns whether it is in `record`."""
    name = f"8 ratios of pitome, {count} JPEG"
    if record.find(PART, name) is not None:
        return True
    with tempfile.TemporaryDirectory() as folder:
        _make_images(Path(folder), count)
        ratios = ",".join(map(str, _RATIOS[:8]))
        words = ["model=deit_t", f"+model.args.depth={depth}", "weights=random", "data=imagenet"]
        words += [f"data.root={folder}", "workers=0", f"ratio={ratios}"]
        return _measure(record, name, deadline, words, {"PITOME_CACHE": f"{folder}/cache"})


def _make_images(folder: Path, count: int) -> None:
    """A folder like ImageNet's, of smooth images with noise, which JPEG packs as it does photos."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "val" / ("n01440764", "n01443537")[number % 2] / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _measure(
    record: Record, name: str, deadline: float, words: list[str], environment: Mapping[str, str] | None = None
) -> bool:
    from scripts.bench.startup import ROOT

    if record.find(PART, name) is not None:
        return True
    if time.monotonic() > deadline:
        return False
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "merge=pitome", *words, "measure=flops", "logger=none", f"results={folder}"]
        done = subprocess.run(
            [sys.executable, "-m", "scripts.bench.sweep", *words],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            capture_output=True,
            text=True,
        )
    if done.returncode:  # without the data there is nothing to measure
        silent = f"it ended with {done.returncode} and said nothing"
        lines = done.stderr.strip().splitlines() or [silent]
        print(f"sweep not measured: {lines[-1]}", file=sys.stderr)
        return False
    record.keep(PART, name, json.loads(done.stdout.strip().splitlines()[-1]))
    return True


def main(words: list[str]) -> int:
    """Run `run.py` with `words`; print what it took."""
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.set_num_threads(1)
    taken: dict[str, Any] = {"start": None, "forwards": 0.0, "decoding": 0.0, "decoded": 0, "again": 0}
    seen: set[int] = set()
    plain = VisionTransformer.forward

    def timed(self: VisionTransformer, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if x.device.type == "meta":  # FLOPs are being counted
            return plain(self, x, *args, **kwargs)
        before = time.process_time()
        if taken["start"] is None:
            taken["start"] = before - taken["decoding"]
        out = plain(self, x, *args, **kwargs)
        taken["forwards"] += time.process_time() - before
        return out

    def decoded(self: Any, position: int) -> Any:
        before = time.process_time()
        out = view(self, position)
        first = position not in seen
        taken["decoding"] += (time.process_time() - before) if first else 0.0
        taken["decoded" if first else "again"] += 1
        seen.add(position)
        return out

    VisionTransformer.forward = timed  # type: ignore[method-assign]
    from pitome.tasks.images import _Views

    view, _Views.__getitem__ = _Views.__getitem__, decoded  # type: ignore[method-assign]
    from pitome.cli.main import main as run

    code = run(words)
    total = time.process_time()  # since the process started
    if code or taken["start"] is None:
        return code or 1
    needed = taken["start"] + taken["forwards"] + taken["decoding"]
    print(json.dumps({**taken, "total": total, "ratio": total / needed}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
