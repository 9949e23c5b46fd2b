"""Closed-form cost of a transformer whose layers remove tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pitome.errors import UsageError
from pitome.fields import fits
from pitome.merge.registry import Method
from pitome.merge.schedule import Reduction, Schedule, parse_layers

# Below one half the published methods find no partner for every token.
LEAST_RATIO = 0.5


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates of one block, for one image."""

    attn_token: int  # of the attention's projections, per token
    attn_pair: int  # of the attention product (scores and values), per pair of tokens
    mlp_token: int  # of the MLP, per token
    metric_dim: int  # width of the keys once averaged over heads
    hidden_dim: int  # width of the features
    heads: int
    attn_inputs: int = 0  # of attn_token, the projections to queries, keys and values


@dataclass(frozen=True)
class Architecture:
    """What a closed form needs to know of a model at one input size."""

    tokens: int  # entering the first block, protected ones counted
    protected: int
    layers: tuple[LayerCost, ...]
    stem: int  # MACs of the patch embedding
    head: int  # MACs of everything after the last block, but for those of `pool_token`
    patches: int  # tokens made by the patch embedding
    classes: int  # outputs of the head
    patch_inputs: int  # numbers in one patch (C * p * p)
    family: str  # deit, mae, clip, ...
    pool_token: int = 0  # MACs after the last block per token left there (an attention pool's)


@dataclass(frozen=True)
class ClosedForm:
    """Multiply-accumulates of one forward pass for one image, by part."""

    tokens: tuple[int, ...]  # entering each block, then the final count (L + 1 numbers)
    stem: int  # the patch embedding
    attention_macs: int  # all blocks together
    mlp_macs: int  # all blocks together
    # What the merge method itself computes: its matrix products and, where it reads attention, the class
    # token's row of scores, or the whole map of them.
    plan_macs: int
    head: int  # everything after the last block

    @property
    def macs(self) -> int:
        """Multiply-accumulates, all parts."""
        return self.model_macs + self.plan_macs

    @property
    def model_macs(self) -> int:
        """Multiply-accumulates of the model alone, without the merge method's own."""
        return self.stem + self.attention_macs + self.mlp_macs + self.head

    @property
    def flops(self) -> int:
        """Floating point operations: two per multiply-accumulate."""
        return 2 * self.macs


Mixture = Sequence[tuple[Architecture, int]]
"""A model at several input sizes, each with how many samples have it."""


def mixture_macs(
    mixture: Mixture, schedule: Schedule | None = None, method: Method | None = None, options: Any = None
) -> int:
    """Of all samples of a mixture together, see `closed_form`."""
    return sum(count * closed_form(at, schedule, method, options).macs for at, count in mixture)


def closed_form(
    architecture: Architecture,
    schedule: Schedule | None = None,
    method: Method | None = None,
    options: Any = None,
) -> ClosedForm:
    """Cost of one image from the schedule alone, without running the model.

    Attention is paid at the tokens that enter a block, the MLP at those the merge leaves; with
    `options.position == "after_block"` both at those that enter, with `before_attention` both at those it
    leaves, and the projections of all that enter once more for the map. `options` are resolved for the
    model's family (`Method.resolve`). Without a schedule: the unmerged model. Only matrix products
    and convolutions count, as in torch's FlopCounterMode.
    """
    n = architecture.tokens
    tokens, attention, mlp, plan = [n], 0, 0, 0
    for index, layer in enumerate(architecture.layers):
        entering = n
        if schedule is not None and method is not None:
            protected = architecture.protected if options.protected is None else options.protected
            remove = schedule.remove(index, n, protected, method.count, method.limit)
            if remove > 0 or (schedule.may_remove(index) and not method.guarantees.identity_at_1):
                dim = layer.metric_dim if options.metric == "keys" else layer.hidden_dim
                given = (n, protected, dim, remove, options)
                plan += method.layer_macs(*given, index) if method.layer_macs else method.macs(*given)
                needs = method.needs(options)
                if "attention" in needs:  # all queries against all keys, in every head
                    plan += layer.heads * layer.metric_dim * n * n
                elif "cls_attention" in needs:
                    plan += layer.heads * layer.metric_dim * n
            if schedule.may_remove(index) and options.position == "before_attention":
                plan += n * layer.attn_inputs
            n -= remove
        position = "before_mlp" if schedule is None else options.position
        after_block = position == "after_block"
        attends = n if position == "before_attention" else entering
        attention += attends * layer.attn_token + attends * attends * layer.attn_pair
        mlp += (entering if after_block else n) * layer.mlp_token
        tokens.append(n)
    head = architecture.head + n * architecture.pool_token
    return ClosedForm(tuple(tokens), architecture.stem, attention, mlp, plan, head)


