"""What is to be measured, checked before torch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pitome.config import choices
from pitome.errors import UsageError, nearest
from pitome.fields import fits
from pitome.merge import plugins
from pitome.merge.schedule import Reduction
from scripts.bench.checkout import METHODS as IN_CHECKOUT
from scripts.bench.checkout import check_checkout
from scripts.bench.groups import CLIP, LEAST_PAIRS, QUICK_MODEL, SMALL

PARTS = ("export", "startup", "reference", "layers", "scaling", "training", "llava", "sweep", "speed")
"""Short ones first, so that a bench of few minutes has something of everything."""
RUN = ("startup", "sweep")
"""Parts that start run.py as it is."""
WITHOUT_PAIRS = ("export", "layers", *RUN)
_OF = {"export": SMALL, "scaling": SMALL, "reference": SMALL, "llava": CLIP}
"""Parts of one model."""


@dataclass(frozen=True)
class Choice:
    """The options of python -m scripts.bench; None: not given."""

    results: Path
    parts: Sequence[str] = PARTS
    models: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    ratio: float | None = None
    batch: int = 16
    device: str = "cpu"
    dtype: str = "float32"
    minutes: float | None = None
    pairs: int | None = None
    reference: Path | None = None
    quick: bool = False

    def check(self) -> None:
        """Raises UsageError for what cannot be measured, as far as text and paths tell."""
        self._check_numbers()
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"device={self.device} cannot be timed; give cpu, cuda or cuda:N")
        known = {*choices("merge"), *plugins.offered()}
        for method in self.methods or ():
            if method not in known:
                raise UsageError(f"unknown merge method {method!r}; {nearest(method, known)}")
        if self.methods is not None and set(self.methods) == {"none"}:
            raise UsageError("methods=none leaves nothing to compare with; name a method that merges")
        if self.quick and self.models is not None:
            raise UsageError(f"quick measures {QUICK_MODEL} alone; leave out --models")
        if self.reference is not None:
            if "reference" not in self.parts:
                raise UsageError("a reference is given, but the part `reference` is not; add it to --parts")
            check_checkout(self.reference, self.in_checkout() or tuple(IN_CHECKOUT))
        _check_folder(self.results)
        if all(self.left_out(part) for part in self.parts):
            raise UsageError(f"nothing is left to measure: {'; '.join(self.notes())}")

    def _check_numbers(self) -> None:
        if fits(Reduction, "ratio", self.ratio) == 1:
            raise UsageError("ratio=1 merges nothing, so there is nothing to compare; give a share below 1")
        if self.batch < 1:
            raise UsageError(f"batch={self.batch} is not a whole number >= 1; give the images of a batch")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"minutes={self.minutes} is not above 0; leave it out for no limit")
        if self.pairs is not None and self.pairs < LEAST_PAIRS:
            raise UsageError(f"pairs={self.pairs} is too few for an interval; give {LEAST_PAIRS} or more")

    def merging(self, default: Sequence[str]) -> tuple[str, ...]:
        """The methods to measure, of a part that has `default`."""
        given = default if self.methods is None else self.methods
        return tuple(dict.fromkeys(method for method in given if method != "none"))

    def in_checkout(self) -> tuple[str, ...]:
        """The methods to measure that the authors' repository has."""
        return tuple(method for method in self.merging(tuple(IN_CHECKOUT)) if method in IN_CHECKOUT)

    @property
    def plain(self) -> bool:
        """Whether it is the CPU in float32, where everything runs."""
        return (self.device, self.dtype) == ("cpu", "float32")

    def left_out(self, part: str) -> str | None:
        """Why `part` cannot be measured with these options; None if it can."""
        given = [name for name in ("models", "methods", "ratio") if getattr(self, name) is not None]
        model = QUICK_MODEL if self.quick else _OF.get(part)
        if part in ("export", *RUN) and not self.plain:
            return "it runs on the CPU in float32 alone"
        if self.quick and part in ("scaling", "llava", *RUN):
            return "--quick does without"
        if part in RUN and given:
            return f"it takes no {', '.join(f'--{name}' for name in given)}"
        if self.models is not None and model is not None and model not in self.models:
            return f"it is of {model}, which --models does not name"
        if part == "reference" and self.reference is None:
            return "it needs --reference"
        if part == "reference" and not self.in_checkout():
            return f"the authors' repository has {', '.join(IN_CHECKOUT)} alone"
        return None

    def notes(self) -> list[str]:
        """One line for everything that was asked for and is not measured so."""
        lines = [f"{part} is left out: {why}" for part in self.parts if (why := self.left_out(part))]
        done = [part for part in self.parts if not self.left_out(part)]
        unpaired = [part for part in done if part in WITHOUT_PAIRS]
        if self.pairs is not None and unpaired:
            lines.append(f"--pairs is not for {', '.join(unpaired)}: nothing is taken in pairs there")
        if "reference" in done and (others := set(self.merging(())) - set(IN_CHECKOUT)):
            lines.append(
                f"reference is without {', '.join(sorted(others))}: the authors' repository lacks it"
            )
        if "speed" in done and not (self.plain or self.quick or self.device != "cpu"):
            lines.append("speed is without onnxruntime: it runs in float32 alone")
        return lines


def _check_folder(folder: Path) -> None:
    """Raises UsageError for results that could not be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"results={folder} cannot be a folder: {there} is a file; give another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"results={folder} cannot be written; give a folder that can")
