"""Text encoders made of `BertLayer` or DistilBERT's `TransformerBlock` (checked on 5.23).

A layer's pre-hook gives it the mask of the tokens that are left: the model makes one mask from the
length of its input, before the first layer. The keys are read after the key projection. Tokens merge
where the layer's attention is done: after its LayerNorm, for both kinds. What happens before the first
layer and after the last is in the encoder's forward itself, which some callers (sentence-transformers)
call past its hooks.

Whatever may read more than [CLS] gets the features of every input token, each those of its group: a pool
outside has the mask of the input, and means what it says.

Wrap or replace layers first (LoRA), patch second: the hooks sit on the projections found here.

[CLS] is protected: the classifier reads it. Whether the closing [SEP] is protected too is the
method's option `protected`: 1 protects [CLS] alone, the default, as in the authors' code
(algo/pitome/patch/bert.py splits off one token); the paper does not say. 2 protects the last real
token as well: it is moved after [CLS] before the first merge, where leading tokens are protected;
to the encoder that is no change, since positions are in the embeddings already.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertLayer, BertModel, BertSelfAttention
from transformers.models.distilbert.modeling_distilbert import (
    DistilBertModel,
    DistilBertSelfAttention,
    TransformerBlock,
)

from pitome.adapters.core import (
    Adapter,
    Capture,
    LayerPatch,
    Replacement,
    State,
    refuse_merging_first,
    remove_hooks,
    replace_methods,
    restore_methods,
)
from pitome.adapters.transformers.shared import (
    CaptureHeads,
    check_attention,
    check_captured,
    check_forward,
    linear,
    unmerged,
)
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import Architecture, LayerCost


@dataclass(frozen=True)
class TextKind:
    """Where a layer class keeps what the hooks need; paths are relative to the layer.

    attention: all of its projections are in there; inner: the module that computes attention,
    with `scaling`; mlp: the module whose output the layer adds to its features; merge_point: the
    module whose output is merged (a tensor, or a tuple that begins with it).
    """

    family: str
    host: type[nn.Module]
    layer: type[nn.Module]
    inner_class: type[nn.Module]
    attention: str
    inner: str
    query: str
    key: str
    value: str
    mlp: str
    merge_point: str


KINDS = (
    TextKind(
        family="bert",
        host=BertModel,
        layer=BertLayer,
        inner_class=BertSelfAttention,
        attention="attention",
        inner="attention.self",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        mlp="output.dense",
        merge_point="attention",
    ),
    TextKind(
        family="distilbert",
        host=DistilBertModel,
        layer=TransformerBlock,
        inner_class=DistilBertSelfAttention,
        attention="attention",
        inner="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        mlp="ffn",
        merge_point="sa_layer_norm",
    ),
)

# Heads that read [CLS] alone. All others, and whatever is around a bare encoder, may read every position.
_POOLED = ("ForSequenceClassification", "ForMultipleChoice", "ForNextSentencePrediction")


def adapt(model: nn.Module, host: nn.Module) -> TextAdapter:
    """The adapter of the text encoder `host` in `model`.

    Raises UnsupportedModelError if it is a decoder, or if it computes something the patch does not
    know.
    """
    kind = next(kind for kind in KINDS if isinstance(host, kind.host))
    config: Any = host.config
    layers = [module for module in host.modules() if isinstance(module, kind.layer)]
    for module, expected in [
        (host, kind.host),
        *((layer, kind.layer) for layer in layers),
        *((operator.attrgetter(kind.inner)(layer), kind.inner_class) for layer in layers),
    ]:
        check_forward(model, module, expected)
    if getattr(config, "is_decoder", False):
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: it is a decoder (is_decoder=True), whose later tokens may "
            "not be merged into earlier ones; looked for an encoder"
        )
    if getattr(config, "chunk_size_feed_forward", 0) > 1:
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: chunk_size_feed_forward={config.chunk_size_feed_forward} "
            "needs lengths that are multiples of it, which merged ones are not; set it to 0"
        )
    return TextAdapter(model, host, kind, layers)


def _head(model: nn.Module, host: nn.Module) -> nn.Module | None:
    """What reads the features of the encoder `host` in `model`; None where nothing in `model` does."""
    holders = [module for module in model.modules() if module is not host and host in list(module.modules())]
    return next((module for module in reversed(holders) if not _hands_on(module)), None)  # the innermost


def _reads_class_token_alone(head: nn.Module | None) -> bool:
    """Whether it is a head of transformers' own, not of a user's, that reads nothing else."""
    own = getattr(type(head).forward, "__module__", "") if head is not None else ""
    return own.startswith("transformers.") and type(head).__name__.endswith(_POOLED)


def _hands_on(module: nn.Module) -> bool:
    """Whether a module that holds a model returns what that returns."""
    parallel = nn.DataParallel, nn.parallel.DistributedDataParallel, nn.ModuleList, nn.ModuleDict
    return isinstance(module, parallel) or type(module).__module__.startswith("peft.")


class TextAdapter(Adapter):
    """A text encoder: its `host` (BertModel, ...) and the host's layers."""

    host: Any  # torch types the attributes of a module as Tensor | Module

    def __init__(self, model: nn.Module, host: nn.Module, kind: TextKind, layers: list[nn.Module]) -> None:
        self.host = host
        self.kind = kind
        self.layers = layers
        self.depth = len(layers)
        self.protected = 1
        self.has_class_token = True
        self.family = kind.family
        head = _head(model, host)
        self.dense = not _reads_class_token_alone(head)
        self.reads_all = "the model's head reads every token" if head is not None and self.dense else ""
        inside = sum(linear(layer) for layer in layers)
        self.head_macs = linear(model) - inside
        self.classes = int(getattr(host.config, "num_labels", 0))

    def attach(self, state: State) -> None:
        """Raises UsageError for a count of protected tokens or a kind of attention that cannot be."""
        if state.protected not in (1, 2):
            raise UsageError(
                f"protected={state.protected} does not fit a text encoder; "
                "give 1 ([CLS]) or 2 ([CLS] and [SEP])"
            )
        check_attention(self.host.config, state)
        refuse_merging_first(state, "text encoders")
        replace_methods(self.host, MergingEncoder)
        merging = [layer for layer in range(self.depth) if state.schedule.may_remove(layer)]
        for index, layer in enumerate(self.layers):
            patch = LayerPatch(state, index, begins=False)
            layer._pitome = patch  # type: ignore[assignment]
            inner = operator.attrgetter(self.kind.inner)(layer)
            layer.register_forward_pre_hook(
                Enter(patch, self.kind.key, inner.config, merging[0] if merging else self.depth),
                with_kwargs=True,
            )
            heads = self.host.config.num_attention_heads
            paths = {"keys": self.kind.key, "query": self.kind.query, "values": self.kind.value}
            for name in patch.captures & set(paths):
                projection = operator.attrgetter(paths[name])(layer)
                projection.register_forward_hook(CaptureHeads(patch, name, heads))
            if "mlp" in patch.captures:
                operator.attrgetter(self.kind.mlp)(layer).register_forward_hook(Capture(patch, "mlp"))
            before_mlp = state.options.position == "before_mlp"
            point = operator.attrgetter(self.kind.merge_point)(layer) if before_mlp else layer
            # Before the hook by which transformers records hidden states.
            point.register_forward_hook(Leave(patch, inner.scaling), prepend=True)

    def detach(self) -> None:
        for layer in self.layers:
            del layer._pitome
        restore_methods(self.host)
        remove_hooks(self.host, _HOOKS)

    def architecture(self, input_size: int | tuple[int, int] | None = None) -> Architecture:
        """Costs of the matrix products for a text of `input_size` tokens, special ones counted.

        Embeddings are looked up and cost nothing. Raises UsageError for a length the model does not
        take, UnsupportedModelError for a head that reads every token.
        """
        if self.reads_all:
            raise UnsupportedModelError(f"no closed form of the cost: {self.reads_all}")
        tokens = self._check_length(input_size)
        return Architecture(
            tokens=tokens,
            protected=self.protected,
            layers=tuple(self._layer_cost(layer) for layer in self.layers),
            stem=0,
            head=self.head_macs,
            patches=tokens,
            classes=self.classes,
            patch_inputs=0,
            family=self.family,
        )

    def example(self, input_size: int | tuple[int, int] | None = None) -> Tensor:
        """Token ids [1, N] without padding. Raises UsageError for a length the model does not take."""
        device = next(self.host.parameters()).device
        return torch.zeros(1, self._check_length(input_size), dtype=torch.long, device=device)

    def _check_length(self, input_size: int | tuple[int, int] | None) -> int:
        most = self.host.config.max_position_embeddings
        if input_size is None:
            raise UsageError(
                "the model takes texts of any length; give input_size in tokens, e.g. input_size=128"
            )
        if not isinstance(input_size, int) or isinstance(input_size, bool) or not 1 <= input_size <= most:
            raise UsageError(
                f"input_size={input_size} does not fit: give a number of tokens from 1 to {most}"
            )
        return input_size

    def _layer_cost(self, layer: nn.Module) -> LayerCost:
        attention = linear(operator.attrgetter(self.kind.attention)(layer))
        config = self.host.config
        return LayerCost(
            attn_token=attention,
            attn_pair=2 * config.hidden_size,
            mlp_token=linear(layer) - attention,
            metric_dim=config.hidden_size // config.num_attention_heads,
            hidden_dim=config.hidden_size,
            heads=config.num_attention_heads,
        )


