"""LLaVA-1.5: its CLIP tower merges, its language model reads what one layer of the tower leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.models.llava import modeling_llava as llava

from pitome.adapters.core import State
from pitome.adapters.transformers import vision
from pitome.adapters.transformers.vision import VisionAdapter
from pitome.errors import UsageError
from pitome.merge.costs import closed_form

FAMILY = "llava"


def adapt(model: nn.Module, host: nn.Module) -> VisionAdapter | None:
    """The adapter of the image tower `host` in `model`; None if no LLaVA model holds it.

    Raises UnsupportedModelError as `vision.adapt` does.
    """
    for module in model.modules():
        if isinstance(module, llava.LlavaModel) and host in list(module.modules()):
            adapter = vision.adapt(model, host, LlavaAdapter)
            assert isinstance(adapter, LlavaAdapter)
            adapter.settings = module.config
            return adapter
    return None


class LlavaAdapter(VisionAdapter):
    """The tower of a LLaVA model, whose settings say which tokens the language model gets."""

    settings: Any  # LlavaConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.family = FAMILY

    def attach(self, state: State) -> None:
        """Raises UsageError where features of several layers are joined between which tokens merge, and
        for a kind of attention that takes no size bias."""
        if not state.dense:
            form = closed_form(self.architecture(), state.schedule, state.method, state.options)
            handed_on(self.settings, form.tokens)
        super().attach(state)


def feature_entry(config: Any) -> int:
    """The entry of a list of L + 1 token counts (entering each block, then the final one) that belongs to
    the layer whose features are taken; of several, the first."""
    layers = config.vision_feature_layer
    first = layers if isinstance(layers, int) else layers[0]
    return _entry(first, config.vision_config.num_hidden_layers)


def handed_on(config: Any, tokens: Sequence[int]) -> int:
    """How many tokens of an image the language model gets, of `tokens`: L + 1 counts, as above.

    Features are taken before or after a block; merging after that has no effect. Raises
    UsageError where several layers are joined and differ in their number of tokens.
    """
    layers = config.vision_feature_layer
    chosen = [layers] if isinstance(layers, int) else list(layers)
    counts = [tokens[_entry(layer, len(tokens) - 1)] for layer in chosen]
    if len(set(counts)) > 1:
        raise UsageError(
            f"vision_feature_layer={chosen} joins layers of {' and '.join(map(str, counts))} tokens; "
            "merge before the first or after the last of them, with layers="
        )
    return counts[0] - int(config.vision_feature_select_strategy == "default")


def _entry(layer: int, depth: int) -> int:
    return layer if layer >= 0 else depth + 1 + layer
