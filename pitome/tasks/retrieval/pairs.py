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
    """One split: I images with their captions."""

    source: str  # hub, local or package
    revision: str  # a commit or checksum
    names: list[str]  # [I] what the images are called
    captions: list[list[str]]  # [I] of each, perhaps none
    read: Callable[[int], Image.Image]  # index -> image in mode RGB; raises Unreadable
    stamp: str = ""  # changes whenever the pixels may have
    # how images are read, where that is not the default
    settings: Mapping[str, Any] = field(default_factory=dict)