class MergingEncoder(Replacement):
    """A text encoder whose layers merge."""

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As the encoder's own; `attention_mask` [B, N], 1 at tokens, 0 at padding, of any type."""
        state: State = self._pitome.state
        mask = attention_mask
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise UsageError(
                "a patched model takes an attention_mask of shape [B, N], 1 at tokens, 0 at padding"
            )
        # Known before the mask takes the form of the attention.
        state.begin().padding[0] = None if mask is None else mask == 0
        forward: Any = super().forward  # type: ignore[misc]
        return unmerged(forward, self.config, state, (input_ids, attention_mask, *args), kwargs)


class Enter:
    """Pre-hook of a layer: features in the order that methods want, and the mask that fits them."""

    def __init__(self, patch: LayerPatch, key: str, config: Any, first: int) -> None:
        self.patch = patch
        self.key = key  # of the layer: its key projection
        self.config = config
        self.first = first  # the first layer that may merge

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        patch, state, layer = self.patch, self.patch.state, self.patch.layer
        if "keys" in patch.captures:
            check_captured(operator.attrgetter(self.key)(module))
        forward = state.current()
        kwargs = dict(kwargs)
        x = args[0] if args else kwargs.pop("hidden_states")
        mask = args[1] if len(args) > 1 else kwargs.pop("attention_mask", None)
        if (len(args) > 2 and args[2] is not None) or kwargs.get("past_key_values") is not None:
            raise UsageError("a patched model is an encoder: no encoder_hidden_states, no past_key_values")
        if layer == 0 and mask is None:
            forward.padding[0] = None  # transformers found no padding
        forward.order = None  # a forward that broke off may have left one
        if layer == self.first and state.method.padding != "merged":
            x = self._arrange(x)
        bias = patch.enter(x)
        if layer > self.first or forward.order is not None:
            mask = self._mask(x, bias, patch.padding())
        return (x, mask, *args[2:]), kwargs

    def _arrange(self, x: Tensor) -> Tensor:
        """[CLS], then [SEP] where it is protected, the other tokens, padding."""
        patch, state = self.patch, self.patch.state
        padding = state.current().padding[patch.layer]
        if padding is None and state.protected == 1:
            return x
        batch, n = x.shape[:2]
        key = 2 * torch.arange(n, device=x.device).expand(batch, -1)
        if padding is not None:
            if not torch.compiler.is_compiling() and bool(padding[:, 0].any()):
                raise UsageError(
                    "a text begins with padding, where [CLS] must be: "
                    "pad on the right, and leave out empty texts"
                )
            key = key + 2 * n * padding
        if state.protected == 2:
            last = key.masked_fill(key >= 2 * n, -1).argmax(dim=1, keepdim=True)
            key = key.scatter(1, last, 1)
        return patch.arrange(x, key.argsort(dim=1))

    def _mask(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """The mask as the attention wants it; `bias` [B, 1, 1, N], `padding` [B, N]."""
        kind = check_attention(self.config, self.patch.state)
        if kind == "flash":
            return None if padding is None else padding.logical_not()
        if padding is None:
            return bias
        if bias is None:
            if kind == "sdpa":
                return padding.logical_not()[:, None, None, :]
            bias = x.new_zeros(x.shape[0], 1, 1, x.shape[1])
        return bias.masked_fill(padding[:, None, None, :], torch.finfo(bias.dtype).min)


class Leave:
    """Forward hook of the merge point: fewer tokens leave than came."""

    def __init__(self, patch: LayerPatch, scale: float) -> None:
        self.patch = patch
        self.scale = scale

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return self.patch.merge(output[0], self.scale), *output[1:]
        return self.patch.merge(output, self.scale)


_HOOKS = (Enter, Capture, Leave)
