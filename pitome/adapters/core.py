"""What every adapter needs: the state of a forward pass, the step of one layer, the interface."""

from __future__ import annotations

import contextlib
import threading
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge import native
from pitome.merge.contract import check_plan
from pitome.merge.costs import Architecture
from pitome.merge.fast_path import is_eager_on_cpu
from pitome.merge.padding import plan_alone, real_tokens, removals
from pitome.merge.plan import (
    AnyPlan,
    Move,
    Plan,
    Tokens,
    cast,
    firsts_of,
    ones,
    positions,
    rows_of,
    select,
    unmerge,
)
from pitome.merge.registry import Method, MethodOptions
from pitome.merge.schedule import Schedule

QKV = ("query", "keys", "values")


class Forward:
    """What one forward pass leaves for adapters and measurements.

    The lists are indexed by layer: layer i reads entry i and writes entry i + 1, so a layer that
    gradient checkpointing runs a second time finds what it found the first time.
    """

    def __init__(self, depth: int) -> None:
        self.tokens = [0] * (depth + 1)
        # [B, N]; None before the first merge
        self.size: list[Tensor | None] = [None] * (depth + 1)
        # [B, N, S], which input tokens each token holds; kept for a trace
        self.membership: list[Tensor | None] = [None] * (depth + 1)
        # [B, N], True at padding; None where an adapter found none
        self.padding: list[Tensor | None] = [None] * (depth + 1)
        # Where the tokens of layer i went, in entry i + 1; None where they stayed or have no groups
        self.moves: list[Move | None] = [None] * (depth + 1)
        # Of the layer that runs, set before its merge and used up by it: what `LayerPatch.captures` names.
        self.captured: dict[str, Tensor] = {}
        self.order: Tensor | None = None

    def moved(self, layer: int) -> list[Move]:
        """The moves before layer `layer`, or of all layers at the depth."""
        return [move for move in self.moves[: layer + 1] if move is not None]


class _OfThread(threading.local):
    forward: Forward | None = None


class State:
    """The rule a patched model follows, and its last forward passes, one for each thread."""

    def __init__(
        self,
        method: Method,
        options: MethodOptions,
        schedule: Schedule,
        protected: int,
        trace: bool,
        dense: bool = False,
    ) -> None:
        self.method = method
        self.options = options
        self.schedule = schedule
        self.protected = protected
        self.trace = trace
        self.dense = dense  # whether outputs with a row per token have all of them
        self.checked = [False] * schedule.depth  # whose first plan has been looked at
        self._thread = _OfThread()
        self._last = Forward(schedule.depth)  # of any thread
        self._thread_of_last: int | None = None
        self._several_threads = False

    @property
    def depth(self) -> int:
        return self.schedule.depth

    def begin(self) -> Forward:
        """The state of a forward that begins in this thread."""
        if _in_backward():  # gradient checkpointing runs its beginning again
            return self.current()
        forward = self._thread.forward = self._last = Forward(self.depth)
        if not torch.compiler.is_compiling():
            thread = threading.get_ident()
            self._several_threads |= self._thread_of_last not in (None, thread)
            self._thread_of_last = thread
        return forward

    def current(self) -> Forward:
        """The state of the forward that runs in this thread, or ran last in it.

        Raises UsageError where a backward pass runs layers again (gradient checkpointing) in a thread
        of its own, and several threads use the model: which of their forwards it belongs to is lost.
        """
        forward = self._thread.forward
        if forward is not None:
            return forward
        if not _in_backward():  # a layer is called alone
            return self.begin()
        if self._several_threads:
            raise UsageError(
                "gradient checkpointing of a patched model works on CUDA in one thread only; "
                "use DistributedDataParallel instead of threads, or no checkpointing"
            )
        return self._last

    @property
    def last(self) -> Forward:
        """The last forward of this thread; where it ran none, that of any thread."""
        return self._thread.forward or self._last

    def unmerge(self, x: Tensor, layer: int | None = None, forward: Forward | None = None) -> Tensor:
        """Features [B, M, C] of the tokens that enter block `layer` (None: that leave the last one) of a
        forward (None: of this thread's) for all tokens, [B, N, C]: each gets its group's row, a dropped one
        zeros. As they are where nothing merged.

        Raises UsageError for another number of tokens and for a method without groups.
        """
        layer = self.depth if layer is None else layer
        forward = self.current() if forward is None else forward
        if not 0 <= layer <= self.depth:
            raise UsageError(f"layer={layer} is none of 0 to {self.depth}, the last being after all blocks")
        if not self.method.guarantees.groups:
            raise UsageError(f"merge={self.method.name} mixes all tokens, so no row is that of a token")
        rows = rows_of(forward.moved(layer))
        expected = forward.tokens[layer]
        if x.ndim != 3 or x.shape[1] != expected or (rows is not None and len(rows) != len(x)):
            batch = "B" if rows is None else len(rows)
            raise UsageError(
                f"the last forward left [{batch}, {expected}, C] at {layer} of {self.depth} blocks, and "
                f"these tokens are {list(x.shape)}"
            )
        return x if rows is None else unmerge(x, rows)

    def check_dense(self) -> None:
        """Raises UsageError unless outputs have all tokens."""
        if not self.dense:
            raise UsageError(
                "a patched model has no map of features per position; patch with dense=True, or call "
                "remove() on the patch first"
            )

    def merged(self, x: Tensor) -> Tensor:
        """The rows of all tokens [B, N, C], as `unmerge` makes them, once each: [B, M, C]."""
        firsts = firsts_of(self.current().moved(self.depth))
        return x if firsts is None else select(x, firsts)

    def __deepcopy__(self, memo: dict[int, object]) -> State:
        # Tensors of the last forward may belong to a graph, which cannot be copied.
        make, arguments = self.__reduce__()
        memo[id(self)] = copy = make(*arguments)
        return copy

    def __reduce__(self) -> tuple[type[State], tuple[Any, ...]]:
        return State, (
            self.method, self.options, self.schedule, self.protected, self.trace, self.dense,
        )  # fmt: skip


