"""FastV: image tokens that the prompt's last token attends to (Chen et al., ECCV 2024, arXiv 2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass

from pitome.fields import whole
from pitome.merge.plan import Plan, Tokens, keep_rows, rank
from pitome.merge.registry import Guarantees, PlaceOptions, register


@dataclass(frozen=True)
class FastVOptions(PlaceOptions):
    """Options of `fastv`.

    layer: of the language model, before which the tokens go; the paper's K. The attention is that of the
    layer before it.
    """

    layer: int = whole(2, least=1)


@register(
    "fastv",
    place="language",
    options=FastVOptions,
    guarantees=Guarantees(conserves_mass=False, prunes=True, proportional=False, equivariant=True),
    source="arXiv 2403.06764",
    reads=lambda options: ("received",),
)
def fastv(tokens: Tokens, remove: int, options: FastVOptions) -> Plan:
    """Keep the image tokens with the largest attention from the last token of the prompt, mean over heads
    (Section 4.1), with their positions; the others are dropped. Of all images of a prompt together."""
    assert tokens.received is not None
    n = tokens.x.shape[1]
    return keep_rows(rank(tokens.received)[:, : n - remove], n)
