"""Which way to compute: the reference path, on which FLOPs are counted, or the fastest one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.onnx import is_in_onnx_export

BEFORE_2_7 = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 7)
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
    graph = torch.compiler.is_compiling() or is_in_onnx_export() or torch.jit.is_tracing()
    return tensor.device.type == "cpu" and not graph and not is_reference_path()