class LayerPatch:
    """What the patch adds to one layer. The layer keeps it as `_pitome` and calls `enter` and `merge`.

    `begins`: whether a forward begins with this layer's `enter`, as it does in layer 0 unless the
    adapter calls `State.begin` itself.
    """

    def __init__(self, state: State, layer: int, begins: bool | None = None) -> None:
        self.state = state
        self.layer = layer
        self.begins = layer == 0 if begins is None else begins
        self._captures: tuple[Method, frozenset[str]] | None = None  # of which method

    @property
    def captures(self) -> frozenset[str]:
        """What the adapter hands over from the layer: `keys`, `query`, `values` [B, H, N, D], of `query` the
        first token alone where only that is asked for; `mlp` [B, N, C]."""
        state = self.state
        if self._captures is None or self._captures[0] is not state.method:
            self._captures = state.method, self._find_captures()
        return self._captures[1]

    def _find_captures(self) -> frozenset[str]:
        state = self.state
        if not state.schedule.may_remove(self.layer):
            return frozenset()
        needs = state.method.needs(state.options)
        attends = bool(needs & {"attention", "cls_attention"})
        compares_keys = state.method.compares and state.options.metric == "keys"
        parts = {"keys": attends or compares_keys, "query": attends}
        parts |= {name: name in needs for name in ("values", "mlp")}
        return frozenset(name for name, wanted in parts.items() if wanted)

    def capture(self, name: str, value: Tensor) -> None:
        """Keep a part of the layer for its merge, if it is one of `captures`."""
        state = self.state
        if name not in self.captures:
            return
        if name == "query" and "attention" not in state.method.needs(state.options):
            value = value[:, :, :1]
        state.current().captured[name] = value

    def enter(self, x: Tensor) -> Tensor | None:
        """Start the layer with features `x` [B, N, C]; returns the attention bias [B, 1, 1, N].

        The bias is log(size) (proportional attention, Section 3.2 of arXiv 2210.09461); None
        where the method does not use it or nothing has merged yet, so that the attention runs as
        it would without a patch.
        """
        state, layer = self.state, self.layer
        forward = state.begin() if self.begins else state.current()
        forward.tokens[layer] = x.shape[1]
        if state.trace and layer == 0:
            eye = torch.eye(x.shape[1], device=x.device, dtype=_wide(x))
            forward.membership[0] = eye.expand(x.shape[0], -1, -1)
        size = forward.size[layer]
        if size is None:
            return None
        if size.shape != x.shape[:2]:
            raise UsageError(
                f"layer {layer} gets {list(x.shape[:2])} tokens, the last forward left {list(size.shape)} "
                "for it: call the whole model, and with gradient checkpointing backward() before the next "
                "forward"
            )
        return size_bias(size, x) if state.options.prop_attn else None

    @property
    def hooks(self) -> frozenset[str]:
        """`captures`, as far as they come from hooks: not where `merge_first` hands them over."""
        return frozenset() if self.merges_first else self.captures

    @property
    def merges_last(self) -> bool:
        return self.state.options.position == "after_block"

    @property
    def merges_first(self) -> bool:
        """Whether tokens merge before the layer's attention, which then runs on what is left."""
        return str(self.state.options.position) == "before_attention"

    def merge_first(
        self, x: Tensor, parts: Callable[[], tuple[Tensor, Tensor, Tensor]], scale: float
    ) -> tuple[Tensor, Tensor | None]:
        """Merge before the attention; `parts()`: queries, keys and values of all tokens. Returns the features
        and the bias for the attention on them."""
        if self.captures:
            for name, part in zip(QKV, parts(), strict=True):
                self.capture(name, part)
        x = self.merge(x, scale)
        size = self.state.current().size[self.layer + 1]
        return x, None if size is None or not self.state.options.prop_attn else size_bias(size, x)

    def arrange(self, x: Tensor, order: Tensor) -> Tensor:
        """Start a layer in another order, `order` [B, N], before `enter`; returns `x` [B, N, C] so.

        For the first layer that may merge: methods want protected tokens first and padding last,
        and attention does not mind.
        """
        self.state.current().order = order
        return x.gather(1, order[..., None].expand_as(x))

    def padding(self) -> Tensor | None:
        """What is padding among the tokens of this layer, in their order: [B, N] or None."""
        forward = self.state.current()
        padding = forward.padding[self.layer]
        return padding if padding is None or forward.order is None else padding.gather(1, forward.order)

    def merge(self, x: Tensor, scale: float) -> Tensor:
        """Merge features `x` [B, N, C] -> [B, M, C] and hand sizes on to the next layer.

        `scale` is the factor on the attention logits of this layer.
        """
        state, layer = self.state, self.layer
        forward = state.current()
        captured, forward.captured = forward.captured, {}
        size, membership, padding = forward.size[layer], forward.membership[layer], self.padding()
        if membership is not None and forward.order is not None:
            membership = membership.gather(1, forward.order[..., None].expand_as(membership))
        order, forward.order = forward.order, None
        move: Move | None = None
        if order is not None:
            stay = positions(len(x), 0, x.shape[1], 1, x.device)
            move = Move(order, stay, stay[:, :0], stay[:, :0])
        remove = self._remove(x.shape[1])
        always = not state.method.guarantees.identity_at_1
        if remove > 0 or (always and state.schedule.may_remove(layer)):
            # Decisions in full precision, whatever the precision of the model.
            with _no_autocast(x.device.type):
                dropped = None if state.method.padding == "merged" else padding
                if size is None:
                    size = ones(x.shape[0], x.shape[1], _wide(x), x.device)
                    size = size if dropped is None else size.masked_fill(dropped, 0)
                plan = self.decide(x, size, captured, scale, padding, remove)
                x, size = plan.carry_out(x, size)
                if isinstance(plan, Plan):
                    move = Move(order, plan.kept, plan.source, plan.target)
                if membership is not None:
                    membership = plan.trace(membership)
                if padding is not None:  # a row is padding where no real token is in it
                    padding = plan.trace(padding.logical_not()[..., None].to(size.dtype))[..., 0] == 0
        forward.size[layer + 1] = size
        forward.membership[layer + 1] = membership
        forward.padding[layer + 1] = padding
        forward.moves[layer + 1] = move
        forward.tokens[layer + 1] = x.shape[1]
        return x

    def decide(
        self,
        x: Tensor,
        size: Tensor,
        captured: Mapping[str, Tensor],
        scale: float,
        padding: Tensor | None,
        remove: int,
    ) -> AnyPlan:
        """What `merge` carries out; apart from it, so that the two can be timed apart."""
        tokens = self._tokens(x, size, captured, scale, padding)
        if padding is None or self.state.method.padding == "merged":
            return self._plan(tokens, remove)
        return self._padded_plan(tokens, padding)

    def _remove(self, n: int) -> int:
        state, method = self.state, self.state.method
        return state.schedule.remove(self.layer, n, state.protected, method.count, method.limit)

    def _plan(self, tokens: Tokens, remove: int | Tensor) -> AnyPlan:
        state = self.state
        plan = state.method.plan(tokens, remove, state.options)
        # Nor while a graph is traced, which would hold the check.
        graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if not graph and not state.checked[self.layer]:
            promise = state.method.guarantees.keeps_protected_first
            state.checked[self.layer] = check_plan(plan, tokens, remove, state.method.name, promise)
        return plan

    def _padded_plan(self, tokens: Tokens, padding: Tensor) -> AnyPlan:
        """The plan of a batch with padding, every sample from its own length."""
        state, n = self.state, tokens.x.shape[1]
        leading = torch.arange(n, device=padding.device) < state.protected
        padding = padding & ~leading  # a method keeps its leading tokens, whatever they are
        real = real_tokens(padding)
        remove = removals(state.schedule, self.layer, real, state.protected, state.method)
        # While compiling no number may be read, so there is room for a sample without padding.
        compiling = torch.compiler.is_compiling()
        rows = n - self._remove(n) if compiling else int((real - remove).max())
        size = torch.where(leading, tokens.size.clamp_min(1), tokens.size)
        tokens = replace(tokens, size=size, padding=padding, rows=rows)
        if state.method.padding == "batch":
            return self._plan(tokens, remove)
        return plan_alone(self._plan, tokens, remove)

    def _tokens(
        self,
        x: Tensor,
        size: Tensor,
        captured: Mapping[str, Tensor],
        scale: float,
        padding: Tensor | None,
    ) -> Tokens:
        state, wide = self.state, _wide(x)
        parts = {name: cast(value, wide) for name, value in captured.items()}
        keys, query = parts.get("keys"), parts.get("query")
        fits = native.fits(x)
        if keys is not None and state.options.metric == "keys":
            fast = native.mean_of_heads(keys) if fits else None
            metric = mean_of_heads(keys) if fast is None else fast
        else:
            metric = cast(x, wide)
        attention = cls_attention = None
        if keys is not None and query is not None:
            bias = _log_size(size) if state.options.prop_attn else None
            if padding is not None:
                bias = torch.zeros_like(size) if bias is None else bias
                bias = bias.masked_fill(padding, torch.finfo(wide).min)
            if "attention" in state.method.needs(state.options):
                attention = attention_map(query, keys, bias, scale)
                cls_attention = attention[:, :, 0].mean(dim=1)
            else:
                cls_attention = class_attention(query, keys, bias, scale)
        return Tokens(
            x=x,
            metric=metric,
            size=size,
            protected=state.protected,
            layer=self.layer,
            depth=state.depth,
            cls_attention=cls_attention,
            attention=attention,
            values=parts.get("values"),
            mlp=parts.get("mlp"),
            native=fits,
        )


