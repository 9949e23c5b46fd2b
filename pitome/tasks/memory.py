"""Batches that take more memory than there is are computed in parts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from pitome.errors import MemoryShortageError
from pitome.sources.hub import say

Computed = TypeVar("Computed")

# What a CPU, cuBLAS and MPS say without a kind of error of their own.
_WORDS = ("out of memory", "allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether memory did not suffice, on a CPU or an accelerator."""
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or (
        isinstance(problem, RuntimeError) and any(word in str(problem) for word in _WORDS)
    )


class Parts:
    """Computes batches at once or, once that takes too much memory, in parts: half as many samples after
    each failure, and as many for every batch from then on.

    A part keeps the padding of its batch, so that results are those of the whole batch.
    """

    def __init__(self, largest: int | None = None) -> None:
        """largest: samples that are computed at once; None: any number."""
        self.largest = largest
        self.halved = False

    @property
    def size(self) -> int | None:
        """Samples computed at once, where memory was short; else None."""
        return self.largest if self.halved else None

    def __call__(self, count: int, work: Callable[[slice], Computed]) -> list[Computed]:
        """`work` of consecutive parts of `count` samples. Raises MemoryShortageError where a single sample
        is too much."""
        results: list[Computed] = []
        start = 0
        while start < count:
            size = min(self.largest or count, count - start)
            try:
                results.append(work(slice(start, start + size)))
                start += size
                continue
            except Exception as problem:
                if not is_out_of_memory(problem):
                    raise
            # Only here has the error let go of the tensors of its forward pass.
            self._halve(size)
        return results

    def first(self, count: int, work: Callable[[int], Computed]) -> Computed:
        """`work` of as many samples as fit, the first of `count`. Raises MemoryShortageError."""
        while True:
            size = min(self.largest or count, count)
            try:
                return work(size)
            except Exception as problem:
                if not is_out_of_memory(problem):
                    raise
            self._halve(size)

    def _halve(self, size: int) -> None:
        if size == 1:
            raise MemoryShortageError(
                "out of memory with one sample at once; give precision=bf16-mixed, a smaller model or "
                "another device"
            )
        self.largest, self.halved = -(-size // 2), True
        say(f"out of memory with {size} samples at once, going on with {self.largest}")
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
