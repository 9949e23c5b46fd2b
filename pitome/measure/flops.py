"""FLOPs of a model as it runs, counted operation by operation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pitome.errors import UnsupportedModelError


@dataclass(frozen=True)
class Counted:
    """Multiply-accumulates of one forward pass for one image; FLOPs are two per MAC."""

    macs: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


@dataclass(frozen=True)
class Flops:
    """What a model costs per image. FLOPs are two per MAC.

    macs: counted on the model as it is; macs_closed_form: from its schedule; plan_macs: the part
    that decides what merges; unmerged_macs: closed form of the same model without merging; share:
    macs / unmerged_macs.
    """

    macs: int
    macs_closed_form: int
    plan_macs: int
    unmerged_macs: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def share(self) -> float:
        return self.macs / self.unmerged_macs


def count_flops(model: nn.Module, images: Tensor) -> Counted:
    """Count one forward of `model` on `images` [B, C, H, W]; per image. Works on the meta device.

    Matrix products, convolutions and attention count. The model's mode and torch's settings are as
    before afterwards.
    """
    was_training, fast_path = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    # The counter does not see nn.MultiheadAttention's native path, nor every fused kernel.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        model.train(was_training)
    return Counted(macs=round(counter.get_total_flops() / 2 / images.shape[0]))


def flops(model: nn.Module, input_size: int | tuple[int, int] | None = None) -> Flops:
    """Cost of a model, patched or not, at `input_size` (height and width; the model's own if None).

    Raises UnsupportedModelError for a model that `pitome.patch` does not know.

    >>> import pitome, timm
    >>> model = timm.create_model("deit_small_patch16_224")
    >>> with pitome.patch(model, "pitome", ratio=0.925):
    ...     cost = pitome.flops(model)
    >>> f"{cost.macs / 1e9:.2f} GMACs, {cost.share:.0%} of the unmerged model"
    '3.01 GMACs, 65% of the unmerged model'
    """
    from pitome.adapters.patch import patch, patched
    from pitome.measure.costs import closed_form

    handle = patched(model)
    if handle is not None:
        architecture = handle.architecture(input_size)
        form = closed_form(architecture, handle.schedule, handle.method, handle.options, handle.state.active)
    else:
        with patch(model, "none", ratio=1.0) as unmerged:
            architecture = unmerged.architecture(input_size)
        form = closed_form(architecture)
    return Flops(
        macs=count_flops(model, _images(model, input_size)).macs,
        macs_closed_form=form.macs,
        plan_macs=form.plan_macs,
        unmerged_macs=closed_form(architecture).macs,
    )


def _images(model: nn.Module, input_size: int | tuple[int, int] | None) -> Tensor:
    """One blank image [1, C, H, W] for the model's patch embedding."""
    embed = getattr(model, "patch_embed", None)
    if embed is None:
        raise UnsupportedModelError(f"cannot make an input for {type(model).__name__}: it has no patch_embed")
    size = input_size or embed.img_size
    height, width = (size, size) if isinstance(size, int) else size
    weight = next(model.parameters())
    return torch.zeros(1, embed.proj.in_channels, height, width, device=weight.device, dtype=weight.dtype)