class Capture:
    """Forward hook that keeps a module's output, [B, H, N, D] or the MLP's, for the merge of its layer."""

    def __init__(self, layer: LayerPatch, name: str) -> None:
        self.layer = layer
        self.name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.layer.capture(self.name, output)


class CaptureFused(Capture):
    """The same for a projection to queries, keys and values, [B, N, 3 * H * D], of which it keeps `names`."""

    def __init__(self, layer: LayerPatch, heads: int, names: Sequence[str] = QKV) -> None:
        super().__init__(layer, "")
        self.heads = heads
        self.names = names

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        for name, part in zip(QKV, split_heads(output, self.heads), strict=True):
            if name in self.names:
                self.layer.capture(name, part)


def split_heads(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, N, 3 * H * D] -> queries, keys and values [B, H, N, D]."""
    query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value


class Replacement:
    """First base of the class that a module has while it is patched; the other is its own class.

    A class, since replicas of a module (DataParallel) and copies of it find their methods there; a
    function bound to the module would compute with the weights of the original.
    """

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        methods, own = type(self).__bases__  # the class itself has no name to find it by
        return _restore, (methods, own), self.__getstate__()


def replace_methods(module: nn.Module, methods: type[Replacement]) -> None:
    """Give `module` the `methods` instead of its own."""
    module.__class__ = _replaced(methods, type(module))
    _renew_hooked(module)


def restore_methods(module: nn.Module) -> None:
    """Undo `replace_methods`."""
    module.__class__ = type(module).__bases__[1]
    _renew_hooked(module)


def is_hooked(module: nn.Module) -> bool:
    """Whether accelerate's hooks are around the forward of `module`, then an attribute of its own."""
    return {"_hf_hook", "_old_forward"} <= vars(module).keys()


