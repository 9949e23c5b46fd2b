"""Average pooling of the grid: what remains of a method's gain when it does not look at the image."""

from __future__ import annotations

import torch

from pitome.merge.plan import Plan, Tokens
from pitome.merge.registry import Guarantees, Part, PlaceOptions, register


def _reads(options: PlaceOptions) -> tuple[Part, ...]:
    return ("grid",)


@register(
    "pool",
    place="projector",
    options=PlaceOptions,
    guarantees=Guarantees(),
    source="a baseline of this project",
    reads=_reads,
)
def pool(tokens: Tokens, remove: int, options: PlaceOptions) -> Plan:
    """Average neighbouring tokens: of the H x W grid of an image an h x w one is left, cell (y, x) joining
    (floor(y h / H), floor(x w / W)).

    h and w are those with h w tokens left that leave the cells squarest; where there is no such grid, as for
    a prime number of tokens, equal parts of the sequence are averaged.
    """
    assert tokens.grid is not None
    height, width = tokens.grid
    left, batch = height * width - remove, len(tokens.x)
    sizes = [
        (h, left // h) for h in range(1, left + 1) if left % h == 0 and h <= height and left // h <= width
    ]
    device = tokens.x.device
    if sizes:
        h, w = min(sizes, key=lambda size: abs(height / size[0] - width / size[1]))
        y, x = (torch.arange(count, device=device) for count in (height, width))
        row = ((y * h // height)[:, None] * w + x * w // width).flatten()
    else:  # in the order of the sequence
        row = torch.arange(height * width, device=device) * left // (height * width)
    order = row.argsort(stable=True)
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[order][1:] != row[order][:-1]
    kept, source = order[first], order[~first]  # the first cell of each row of the plan
    return Plan(
        kept=kept.expand(batch, -1), source=source.expand(batch, -1), target=row[source].expand(batch, -1)
    )
