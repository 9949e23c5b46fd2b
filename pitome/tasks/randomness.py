"""Random numbers of Python, NumPy and torch: drawn from given seeds, kept and restored."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Within it, what is drawn on the CPU follows from `seeds` alone; afterwards all goes on as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first, second, third = (int(number) for number in np.random.SeedSequence(seeds).generate_state(3))
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)  # torch.manual_seed would seed the accelerators as well
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def random_state() -> dict[str, Any]:
    """What will be drawn next, on the CPU and on this process's accelerator, as a checkpoint can hold it."""
    numpy: Any = np.random.get_state()
    name, keys, *rest = numpy
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    elif torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Go on with what `random_state` gave."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
