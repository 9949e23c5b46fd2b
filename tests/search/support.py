"""A small probe: a tiny ViT and random images."""

from __future__ import annotations

from typing import Any

import torch

import pitome
from pitome.merge import registry
from pitome.search.probe import Probe
from pitome.search.space import Space
from tests.adapters.tiny import vit


def tiny_probe(samples: int = 6, **kwargs: Any) -> Probe:
    model = vit(grid=(6, 6), **kwargs)
    images = torch.randn(samples, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    return Probe(model=model, batches=list(images.split(4)), run=model, compare="kl")


def space_for(probe: Probe, method: str, **kwargs: Any) -> Space:
    with pitome.patch(probe.model, "none", ratio=1.0) as handle:
        architecture, family = handle.architecture(), handle.family
    layers = tuple(range(len(architecture.layers)))
    return Space(architecture, registry.get(method).of_family(family), layers, layers, **kwargs)


def options_for(space: Space, **values: Any) -> Any:
    built = space.method.build_options(values)
    return space.method.resolve(built, space.architecture.family, len(space.architecture.layers))
