"""No merging: the baseline that every other method is compared with."""

from __future__ import annotations

from typing import Any

from pitome.merge.plan import Plan, Tokens, keep_all
from pitome.merge.registry import Guarantees, register


@register(
    "none",
    guarantees=Guarantees(equivariant=True),
    source="the model as it is",
    count=lambda n, protected, ratio, layer: 0,
    limit=lambda n, protected: 0,
)
def none(tokens: Tokens, remove: int, options: Any) -> Plan:
    """Keep every token; the schedule of this method removes nothing, whatever ratio or r says."""
    return keep_all(tokens)
