"""What `make bench` times: groups of one unmerged model and its merged variants, timed in turn."""

from __future__ import annotations

from dataclasses import dataclass

from pitome.bench.subjects import BERT, CLIP

METHODS = ("pitome", "tome", "tofu", "diffrate")
RATIO = 0.925
SMALL, BASE, LARGE = (f"vit_{size}_patch16_224" for size in ("small", "base", "large"))
HUGE = "vit_huge_patch14_224"
QUICK_MODEL = "test_vit"


@dataclass(frozen=True)
class Group:
    """Variants that take turns: the unmerged model and one per method.

    size: pixels of an image or tokens of a text; layers: as `pitome.patch` takes them; mode: `eager`,
    `compile` (torch.compile) or `onnx` (onnxruntime), the same for all variants; clock: `cpu`, the CPU
    time of the process on one thread, or `wall`, on all threads.
    """

    model: str
    size: int = 224
    batch: int = 16
    ratio: float = RATIO
    methods: tuple[str, ...] = METHODS
    layers: str | None = None
    mode: str = "eager"
    clock: str = "cpu"
    pairs: int = 20

    @property
    def key(self) -> str:
        """Its name in the record."""
        layers = "" if self.layers is None else f"-{self.layers}"
        methods = "+".join(self.methods)
        settings = f"{self.size}-batch{self.batch}-{self.ratio}{layers}-{self.mode}-{self.clock}"
        return f"{self.model}-{settings}-{methods}"


def images(batch: int = 16, ratio: float = RATIO) -> list[Group]:
    """The table of the targets, from cheap to dear."""
    groups = []
    for model in (SMALL, BASE):
        groups += [Group(model, batch=batch, ratio=ratio, clock=clock) for clock in ("cpu", "wall")]
    groups += [Group(SMALL, batch=batch, ratio=other, methods=("pitome",)) for other in (0.95, 0.9)]
    groups += [Group(BERT, size, 4, 0.8, ("pitome", "tome"), "first3") for size in (128, 512)]
    groups += [Group(SMALL, batch=1, methods=("pitome",), mode="onnx")]
    groups += [Group(SMALL, batch=batch, ratio=ratio, mode="compile", clock="wall")]
    groups += [Group(CLIP, 336, 1, methods=("pitome",))]
    groups += [Group(LARGE, batch=batch, ratio=ratio, clock=clock) for clock in ("cpu", "wall")]
    groups += [Group(BASE, batch=batch, ratio=ratio, mode="compile", clock="wall")]
    return groups


def gpu(batch: int, ratio: float = RATIO) -> list[Group]:
    """The table of the targets on a GPU, where CPU time says nothing."""
    models = (BASE, LARGE, HUGE)
    whole = [
        Group(model, batch=batch, ratio=ratio, mode=mode, clock="wall")
        for model in models
        for mode in ("eager", "compile")
    ]
    alone = [Group(model, batch=1, ratio=ratio, mode="compile", clock="wall") for model in models]
    return whole + alone


def scaling() -> list[Group]:
    """From 197 to 4,097 tokens, and from one image to 32; fewer pairs, since it is the slope that counts."""
    tokens = [Group(SMALL, size, 1, methods=("pitome",), pairs=6) for size in (224, 384, 512, 768, 1024)]
    batches = [Group(SMALL, 224, batch, methods=("pitome",), pairs=6) for batch in (1, 4, 32)]
    return tokens + batches


def quick() -> list[Group]:
    """A small model and the fewest pairs that have an interval: to see that everything works."""
    return [
        Group(QUICK_MODEL, 160, 2, clock=clock, methods=("pitome", "tome"), pairs=6)
        for clock in ("cpu", "wall")
    ]
