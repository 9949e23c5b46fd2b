"""Which way to compute: the reference path, on which FLOPs are counted, or the fastest one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.onnx import is_in_onnx_export

BEFORE_2_7 = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7)
KEPT = 8192
"""How many constants are kept: those of a few hundred lengths, some KB each."""
_Make = TypeVar("_Make", bound=Callable[..., Any])
_WANTED: ContextVar[bool] = ContextVar("reference path", default=False)


@contextlib.contextmanager
def reference_path() -> Iterator[None]:
    """Methods take no shortcut: the products they make are those that their closed form counts."""
    token = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(token)


def is_reference_path() -> bool:
    """Whether FLOPs are being counted; never while a graph is taken."""
    return not torch.compiler.is_compiling() and _WANTED.get()


def scatter_is_wrong(tensor: Tensor) -> bool:
    """Whether a compiled graph on a CPU would add rows wrongly: where several meet, the vectorised index_add
    and scatter_add of torch 2.6's inductor keep only one of them."""
    return BEFORE_2_7 and tensor.device.type == "cpu" and torch.compiler.is_compiling()


def is_eager_on_cpu(tensor: Tensor) -> bool:
    """Whether a shortcut for eager mode on a CPU may be taken with `tensor`: not on the reference path, nor
    while a graph is taken, which would hold every step of it."""
    return tensor.device.type == "cpu" and is_eager() and not is_reference_path()


def is_eager() -> bool:
    """Whether the code runs as it stands, and no graph is taken of it."""
    return not (torch.compiler.is_compiling() or is_in_onnx_export() or torch.jit.is_tracing())


def made_once(make: _Make) -> _Make:
    """Keep what `make(*numbers, device)` returns: tensors that depend on these alone.

    In eager mode the next call gets the same tensors, which nobody may write to; they are plain ones, fit for
    any thread or stream, for inference and training. Made anew while a graph is taken, on CUDA while one is
    captured (its memory must not be freed later), and where a mode of torch stands before its operators
    (fake tensors) or a function is transformed (torch.func).
    """
    made: dict[tuple[Any, ...], Any] = {}

    @functools.wraps(make)
    def get(*args: Any) -> Any:
        if not is_eager() or torch._C._len_torch_dispatch_stack() or _is_captured(args[-1]):
            return make(*args)
        if (known := made.get(args)) is not None:
            return known
        with torch.inference_mode(False):
            new = make(*args)
        if torch._C._functorch.peek_interpreter_stack() is None:
            if args[-1].type == "cuda":
                torch.cuda.current_stream(args[-1]).synchronize()
            if len(made) >= KEPT:
                made.clear()
            made[args] = new
        return new

    return cast(_Make, get)


def _is_captured(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
