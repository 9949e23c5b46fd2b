"""What text and image encoders of transformers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pitome.adapters.core import Capture, LayerPatch, Replacement, State, is_hooked
from pitome.errors import UnsupportedModelError, UsageError


class CaptureHeads(Capture):
    """`Capture` of a projection whose output still has its heads side by side: [B, N, H * D]."""

    def __init__(self, layer: LayerPatch, name: str, heads: int) -> None:
        super().__init__(layer, name)
        self.heads = heads

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        super().__call__(module, args, output.unflatten(-1, (self.heads, -1)).transpose(1, 2))


def check_captured(projection: nn.Module) -> None:
    """Refuse a projection that replaced the one whose output the patch reads, as LoRA's do."""
    if not torch.compiler.is_compiling() and not any(
        isinstance(hook, Capture) for hook in projection._forward_hooks.values()
    ):
        raise UsageError(
            f"a projection was replaced after the patch, by a {type(projection).__name__}, so that keys "
            "would be those of before: pitome.remove the patch, wrap or replace layers first, and patch last"
        )


def check_attention(config: Any, state: State) -> str:
    """`eager`, `sdpa` or `flash`: the form of the mask. Raises UsageError for another kind of
    attention, and for flash attention where sizes are to weigh, since it takes no bias."""
    kind: str = config._attn_implementation
    if kind in ("eager", "sdpa"):
        return kind
    if not kind.startswith("flash_attention"):
        raise UsageError(f"attn_implementation={kind} is not known; use sdpa, eager or flash_attention_2")
    if state.options.prop_attn:
        raise UsageError(
            f"attn_implementation={kind} takes no log(size) bias; "
            "use prop_attn=false, or attn_implementation=sdpa"
        )
    return "flash"


class FullLength(Replacement):
    """First base of a model's class whose outputs have a row for every token while it is patched."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        forward: Any = super().forward  # type: ignore[misc]
        return unmerged(forward, self.config, self._pitome_state, args, kwargs)


def unmerged(
    forward: Callable[..., Any], config: Any, state: State, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """The output of a model's `forward`, with all tokens if `state` says so; config: the model's."""
    if not state.dense:
        return forward(*args, **kwargs)
    asked = kwargs.get("return_dict")
    as_tuple = (config.return_dict if asked is None else asked) is False
    output = forward(*args, **kwargs | ({"return_dict": True} if as_tuple else {}))
    if output.get("last_hidden_state") is not None:
        output.last_hidden_state = state.unmerge(output.last_hidden_state)
    if output.get("hidden_states") is not None:
        states = list(output.hidden_states)
        first = state.current().moves[1]
        if (
            states[0] is not None and first is not None and first.order is not None
        ):  # a text's, as layer 0 got it
            states[0] = torch.empty_like(states[0]).scatter(
                1, first.order[..., None].expand_as(states[0]), states[0]
            )
        # Those that were not asked for are None.
        output.hidden_states = tuple(
            None if x is None else state.unmerge(x, at) for at, x in enumerate(states)
        )
    return output.to_tuple() if as_tuple else output


def check_forward(model: nn.Module, module: nn.Module, expected: type[nn.Module]) -> None:
    """Refuse a part of `model` that computes something else than `expected` does."""
    if type(module).forward is not expected.forward:
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: looked for {expected.__name__}.forward, "
            f"found {type(module).__module__}.{type(module).__qualname__} with its own"
        )
    if "forward" in vars(module) and not is_hooked(module):
        raise UnsupportedModelError(
            f"cannot patch: forward of a {expected.__name__} was replaced already, by another patch; "
            "undo that first"
        )


def linear(module: nn.Module) -> int:
    """Multiply-accumulates of all linear layers in `module`, for one token."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
