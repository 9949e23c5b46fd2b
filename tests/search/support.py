"""A small probe: a tiny ViT and random images."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from pitome.search import study
from pitome.search.probe import Probe
from pitome.search.space import Space
from tests.adapters.tiny import vit


def tiny_probe(samples: int = 6, **kwargs: Any) -> Probe:
    model = vit(grid=(6, 6), **kwargs)
    images = torch.randn(samples, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    return Probe(model=model, batches=list(images.split(4)), run=model, compare="kl")


def space_for(probe: Probe, method: str, by_ratio: bool = False) -> Space:
    """by_ratio: as if the samples had 20, 37 and 50 tokens."""
    space = study.space_of(probe, method)
    if not by_ratio:
        return space
    lengths = {20: 3, 37: 2, 50: 1}
    sizes = [(dataclasses.replace(space.architecture, tokens=n), count) for n, count in lengths.items()]
    return dataclasses.replace(space, mixture=sizes, by_ratio=True)


def options_for(space: Space, **values: Any) -> Any:
    return space.resolve(values)
