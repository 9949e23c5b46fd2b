"""A target of speed: which share of the cost reaches it on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pitome.adapters.patch import patch
from pitome.errors import UsageError
from pitome.measure.throughput import Timing, throughput
from pitome.merge.costs import LEAST_RATIO
from pitome.merge.schedule import Schedule
from pitome.search.probe import Probe, to_device
from pitome.search.space import Amount, Space

_STEPS = 5  # of the bisection
_PAIRS = 10  # of timings of one schedule


class TooSlow(UsageError):
    """A speed that merging does not reach on this machine."""

    def __init__(self, message: str, fastest: float) -> None:
        super().__init__(message)
        self.fastest = fastest  # times as fast as without merging


def measured(probe: Probe, space: Space, amount: Amount, options: Mapping[str, Any]) -> Timing:
    """The speed of the model that merges so beside the unmerged one, of one batch."""
    if probe.timed is None:
        raise UsageError("this model cannot be timed; give flops= instead of speed=")
    module, inputs = probe.timed()
    with patch(
        probe.model,
        space.method.name,
        ratio=amount.ratio,
        schedule=amount.schedule,
        input_size=probe.input_size,
        **options,
    ):
        inputs = to_device(inputs, probe.device)
        return throughput(module, inputs, pairs=_PAIRS, precision=probe.precision, progress=False)


def share_for_speed(
    probe: Probe, space: Space, options: Mapping[str, Any], speed: float
) -> tuple[float, list[tuple[float, Timing]]]:
    """The largest share of the unmerged cost at which the uniform schedule is `speed` times as fast as
    without merging, to a few hundredths; and every share that was timed. Raises TooSlow."""
    resolved = space.resolve(options)
    depth = range(len(space.architecture.layers))
    most = Schedule(ratios=tuple(LEAST_RATIO if i in space.uniform_layers else 1.0 for i in depth))
    low, high = math.ceil(1e4 * space.share(most, resolved)) / 1e4, 1.0
    timed: list[tuple[float, Timing]] = []

    def reaches(share: float) -> bool:
        timing = measured(probe, space, space.uniform(share, resolved), options)
        timed.append((share, timing))
        return timing.speedup >= speed

    if not reaches(low):
        timing = timed[0][1]
        raise TooSlow(
            f"speed={speed:g} cannot be reached here with merge={space.method.name}: merging all it can "
            f"makes the model {shown(timing)}; give less than that",
            timing.speedup,
        )
    for _ in range(_STEPS):
        middle = round((low + high) / 2, 4)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low, timed


def shown(timing: Timing) -> str:
    """The speed-up with its interval, in words."""
    low, high = timing.speedup_low, timing.speedup_high
    return f"{timing.speedup:.2f} times as fast (95 % interval {low:.2f} to {high:.2f}, batch {timing.batch})"
