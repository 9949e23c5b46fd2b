"""A layer's plan and merge in one step each, compiled from `kernel.c`: what makes merging cheap at batch 1.

Nothing is compiled when the package is installed. A C compiler makes the kernel at its first use, in about a
second, and the cache keeps it. Without a compiler, and wherever `fits` says no, the plain path computes the
same: decisions are equal unless two energies or cosines agree up to the order of their sums, what is carried
out is equal bit for bit. PITOME_NATIVE=off does without, PITOME_NATIVE=on insists.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pitome.errors import PitomeError, UsageError
from pitome.merge.fast_path import is_eager_on_cpu
from pitome.merge.native_setting import VARIABLE, wanted
from pitome.sources.cache import cached

LARGEST = 1024
"""Tokens up to which the kernel is used: with more the work counts, not the number of calls."""
Indices = tuple[Tensor, Tensor, Tensor]
_SOURCE = Path(__file__).with_name("kernel.c")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC")
_ENERGIES = ("paper", "elu", "gaussian")
_P, _N, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_FUNCTIONS = {
    "mean_of_heads": [_P, *[_N] * 7, _P],
    "pitome_plan": [_P, *[_N] * 7, _F, _F, _P, _P, _P],
    "tome_plan": [_P, *[_N] * 5, _P, _P, _P],
    "carry_out": [*[_P] * 4, *[_N] * 4, *[_P, _N] * 3, _P, _P],
    "log_sizes": [_P, _N, _P],
}
_log = logging.getLogger("pitome")


def check_wanted() -> None:
    """Raises UsageError where PITOME_NATIVE has no meaning, or wants a kernel that cannot be made."""
    if wanted() == "on":
        kernel()


def state() -> str:
    """Whether there is a kernel, in words; makes it if need be."""
    return _made()[1]


def is_made() -> bool:
    """Whether this process has a kernel."""
    return _made.cache_info().currsize > 0 and kernel() is not None


def kernel() -> ctypes.CDLL | None:
    """The compiled kernel, None where there is none. Raises UsageError where PITOME_NATIVE=on wants one."""
    return _made()[0]


@functools.cache
def _made() -> tuple[ctypes.CDLL | None, str]:
    want, why = wanted(), "no C compiler found (cc, gcc or clang, or CC)"
    if want == "off":
        return None, f"plain path: {VARIABLE}=off"
    name = ""
    try:
        if compiler := _compiler():
            name = " ".join(Path(word).name for word in compiler if not word.startswith("-"))
            return _load(compiler), f"compiled by {name}"
    except subprocess.CalledProcessError as problem:
        words = problem.stderr.strip().splitlines() or ["without a word"]
        why = f"{name} fails: {words[0]}"
    # RuntimeError: there is no home to keep it in; ValueError: CC has a quote that does not end.
    except (
        OSError,
        subprocess.TimeoutExpired,
        AttributeError,
        RuntimeError,
        ValueError,
        PitomeError,
    ) as problem:
        why = str(problem)
    if want == "on":
        raise UsageError(f"{VARIABLE}=on, but there is no compiled kernel: {why}")
    _log.info("merging on a CPU takes the plain path, slower at batch 1: %s", why)
    return None, f"plain path: {why}"


def _compiler() -> list[str]:
    """The command that compiles, with arguments where CC has some; empty where there is none."""
    for words in (os.environ.get("CC") or "cc", "gcc", "clang"):
        command = shlex.split(words)
        if command and (path := shutil.which(command[0])) is not None:
            return [path, *command[1:]]
    return []


def _load(compiler: list[str]) -> ctypes.CDLL:
    """The kernel from the cache, compiled where it is not there yet."""

    def compile_to(folder: Path) -> None:
        command = [*compiler, *_FLAGS, "-o", str(folder / "kernel.so"), str(_SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)

    key: dict[str, object] = {
        "source": _SOURCE.read_text(),
        "flags": _FLAGS,
        "compiler": compiler,
        "machine": _machine(),
    }
    key["libc"] = platform.libc_ver()  # a home may be shared with another system
    library = ctypes.CDLL(str(cached("kernel", key, compile_to) / "kernel.so"))
    for name, types in _FUNCTIONS.items():
        getattr(library, name).argtypes = types
    return library


def _machine() -> str:
    """What `-march=native` depends on; homes are shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def fits(x: Tensor) -> bool:
    """Whether the kernel may compute with `x` [B, N, ..] and what was computed from it.

    In eager mode on a CPU in float32, without gradients; of a batch only on one thread, as it takes one core.
    """
    return (
        x.dtype is torch.float32
        and is_eager_on_cpu(x)  # before a shape is read, which a graph would hold
        and x.shape[1] <= LARGEST
        and (x.shape[0] == 1 or torch.get_num_threads() == 1)
        and not (x.requires_grad and torch.is_grad_enabled())
        and type(x) is Tensor
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and kernel() is not None
    )


