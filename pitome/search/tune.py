"""`pitome.tune`: the method and schedule that cost a model's outputs least at the speed that is needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pitome.adapters.patch import InputSize, Patched, patch
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.inputs import Inputs, device_of, forward
from pitome.measure.throughput import Timing
from pitome.search import study
from pitome.search.probe import Probe
from pitome.search.space import Amount
from pitome.search.speed import TooSlow, measured, share_for_speed, shown

_CANDIDATES = 5  # schedules that are timed at the end, the best first


@dataclass(frozen=True)
class TriedPoint:
    """One way to merge that was tried."""

    method: str
    amount: Amount
    share: float  # of the unmerged FLOPs
    disagreement: float  # with the unmerged model on the samples; NaN where an output was
    role: str = ""  # `uniform`, or how the search came to it
    timing: Timing | None = None  # None: not timed


@dataclass(frozen=True)
class Tuned:
    """What `tune` chose; the model is patched with it."""

    method: str
    options: dict[str, Any]  # of the method, that were given
    amount: Amount
    share: float  # of the unmerged FLOPs
    timing: Timing  # measured at the end; `timing.speedup` times as fast as without merging
    disagreement: float  # mean KL divergence of the outputs, or mean of 1 - cosine
    agreement: float  # share of the samples with the same largest output, or mean cosine
    patched: Patched
    tried: list[TriedPoint] = field(repr=False)

    @property
    def schedule(self) -> list[int] | list[float]:
        """Tokens that each layer leaves or, for texts, the share that it keeps."""
        return next(iter(self.amount.arguments().values()))

    @property
    def speedup(self) -> float:
        return self.timing.speedup

    def __str__(self) -> str:
        return (
            f"merge={self.method} at {self.share:.2f} of the FLOPs: {shown(self.timing)}, "
            f"agreement {self.agreement:.3f}; {', '.join(self.amount.arguments())} {self.schedule}"
        )

    def plot(self, path: str | Path) -> Path:
        """Write what was tried as a picture, disagreement over cost, with the points that no other beats in
        both; returns the path."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        points = [point for point in self.tried if not math.isnan(point.disagreement)]
        for method in dict.fromkeys(point.method for point in points):
            own = [p for p in points if p.method == method]
            axes.scatter([p.share for p in own], [p.disagreement for p in own], s=16, label=method)
        front = pareto(points)
        axes.plot([p.share for p in front], [p.disagreement for p in front], color="0.4", lw=1, label="best")
        axes.set(xlabel="share of the unmerged FLOPs", ylabel="disagreement", yscale="log")
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path)
        return Path(path)


def pareto(points: Sequence[TriedPoint]) -> list[TriedPoint]:
    """The points that no other point beats both in cost and in disagreement, the cheapest first."""
    front: list[TriedPoint] = []
    for point in sorted(points, key=lambda p: (p.share, p.disagreement)):
        if not front or point.disagreement < front[-1].disagreement:
            front.append(point)
    return front


def tune(
    model: nn.Module,
    samples: Inputs | Sequence[Inputs],
    *,
    speed: float | None = None,
    flops: float | None = None,
    methods: Sequence[str] = ("tome", "pitome"),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    trials: int = 20,
    minutes: float | None = None,
    seed: int = 0,
    compare: Literal["kl", "cosine"] = "kl",
    run: Callable[[Any], Tensor] | None = None,
) -> Tuned:
    """Find what merges tokens at the speed that is needed and changes the model's outputs least, and patch
    `model` with it.

    samples: what the model reads, without labels: images [B, C, H, W], token ids or the keywords of its
    forward, one batch or several; those that it is tested on later do not belong here. Exactly one target:
    `speed`, times as fast as without merging, measured on this machine with the first batch; or `flops`, a
    share of the unmerged cost. methods: those that are tried, with `options` by name of the method; trials:
    schedules that are tried of each, the uniform one first; minutes: at most so many for each.
    compare: outputs as logits (`kl`) or as features (`cosine`); run: a batch -> these outputs [B, ..., D];
    None: the model's output, or its `logits`.

    Raises UsageError, and leaves the model as it was: for a target that cannot be reached, with the best that
    can; without Optuna; for a model that is patched already.
    """
    if (speed is None) == (flops is None):
        raise UsageError("give one target: speed=TIMES or flops=SHARE")
    if not methods:
        raise UsageError("give the methods to try, e.g. methods=['tome', 'pitome']")
    study.check_installed()
    probe = _probe(model, samples, compare, run)
    tried: list[TriedPoint] = []
    best: tuple[TriedPoint, dict[str, Any]] | None = None
    slow: list[tuple[float, UsageError]] = []
    for name in methods:
        given = dict((options or {}).get(name, {}))
        try:
            found = _tune_method(probe, name, given, speed, flops, trials, minutes, seed, tried)
        except (TooSlow, UnsupportedModelError) as problem:
            slow.append((getattr(problem, "fastest", 0.0), UsageError(str(problem))))
            continue
        if best is None or found.disagreement < best[0].disagreement:
            best = found, given
    if best is None:
        raise max(slow, key=lambda entry: entry[0])[1]
    point, given = best
    space = study.space_of(probe, point.method)
    timing = point.timing or measured(probe, space, point.amount, given)
    before = probe.reference
    handle = patch(
        model,
        point.method,
        ratio=point.amount.ratio,
        schedule=point.amount.schedule,
        input_size=probe.input_size,
        **given,
    )
    agreement = _agreement(compare, before, list(probe.outputs()))
    return Tuned(
        point.method,
        given,
        point.amount,
        point.share,
        timing,
        point.disagreement,
        agreement,
        handle,
        tried,
    )


