"""What `make bench` times: groups of one unmerged model and its merged variants, timed in turn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

METHODS = ("pitome", "tome", "tofu", "diffrate")
RATIO = 0.925
SMALL, BASE, LARGE = (f"vit_{size}_patch16_224" for size in ("small", "base", "large"))
HUGE = "vit_huge_patch14_224"
QUICK_MODEL = "test_vit"
_ALONE = ("pitome", "tome", "random")
ALONE = (("eager", "cpu", _ALONE), ("compile", "wall", _ALONE), ("onnx", "cpu", ("pitome",)))
"""Of one image at a time: mode, clock, methods."""
BERT, CLIP = "bert_base", "clip_l336"  # beside these, every VisionTransformer of timm
LEAST_PAIRS = 6  # as measure.throughput has it, which imports torch


@dataclass(frozen=True)
class Group:
    """Variants that take turns: the unmerged model and one per method."""

    model: str
    size: int = 224  # pixels of an image or tokens of a text
    batch: int = 16
    ratio: float = RATIO
    methods: tuple[str, ...] = METHODS
    layers: str | None = None  # as `pitome.patch` takes them
    # of all variants: `eager`, `compile`, `graphs` (with CUDA graphs), `onnx`, `train` (and backward)
    mode: str = "eager"
    clock: str = "cpu"  # `cpu`, CPU time of the process on one thread, or `wall`, on all threads
    pairs: int = 20

    @property
    def key(self) -> str:
        """Its name in the record."""
        layers = "" if self.layers is None else f"-{self.layers}"
        methods = "+".join(self.methods)
        settings = f"{self.size}-batch{self.batch}-{self.ratio}{layers}-{self.mode}-{self.clock}"
        return f"{self.model}-{settings}-{methods}"


def images(batch: int = 16, ratio: float | None = None) -> list[Group]:
    """The table of the targets, from cheap to expensive; at `ratio` alone where one is given."""
    groups = []
    kept = RATIO if ratio is None else ratio
    for model in (SMALL, BASE):
        groups += [Group(model, batch=batch, ratio=kept, clock=clock) for clock in ("cpu", "wall")]
    others = (0.95, 0.9) if ratio is None else ()
    groups += [Group(SMALL, batch=batch, ratio=other, methods=("pitome",)) for other in others]
    text = 0.8 if ratio is None else ratio
    groups += [Group(BERT, size, 4, text, ("pitome", "tome"), "first3") for size in (128, 512)]
    for model, (mode, clock, methods) in itertools.product((SMALL, BASE), ALONE):
        groups.append(Group(model, 224, 1, kept, methods, mode=mode, clock=clock))
    groups += [Group(SMALL, batch=batch, ratio=kept, mode="compile", clock="wall")]
    groups += [Group(CLIP, 336, 1, kept, methods=("pitome",))]
    groups += [Group(LARGE, batch=batch, ratio=kept, clock=clock) for clock in ("cpu", "wall")]
    groups += [Group(model, batch=batch, ratio=kept, mode="compile", clock="wall") for model in (BASE, LARGE)]
    return groups


def gpu(batch: int, ratio: float | None = None) -> list[Group]:
    """The table of the targets on a GPU, where CPU time says nothing."""
    models = (BASE, LARGE, HUGE)
    kept = RATIO if ratio is None else ratio
    whole = [
        Group(model, batch=batch, ratio=kept, mode=mode, clock="wall")
        for model in models
        for mode in ("eager", "compile")
    ]
    alone = [Group(model, batch=1, ratio=kept, mode="graphs", clock="wall") for model in models]
    return whole + alone


def scaling(ratio: float | None = None) -> list[Group]:
    """From 197 to 4,097 tokens, and from one image to 32; fewer pairs, since it is the slope that counts."""
    kept = RATIO if ratio is None else ratio
    at = [(size, 1) for size in (224, 384, 512, 768, 1024)] + [(224, batch) for batch in (1, 4, 32)]
    return [Group(SMALL, size, batch, kept, methods=("pitome",), pairs=6) for size, batch in at]


def training(batch: int = 16, ratio: float | None = None) -> list[Group]:
    """A step of training, whose backward pass FLOPs promise to be as much faster as its forward pass."""
    ratios = (0.9, 0.8) if ratio is None else (ratio,)
    at = itertools.product((SMALL, BASE), ratios)
    return [Group(model, 224, batch, kept, ("pitome", "tome"), mode="train") for model, kept in at]


def quick(batch: int = 2, ratio: float | None = None) -> list[Group]:
    """A small model and the fewest pairs that have an interval: to see that everything works."""
    kept = RATIO if ratio is None else ratio
    return [
        Group(QUICK_MODEL, 160, batch, kept, clock=clock, methods=("pitome", "tome"), pairs=LEAST_PAIRS)
        for clock in ("cpu", "wall")
    ]
