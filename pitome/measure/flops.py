"""FLOPs of a model as it runs, counted operation by operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pitome.adapters.patch import patch, tower_patch
from pitome.measure.copies import evaluating, meta_copy
from pitome.measure.inputs import Inputs, batch_size, cast, forward
from pitome.merge.costs import closed_form
from pitome.merge.fast_path import reference_path


@dataclass(frozen=True)
class Counted:
    """Multiply-accumulates of one forward pass for one sample; FLOPs are two per MAC."""

    macs: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class Flops:
    """What a model costs per sample. FLOPs are two per MAC."""

    macs: int  # counted on the model as it is
    macs_closed_form: int  # from its schedule
    plan_macs: int  # the part that decides what merges (closed form)
    unmerged_macs: int  # counted without merging

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def share(self) -> float:
        """Of the unmerged model's cost."""
        return self.macs / self.unmerged_macs


def count_flops(model: nn.Module, inputs: Inputs) -> Counted:
    """Count one forward of `model` on `inputs`: images [B, C, H, W], token ids [B, N], or the
    keywords of its forward; per sample. Works on the meta device.

    Matrix products, convolutions and attention count, nothing else. Images are taken in the type
    of the model's weights. The model's mode and torch's settings are as before afterwards.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The counter does not see nn.MultiheadAttention's native path, nor every fused attention kernel
    # of every torch version: products of matrices it always sees.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            evaluating(model),
            _frozen(model),
            reference_path(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            forward(model, cast(inputs, next(model.parameters()).dtype))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return Counted(macs=round(counter.get_total_flops() / 2 / batch_size(inputs)))


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients: torch's counter fails on a parameter that is a module's input
    (the query of an attention pool), even under no_grad."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def flops(model: nn.Module, input_size: int | tuple[int, int] | None = None) -> Flops:
    """Cost of a model, patched or not, at `input_size`: height and width of an image (the model's
    own if None), or the number of tokens of a text.

    Counted on a copy without weights, so it takes no memory and leaves `Patched.tokens` as it was. Of a
    model that takes texts beside images, the image tower alone is counted.
    Raises UnsupportedModelError for a model that `pitome.patch` does not know.

    >>> import pitome, timm
    >>> model = timm.create_model("deit_small_patch16_224")
    >>> with pitome.patch(model, "pitome", ratio=0.925):
    ...     cost = pitome.flops(model)
    >>> f"{cost.macs / 1e9:.2f} GMACs, {cost.share:.0%} of the unmerged model"
    '3.01 GMACs, 65% of the unmerged model'
    """
    copied = meta_copy(getattr(model, "_orig_mod", model))  # what torch.compile wraps
    handle = tower_patch(copied) or patch(copied, "none", ratio=1.0)
    architecture, example = handle.architecture(input_size), handle.example(input_size)
    form = closed_form(architecture, handle.schedule, handle.method, handle.options)
    part = copied if handle.entry is None else handle.entry
    merged = count_flops(part, example)
    handle.remove()
    return Flops(
        macs=merged.macs,
        macs_closed_form=form.macs,
        plan_macs=form.plan_macs,
        unmerged_macs=count_flops(part, example).macs,
    )