def ratio_for_share(
    architecture: Architecture | Mixture,
    share: float,
    method: Method,
    options: Any,
    layers: str | Sequence[int] | None = None,
) -> float:
    """The largest ratio whose closed-form cost is at most `share` of the unmerged cost; of a mixture, that of
    all its samples together.

    Without the plan's own cost, the cost is a step function that never falls as the ratio grows,
    so the last float within the budget is found by bisection. The plan's cost does not follow
    the ratio (a layer that removes one token pays nearly as much for it as one that removes
    fifty), so from there the steps are walked down until the whole cost fits.

    One ratio for all layers moves in steps, since layers remove whole tokens. With 197 tokens and 12 blocks
    neighbouring ratios are less than 0.7 % of the unmerged cost apart (0.9 % where a method computes the
    whole attention map), so the target is met to 1 %; with few tokens or few merging layers the steps, and
    the distance, are larger.

    Raises UsageError for a share outside (0, 1], and for one that ratio 0.5, where every token
    finds a partner, does not reach; the message names the least share that can be reached.
    """
    fits(Reduction, "flops", share)
    mixture: Mixture = ((architecture, 1),) if isinstance(architecture, Architecture) else architecture
    depth = len(mixture[0][0].layers)
    chosen = parse_layers(layers, depth)

    def forms(ratio: float) -> list[ClosedForm]:
        rule = Schedule(ratios=tuple(ratio if layer in chosen else 1.0 for layer in range(depth)))
        return [closed_form(at, rule, method, options) for at, _ in mixture]

    def total(macs: Iterable[int]) -> int:
        return sum(count * each for (_, count), each in zip(mixture, macs, strict=True))

    def step_down(ratio: float) -> float:
        """The next lower ratio at which any layer removes another number of tokens."""
        tokens = [form.tokens for form in forms(ratio)]
        return _last(lambda q: [form.tokens for form in forms(q)] != tokens, ratio)

    unmerged = mixture_macs(mixture)
    budget, least = share * unmerged, total(form.macs for form in forms(LEAST_RATIO))
    if least > budget:
        # Rounded up, so that the share the message names is itself accepted.
        reachable = math.ceil(1e4 * least / unmerged) / 1e4
        raise UsageError(
            f"flops={share} cannot be reached with merge={method.name}: ratio {LEAST_RATIO} leaves "
            f"{reachable:.4f} of the unmerged cost; give at least that, or merge in more layers"
        )
    ratio = _last(lambda q: total(form.model_macs for form in forms(q)) <= budget, 1.0)
    while total(form.macs for form in forms(ratio)) > budget:
        ratio = step_down(ratio)
    return ratio


def _last(holds: Callable[[float], bool], high: float) -> float:
    """The last float in [LEAST_RATIO, high] at which `holds`, true at first and then false, is true."""
    if holds(high):
        return high
    low = LEAST_RATIO
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


# (family, method) -> at which tokens the attention and the MLP of a block are counted, and
# whether patch embedding and classifier are added, where that is not _ENTERING.
_ENTERING = ("in", "in", False)
_LEAVING = ("out", "out", False)
_AUTHORS = {
    ("deit", "dct"): _LEAVING,
    ("deit", "diffrate"): ("in", "out", True),
    ("mae", "diffrate"): ("in", "out", True),
    ("mae", "tome"): ("in", "in", True),
    ("mae", "tofu"): ("in", "in", True),
    ("distilbert", "dct"): _ENTERING,
}
_AUTHORS_FAMILY = {"eva": _LEAVING, "bert": _LEAVING, "distilbert": _LEAVING}


def authors_macs(architecture: Architecture, tokens: Sequence[int], method_name: str) -> int:
    """MACs of one image as the PiToMe repository reports them (hchautran/PiToMe at 550b5de).

    Per block 12 N C^2 + 2 N^2 C, whatever the real width of the MLP; which N, and whether patch
    embedding and classifier are added, depends on the model's family and the method. `tokens`
    are those entering each block, then the final count. A published method (`tome`) is counted
    as the repository's method of that name (`tome_repo`); what the repository does not have
    (`none`, `random`, a user's own method) as its PiToMe, an unknown family as DeiT.
    """
    name = method_name.removesuffix("_repo")
    family_row = _AUTHORS_FAMILY.get(architecture.family, _ENTERING)
    attention_at, mlp_at, whole = _AUTHORS.get((architecture.family, name), family_row)
    width, total = architecture.layers[0].hidden_dim, 0
    for entering, leaving in itertools.pairwise(tokens):
        a = entering if attention_at == "in" else leaving
        m = entering if mlp_at == "in" else leaving
        total += 4 * a * width**2 + 2 * a**2 * width + 8 * m * width**2
    if whole:
        # The authors embed the class token as if it were one more patch.
        total += (architecture.patches + 1) * width * architecture.patch_inputs + width * architecture.classes
    return total
