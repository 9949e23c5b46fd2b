"""How much memory one forward takes beside what is there already."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def forward_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that torch has allocated at the peak of `call`, above those before it.

    Not what the process holds: how much the system's allocator keeps for later, or loses between blocks,
    differs from call to call by more than merging saves. Memory that is not torch's (onnxruntime, scratch
    space of a kernel library) is not seen.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of every start, and of a GPU that is not there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    steps = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for _, step in sorted(steps, key=lambda event: event[0]):
        held += step
        peak = max(peak, held)
    return peak