def _tune_method(
    probe: Probe,
    name: str,
    given: dict[str, Any],
    speed: float | None,
    flops: float | None,
    trials: int,
    minutes: float | None,
    seed: int,
    tried: list[TriedPoint],
) -> TriedPoint:
    """The best of one method; everything that was tried is added to `tried`. Raises TooSlow, and UsageError
    for a share that cannot be reached."""
    space = study.space_of(probe, name)
    resolved = space.resolve(given)

    def uniform(share: float, timing: Timing | None) -> None:
        amount = space.uniform(share, resolved)
        value = study.evaluate(probe, space, amount, given)
        tried.append(
            TriedPoint(name, amount, space.share(amount.rule(), resolved), value, study.UNIFORM, timing)
        )

    timed: list[tuple[float, Timing]] = []
    if speed is not None:
        target, timed = share_for_speed(probe, space, given, speed)
    else:
        assert flops is not None
        target = flops
        try:
            space.uniform(target, resolved)
        except UsageError as problem:
            raise TooSlow(str(problem), 0.0) from None
    for share, timing in timed:
        uniform(share, timing)
    if not timed:
        uniform((1 + target) / 2, None)
    plan = study.SearchPlan(target, given, trials=trials, minutes=minutes, seed=seed)
    results = study.search(probe, space, plan, title=f"tune {name}")
    points = [TriedPoint(name, t.amount, t.share, t.disagreement, t.role) for t in results]
    good = sorted((p for p in points if not math.isnan(p.disagreement)), key=lambda p: p.disagreement)
    tried += points
    if speed is None:
        return good[0]
    for point in good[:_CANDIDATES]:
        timing = measured(probe, space, point.amount, given)
        if timing.speedup >= speed:
            return TriedPoint(name, point.amount, point.share, point.disagreement, point.role, timing)
    (fits,) = [timing for share, timing in timed if share == target]
    first = points[0]  # uniform, which reached the speed when it was timed
    return TriedPoint(name, first.amount, first.share, first.disagreement, first.role, fits)


def _probe(
    model: nn.Module,
    samples: Inputs | Sequence[Inputs],
    compare: Literal["kl", "cosine"],
    run: Callable[[Any], Tensor] | None,
) -> Probe:
    batches: list[Any] = [samples] if isinstance(samples, Tensor | Mapping) else list(samples)
    if not batches:
        raise UsageError("give samples that the model reads: one batch, or several")
    first = batches[0]
    texts = isinstance(first, Mapping) and "attention_mask" in first
    size: InputSize = None
    if texts:
        size = Counter(torch.cat([batch["attention_mask"].sum(dim=1) for batch in batches]).tolist())
    elif isinstance(first, Tensor) and not first.is_floating_point():
        size = first.shape[1]

    def output(batch: Any) -> Tensor:
        made = forward(model, batch)
        made = getattr(made, "logits", made)
        if not isinstance(made, Tensor):
            raise UsageError(f"the model returns a {type(made).__name__}; give run=, a batch -> logits")
        return made

    return Probe(
        model=model,
        batches=batches,
        run=run or output,
        compare=compare,
        input_size=size,
        timed=lambda: (model, first),
        device=device_of(first),
    )


def _agreement(compare: str, before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    a, b = torch.cat(list(before)), torch.cat(list(after))
    if compare == "cosine":
        return float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean())
    return float((a.argmax(dim=-1) == b.argmax(dim=-1)).float().mean())