def mean_of_heads(keys: Tensor) -> Tensor | None:
    """`keys` [B, H, N, D] -> [B, N, D]; None where it cannot."""
    batch, heads, n, dim = keys.shape
    by_batch, by_head, by_token, last = keys.stride()
    library = kernel()
    if library is None or last != 1 or keys.dtype is not torch.float32:
        return None
    out = keys.new_empty((batch, n, dim))
    library.mean_of_heads(keys.data_ptr(), by_batch, by_head, by_token, batch, heads, n, dim, out.data_ptr())
    return out


def pitome_plan(
    metric: Tensor, protected: int, remove: int, protects: bool, kind: str, margin: float, alpha: float
) -> Indices | None:
    """`kept`, `source` and `target` as `energy_plan` has them; None where it cannot."""
    library, (batch, n, dim) = kernel(), metric.shape
    if library is None or not metric.is_contiguous() or 2 * remove > n - protected:
        return None
    factor = -0.5 / (1 - margin) ** 2 if kind == "gaussian" else alpha * math.exp(-margin)
    out = _indices(metric, remove)
    failed = library.pitome_plan(
        metric.data_ptr(), batch, n, dim, protected, remove, protects, _ENERGIES.index(kind), margin, factor,
        *(part.data_ptr() for part in out),
    )  # fmt: skip
    return None if failed else out


def tome_plan(metric: Tensor, protected: int, remove: int) -> Indices | None:
    """The same as `bipartite_plan` has them."""
    library, (batch, n, dim) = kernel(), metric.shape
    if library is None or not metric.is_contiguous() or 2 * remove > n - protected:
        return None
    out = _indices(metric, remove)
    failed = library.tome_plan(
        metric.data_ptr(), batch, n, dim, protected, remove, *(part.data_ptr() for part in out)
    )
    return None if failed else out


def _indices(metric: Tensor, remove: int) -> Indices:
    """Not filled yet; on the CPU, whatever the default device is."""
    batch, n = metric.shape[:2]
    rows = (n - remove, remove, remove)
    kept, source, target = (metric.new_empty((batch, number), dtype=torch.long) for number in rows)
    return kept, source, target


def carry_out(
    x: Tensor, size: Tensor, indices: Indices, weight: Tensor | None, scale: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Features [B, M, C] and sizes [B, M] of a plan's rows, as `Plan.carry_out`; None where it cannot."""
    library, (batch, n, channels) = kernel(), x.shape
    kept, source, target = (part if part.stride(1) == 1 else part.contiguous() for part in indices)
    rows = kept.shape[1]
    factors = [part for part in (size, weight, scale) if part is not None]
    shapes = [part.shape for part in (kept, source, target, *factors)]
    widths = (rows, n - rows, n - rows, *(n for part in (size, weight) if part is not None), rows)
    if (
        library is None
        or any(shape != (batch, width) for shape, width in zip(shapes, widths, strict=False))
        or not kept.dtype == source.dtype == target.dtype == torch.long
        or not all(part.is_contiguous() and part.dtype is torch.float32 for part in (x, *factors))
        or (torch.is_grad_enabled() and any(part.requires_grad for part in factors))
    ):
        return None
    out, sizes = x.new_empty((batch, rows, channels)), x.new_empty((batch, rows))
    failed = library.carry_out(
        x.data_ptr(), size.data_ptr(), _address(weight), _address(scale), batch, n, channels, rows,
        kept.data_ptr(), kept.stride(0), source.data_ptr(), source.stride(0),
        target.data_ptr(), target.stride(0), out.data_ptr(), sizes.data_ptr(),
    )  # fmt: skip
    return None if failed else (out, sizes)


def _address(part: Tensor | None) -> int | None:
    return None if part is None else part.data_ptr()


def log_sizes(size: Tensor) -> Tensor | None:
    """log of `size` [B, N], at least 0, as [B, 1, 1, N]; None where it cannot."""
    library, (batch, n) = kernel(), size.shape
    if library is None or not size.is_contiguous():
        return None
    out = size.new_empty((batch, 1, 1, n))
    library.log_sizes(size.data_ptr(), batch * n, out.data_ptr())
    return out