def _renew_hooked(module: nn.Module) -> None:
    """Put the forward of the class of `module` inside accelerate's hooks."""
    if is_hooked(module):
        vars(module)["_old_forward"] = types.MethodType(type(module).forward, module)


_CLASSES: dict[tuple[type, type], Any] = {}


def _replaced(methods: type, own: type) -> Any:
    """The class of a patched module: one for each pair, so that modules of one class stay so."""
    named = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    made = _CLASSES.get((methods, own)) or type(own.__name__, (methods, own), named)
    return _CLASSES.setdefault((methods, own), made)


def _restore(methods: type, own: type) -> Any:
    cls = _replaced(methods, own)
    return cls.__new__(cls)


def remove_hooks(module: nn.Module, kinds: tuple[type, ...]) -> None:
    """Take the hooks of these classes off `module` and its parts."""
    for part in module.modules():
        # By type, not by handle: a copy has hooks of its own.
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, kinds)]:
                del hooks[key]
                part._forward_pre_hooks_with_kwargs.pop(key, None)


class Adapter(ABC):
    """One model of one library: what the patch must know of it, and how to attach and detach.

    A library's file defines HOSTS, the classes of what it can patch, and `adapt(model, host) -> Adapter`
    for one of them in a model; it raises UnsupportedModelError.
    """

    host: nn.Module  # the part of the model that holds the blocks
    entry: nn.Module | None = None  # the part that takes an example; None: the whole model
    depth: int
    protected: int  # leading tokens that never move
    has_class_token: bool
    family: str
    reads_all: str = ""  # why the model cannot go on with merged tokens, in words; "": it can
    dense: bool = False  # whether its outputs have all tokens unless the caller says

    @abstractmethod
    def attach(self, state: State) -> None:
        """Make the blocks of `host` merge as `state` says."""

    @abstractmethod
    def detach(self) -> None:
        """Undo `attach` to the last attribute and hook."""

    @abstractmethod
    def architecture(self, input_size: int | tuple[int, int] | None) -> Architecture:
        """What the closed form of the cost needs, at `input_size`: (height, width), or the number
        of tokens of a text."""

    @abstractmethod
    def example(self, input_size: int | tuple[int, int] | None) -> Tensor:
        """A blank input for one sample, on the device of the weights: an image [1, C, H, W] of
        their type, or token ids [1, N]."""


