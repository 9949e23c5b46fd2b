"""VisionZip: dominant image tokens, and a few that stand for the others (Yang et al., CVPR 2025,
arXiv 2412.04467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pitome.fields import number
from pitome.merge.plan import Plan, Tokens, cosine, rank
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


@dataclass(frozen=True)
class VisionZipOptions(PlaceOptions):
    """Options of `visionzip`.

    contextual: share of the tokens that are left which stand for others (rounded down; the paper's 30 of 192,
    20 of 128, 10 of 64: 5/32 of them).
    merge: a contextual token becomes the `mean` of itself and what joins it, or the `sum` of itself and the
    mean of what joins it, as the authors' code has it.
    """

    contextual: float = number(5 / 32, least=0, most=1)
    merge: Literal["mean", "sum"] = "mean"


def _reads(options: VisionZipOptions) -> tuple[Part, ...]:
    return ("received", "keys")


def macs(n: int, protected: int, dim: int, remove: int, options: VisionZipOptions) -> int:
    """Cosines of what joins with what stands for others, over keys of width `dim`."""
    return remove * _contextual(n - remove, options) * dim if remove > 0 else 0


@register(
    "visionzip",
    place="projector",
    options=VisionZipOptions,
    guarantees=Guarantees(conserves_mass=False, proportional=False),
    source="arXiv 2412.04467",
    reads=_reads,
    macs=macs,
)
def visionzip(tokens: Tokens, remove: int, options: VisionZipOptions) -> Plan:
    """Keep the tokens that get the most attention in the tower; of the others, evenly spaced ones are kept as
    well, and each of the rest joins that one of these whose key is most like its own (Section 3.2).

    Features merge as the language model reads them, after the projector, so that one code serves all families
    (the authors merge before it, and count the class token, which LLaVA drops, as dominant). Order is that of
    the sequence.
    """
    received, keys = tokens.received, tokens.keys
    assert received is not None and keys is not None
    batch, n = received.shape
    few = _contextual(n - remove, options)
    order = rank(received)
    rest = order[:, n - remove - few :].sort(dim=-1).values
    step = max(rest.shape[1] // max(few, 1), 1)
    at = torch.arange(rest.shape[1], device=rest.device)
    is_target = (at % step == 0) & (at // step < few)
    targets, source = rest[:, is_target], rest[:, ~is_target]
    kept = torch.cat([order[:, : n - remove - few], targets], dim=1).sort(dim=-1).values
    if few == 0:
        return Plan(kept=kept, source=source, target=torch.full_like(source, -1))
    rows = torch.arange(batch, device=rest.device)[:, None]
    unit = cosine(keys)
    nearest = (unit[rows, source] @ unit[rows, targets].mT).argmax(dim=-1)
    target = torch.searchsorted(kept, targets).gather(1, nearest)
    if options.merge == "mean":
        return Plan(kept=kept, source=source, target=target)
    joined = torch.zeros(kept.shape, dtype=unit.dtype, device=kept.device)
    joined = joined.scatter_add(1, target, torch.ones_like(target, dtype=unit.dtype))
    weight = torch.ones(batch, n, dtype=unit.dtype, device=kept.device)
    weight = weight.scatter(1, source, 1 / joined.gather(1, target))
    return Plan(kept=kept, source=source, target=target, weight=weight, scale=1 + (joined > 0).to(unit.dtype))


def _contextual(left: int, options: VisionZipOptions) -> int:
    """How many of the tokens that are left stand for others."""
    return int(left * options.contextual)
