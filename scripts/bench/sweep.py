"""What a sweep costs beside the forwards it is made of: `python -m scripts.bench.sweep WORD ...`.

Run as a program, this is `run.py WORD ...` with a stopwatch on every forward of a timm model; the last
line it prints is a JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from scripts.bench.record import Record

PART = "sweep"
_RATIOS = [round(0.99 - 0.01 * step, 2) for step in range(16)]


def sweep(record: Record, deadline: float, limit: int = 2000) -> bool:
    """A sweep of 16 ratios over `limit` images in a process of its own, CPU time on one thread: the whole
    of it over its forwards and one start (up to the first forward). Returns whether it is in `record`."""
    from scripts.bench.startup import ROOT

    name = f"16 ratios of pitome, {limit} images"
    if record.find(PART, name) is not None:
        return True
    if time.monotonic() > deadline:
        return False
    with tempfile.TemporaryDirectory() as folder:
        ratios = ",".join(map(str, _RATIOS))
        words = ["-m", "merge=pitome", f"ratio={ratios}", f"limit={limit}", "measure=flops", "logger=none"]
        command = [sys.executable, "-m", "scripts.bench.sweep", *words, "source=package", f"results={folder}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
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
    taken: dict[str, Any] = {"start": None, "forwards": 0.0}
    plain = VisionTransformer.forward

    def timed(self: VisionTransformer, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if x.device.type == "meta":  # FLOPs are being counted
            return plain(self, x, *args, **kwargs)
        before = time.process_time()
        if taken["start"] is None:
            taken["start"] = before
        out = plain(self, x, *args, **kwargs)
        taken["forwards"] += time.process_time() - before
        return out

    VisionTransformer.forward = timed  # type: ignore[method-assign]
    from pitome.cli.main import main as run

    code = run(words)
    total = time.process_time()  # since the process started
    if code or taken["start"] is None:
        return code or 1
    print(json.dumps({**taken, "total": total, "ratio": total / (taken["start"] + taken["forwards"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
