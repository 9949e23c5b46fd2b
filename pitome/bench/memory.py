"""How much memory one forward takes beside what is there already."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forward_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of `call` above those before it: allocated ones on CUDA, resident ones on Linux
    (which counts in pages and keeps some freed memory, so a few MB are noise); None elsewhere."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        with contextlib.suppress(OSError, AttributeError):  # glibc alone: memory it keeps would hide ours
            ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")  # sets the peak back to what is resident now
        before = _kilobytes("VmRSS")
        call()
        return max(_kilobytes("VmHWM") - before, 0) * 1024
    except OSError:
        return None


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
