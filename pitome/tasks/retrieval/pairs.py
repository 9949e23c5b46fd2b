"""Images and their captions, wherever they come from. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

CAPTIONS = 5
"""Captions of an image that count, the first of those it has: the protocol of Flickr30k and COCO."""


@dataclass(frozen=True)
class Pairs:
    """One split: I images with their captions.

    source: hub, local or package; revision: a commit or checksum; names [I]: what the images are
    called; captions [I]: of each, perhaps none; read: index -> image in mode RGB, raises
    `pitome.tasks.loading.Unreadable`; stamp: changes whenever the pixels may have; settings: how
    images are read, where that is not the default.
    """

    source: str
    revision: str
    names: list[str]
    captions: list[list[str]]
    read: Callable[[int], Image.Image]
    stamp: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