def refuse_merging_first(state: State, what: str) -> None:
    """Raise UsageError where tokens are to merge before the attention, which `what` has no place for."""
    if str(state.options.position) == "before_attention":
        raise UsageError(
            f"merge={state.method.name}: position=before_attention is not for {what}; use before_mlp"
        )


def size_bias(size: Tensor, x: Tensor) -> Tensor:
    """What an attention over merged tokens adds to its logits: log(size) [B, N] as [B, 1, 1, N], in the
    type the attention computes in for features `x`."""
    dtype = _compute_dtype(x)
    if dtype is size.dtype and native.fits(size) and (bias := native.log_sizes(size)) is not None:
        return bias
    return _log_size(size)[:, None, None].to(dtype)


def check_class(module: nn.Module, expected: type, methods: tuple[str, ...]) -> None:
    """Refuse a module that computes something else than `expected` does.

    Raises UnsupportedModelError if one of `methods` is not that of `expected`, or was replaced on the
    instance.
    """
    library, name, found = expected.__module__.partition(".")[0], expected.__qualname__, type(module)
    for method in methods:
        if getattr(found, method, None) is not getattr(expected, method):
            raise UnsupportedModelError(
                f"cannot patch: looked for {library}'s {name}.{method}, "
                f"found {found.__module__}.{found.__qualname__} with its own"
            )
        if method in vars(module) and not (method == "forward" and is_hooked(module)):
            raise UnsupportedModelError(
                f"cannot patch: {method} of a {name} was replaced already, by another patch; undo that first"
            )


def mean_of_heads(keys: Tensor) -> Tensor:
    """`keys` [B, H, N, D] -> [B, N, D]."""
    if not is_eager_on_cpu(keys) or 1 in keys.shape[:2]:
        return keys.mean(dim=1)
    # Faster than a sum over a dimension that is not the last.
    heads = keys.unbind(dim=1)
    total = heads[0] + heads[1]
    for head in heads[2:]:
        total += head
    return total.div_(len(heads))


def class_attention(query: Tensor, keys: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Attention of the class token alone, averaged over heads: [B, N].

    `query` [B, H, 1, D], `keys` [B, H, N, D], `bias` [B, N] added to the logits.
    """
    # Keys first: a matrix times a vector, for which they need not be copied into another order.
    logits = (keys @ (query * scale).transpose(-2, -1))[..., 0]
    if bias is not None:
        logits = logits + bias[:, None, :]
    return logits.softmax(dim=-1).mean(dim=1)


def attention_map(query: Tensor, keys: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """All of an attention's weights, [B, H, N, N] from `query` and `keys` [B, H, N, D]; `bias` as above."""
    logits = (query * scale) @ keys.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias[:, None, None, :]
    return logits.softmax(dim=-1)


def _in_backward() -> bool:
    """Whether autograd runs this code, as it does where gradient checkpointing runs layers again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _log_size(size: Tensor) -> Tensor:
    # Sizes below 1 (methods that weigh by similarity) must not lift or break the logarithm.
    return size.clamp_min(1).log()


def _wide(x: Tensor) -> torch.dtype:
    """float64 for float64 features, else float32."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type the attention computes in."""
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def _no_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    # The meta device has none to switch off.
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)
