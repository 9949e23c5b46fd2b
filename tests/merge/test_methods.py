"""Every registered method, with every family it knows: what holds for all, what each declares, and a
counter-example for what it does not.

The Hypothesis tests run EXAMPLES cases for each method and family, more than 2,000 in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pitome.merge import registry
from pitome.merge.fast_path import reference_path
from pitome.merge.plan import DensePlan, Plan, Tokens
from tests.merge.support import DEPTH, Variant, dense, each, groups, make_tokens, name_of, reorder, variants

VARIANTS = variants()
EXAMPLES = 30
RATIOS = st.one_of(st.sampled_from([0.5, 1.0]), st.floats(0.5, 1.0))

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
fixed = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)


@st.composite
def situations(draw: Callable, variant: Variant) -> tuple[int, int, int, int]:
    """Tokens, protected ones among them, the layer and the number to remove."""
    protected = variant.protected(draw(st.integers(variant.method.guarantees.needs_class_token, 2)))
    n = draw(st.integers(protected + 1, 24))
    layer = draw(st.integers(0, DEPTH - 1))
    return n, protected, layer, variant.remove(n, protected, draw(RATIOS), layer)


def test_there_are_enough_cases():
    assert len(VARIANTS) * EXAMPLES * 3 >= 2000


# --- What holds for every method ---------------------------------------------------------------


def weights(plan: Plan, x: Tensor) -> Tensor:
    """The plan as a matrix [B, M, N] made from `assignment`, `weight` and `scale` alone."""
    matrix = dense(plan)
    if plan.weight is not None:
        matrix = matrix * plan.weight[:, None, :]
    matrix = matrix / matrix.sum(dim=-1, keepdim=True).clamp_min(1e-300)
    return matrix if plan.scale is None else matrix * plan.scale[..., None]


@every_variant
@fixed
@given(data=st.data())
def test_a_plan_accounts_for_every_token(variant, data):
    n, protected, layer, remove = data.draw(situations(variant))
    tokens = make_tokens(
        n, protected=protected, layer=layer, seed=data.draw(st.integers(0, 10**6)), dtype=torch.float64
    )
    plan = variant.plan(tokens, remove)
    if isinstance(plan, DensePlan):
        assert (plan.n_in, plan.n_out) == (n, n - remove)
        exact = plan.dtype is None or tokens.x.dtype == torch.float64
        assert exact
        torch.testing.assert_close(plan.apply(tokens.x), plan.matrix(torch.float64) @ tokens.x)
        check_promises(variant, tokens, remove)
        return
    # kept and source partition the tokens, and as many leave as were asked to.
    everything = torch.cat([plan.kept, plan.source], dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(n).expand(2, -1))
    assert (plan.n_in, plan.n_out) == (n, n - remove)
    assert ((plan.target >= -1) & (plan.target < plan.n_out)).all()
    # apply is the linear map that the assignment describes; trace and unmerge follow it.
    out = plan.apply(tokens.x)
    torch.testing.assert_close(out, weights(plan, tokens.x) @ tokens.x)
    assert torch.equal(plan.trace(torch.eye(n, dtype=torch.float64).expand(2, -1, -1)), dense(plan))
    restored, rows = plan.unmerge(out), plan.assignment()
    for image in range(2):
        for position, row in enumerate(rows[image].tolist()):
            want = out[image, row] if row >= 0 else torch.zeros(6, dtype=torch.float64)
            assert torch.equal(restored[image, position], want)
    check_promises(variant, tokens, remove)


@every_variant
@fixed
@given(data=st.data())
def test_a_result_does_not_depend_on_the_batch(variant, data):
    n, protected, layer, remove = data.draw(situations(variant))
    tokens = make_tokens(n, batch=3, protected=protected, layer=layer, seed=data.draw(st.integers(0, 10**6)))
    together = variant.plan(tokens, remove)
    out, size = together.apply(tokens.x), together.sizes(tokens.size)
    for i in range(3):
        alone = each(tokens, lambda part, i=i: part[i : i + 1])
        plan = variant.plan(alone, remove)
        if isinstance(plan, Plan):
            assert torch.equal(plan.assignment(), together.assignment()[i : i + 1])
        torch.testing.assert_close(plan.apply(alone.x), out[i : i + 1])
        torch.testing.assert_close(plan.sizes(alone.size), size[i : i + 1])


KINDS = {
    "zero": lambda x: torch.zeros_like(x),
    "equal": lambda x: x[:, -1:].expand_as(x).clone(),
    "pairs": lambda x: x.repeat_interleave(2, dim=1)[:, : x.shape[1]],
    "opposite": lambda x: x[:, :1] * torch.ones_like(x) * (1 - 2 * (torch.arange(x.shape[1]) % 2))[:, None],
    "one_hot": lambda x: torch.nn.functional.one_hot(x.argmax(dim=-1), x.shape[2]).to(x.dtype),
    "huge": lambda x: x * 1000,
    "tiny": lambda x: x * 1e-6,
}


@every_variant
@fixed
@given(data=st.data())
def test_degenerate_tokens_in_every_precision(variant, data):
    n, protected, layer, remove = data.draw(situations(variant))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    tokens = make_tokens(n, protected=protected, layer=layer, seed=data.draw(st.integers(0, 99)), dtype=dtype)
    x = KINDS[kind](tokens.x)
    tokens = replace(
        tokens,
        x=x,
        metric=x.to(tokens.metric.dtype),
        cls_attention=torch.full_like(tokens.cls_attention, 1 / n),
    )
    plan = variant.plan(tokens, remove)
    out, size = plan.apply(x), plan.sizes(tokens.size)
    assert out.dtype == dtype
    assert size.dtype == tokens.size.dtype
    assert out.isfinite().all()
    assert size.isfinite().all()
    if variant.method.name != "diffrate_repo":  # there a negative similarity takes from a size
        assert (size >= 1).all()
    if kind == "equal" and variant.method.guarantees.averages:  # duplicates merge exactly
        eps = torch.finfo(dtype).eps * (4 if isinstance(plan, Plan) else 4 * n)  # which sums n products
        torch.testing.assert_close(out, x[:, : plan.n_out], atol=0, rtol=eps, check_stride=False)


@every_variant
@pytest.mark.parametrize("layer", [0, DEPTH - 1])
def test_gradients_through_features_and_sizes(variant, layer):
    protected = variant.protected(1)
    tokens = make_tokens(7, batch=1, protected=protected, layer=layer, dtype=torch.float64)
    remove = variant.remove(7, protected, 0.6, layer)

    def merge(x, size):
        plan = variant.plan(replace(tokens, x=x, size=size), remove)
        return plan.apply(x), plan.sizes(size)

    inputs = tokens.x.clone().requires_grad_(), tokens.size.clone().requires_grad_()
    assert torch.autograd.gradcheck(merge, inputs)


@every_variant
@pytest.mark.parametrize("layer", [0, DEPTH - 1])
@pytest.mark.parametrize(("n", "leading"), [(16, 1), (17, 2)])
def test_the_cost_of_a_plan_is_what_the_flop_counter_counts(variant, layer, n, leading):
    """On the meta device, so that shapes depend on n and the number to remove alone; on the path on which
    runs are counted."""
    protected = variant.protected(leading)
    tokens = make_tokens(n, protected=protected, layer=layer)
    tokens = each(tokens, lambda part: part.to("meta"))
    if variant.options.metric == "hidden":
        tokens = replace(tokens, metric=tokens.x)
    remove = variant.remove(n, protected, 0.75, layer)
    with FlopCounterMode(display=False) as counter, reference_path():
        plan = variant.plan(tokens, remove)
        assert plan.apply(tokens.x).shape == (2, n - remove, 6)
        assert plan.sizes(tokens.size).shape == (2, n - remove)
    batch, dim = tokens.metric.shape[0], tokens.metric.shape[2]
    macs = variant.method.macs(n, protected, dim, remove, variant.options) if remove else 0
    assert counter.get_total_flops() == 2 * batch * macs


# --- What a method declares --------------------------------------------------------------------


def conserves_mass(variant: Variant, tokens: Tokens, remove: int) -> bool:
    size = variant.plan(tokens, remove).sizes(tokens.size)
    return torch.equal(size.sum(dim=1), tokens.size.sum(dim=1))


def never_prunes(variant: Variant, tokens: Tokens, remove: int) -> bool:
    plan = variant.plan(tokens, remove)
    if isinstance(plan, DensePlan):
        return bool((plan.weights != 0).any(dim=1).all())
    weighs = plan.weight is None or bool((plan.weight > 0).all())
    return weighs and bool((plan.target >= 0).all())


def keeps_protected_first(variant: Variant, tokens: Tokens, remove: int) -> bool:
    p, plan = tokens.protected, variant.plan(tokens, remove)
    if p == 0 and variant.options.protected == 0:
        return False  # of a preset that does not know the class token
    leave = isinstance(plan, DensePlan) or (
        torch.equal(plan.kept[:, :p], torch.arange(p).expand(plan.kept.shape[0], -1))
        and not bool(((plan.target >= 0) & (plan.target < p)).any())
    )
    return (
        leave
        and torch.equal(plan.apply(tokens.x)[:, :p], tokens.x[:, :p])
        and torch.equal(plan.sizes(tokens.size)[:, :p], tokens.size[:, :p])
    )


def identity_at_1(variant: Variant, tokens: Tokens, remove: int) -> bool:
    plan = variant.plan(tokens, 0)
    return torch.equal(plan.apply(tokens.x), tokens.x) and torch.equal(plan.sizes(tokens.size), tokens.size)


def in_groups(variant: Variant, tokens: Tokens, remove: int) -> bool:
    return isinstance(variant.plan(tokens, remove), Plan)


def averages(variant: Variant, tokens: Tokens, remove: int) -> bool:
    """Equal tokens merge into the same token."""
    x = tokens.x[:, -1:].expand_as(tokens.x)
    out = variant.plan(replace(tokens, x=x), remove).apply(x)
    return torch.allclose(out, x[:, : out.shape[1]], rtol=1e-9, atol=1e-9)


def equivariant(variant: Variant, tokens: Tokens, remove: int) -> bool:
    p, n = tokens.protected, tokens.x.shape[1]
    generator = torch.Generator().manual_seed(n)
    order = torch.cat([torch.arange(p), p + torch.randperm(n - p, generator=generator)])
    if not in_groups(variant, tokens, remove):
        first, second = variant.plan(tokens, remove), variant.plan(reorder(tokens, order), remove)
        return torch.allclose(first.apply(tokens.x), second.apply(tokens.x[:, order]))
    moved = groups(variant.plan(reorder(tokens, order), remove))
    names = order.tolist()
    back = [{frozenset(names[i] for i in group) for group in image} for image in moved]
    return back == groups(variant.plan(tokens, remove))


def attend(x: Tensor, size: Tensor, prop_attn: bool) -> Tensor:
    """Self-attention of one head with x as query, key and value, [B, N, C] -> [B, N, C]."""
    logits = x @ x.transpose(1, 2) / x.shape[-1] ** 0.5
    if prop_attn:
        logits = logits + size.log()[:, None, :]
    return logits.softmax(dim=-1) @ x


def proportional(variant: Variant, tokens: Tokens, remove: int) -> bool:
    """Merging equal tokens does not change what attention returns for any token."""
    p = tokens.protected
    x, metric = tokens.x.clone(), tokens.metric.clone()
    x[:, p:], metric[:, p:] = x[:, -1:], metric[:, -1:]
    tokens = replace(tokens, x=x, metric=metric)
    plan = variant.plan(tokens, remove)
    prop_attn = variant.options.prop_attn
    merged = attend(plan.apply(x), plan.sizes(tokens.size), prop_attn)
    want = attend(x, tokens.size, prop_attn)
    if isinstance(plan, DensePlan):  # nothing to go back by, but each row stands for the same token
        return torch.allclose(merged, want[:, : plan.n_out], rtol=1e-9, atol=1e-9)
    got = plan.unmerge(merged)
    return torch.allclose(got, want, rtol=1e-9, atol=1e-9)


def needs_no_class_token(variant: Variant, tokens: Tokens, remove: int) -> bool:
    try:
        variant.plan(replace(tokens, cls_attention=None), remove)  # the map has rows without one too
    except AssertionError:
        return False
    return True


# Promise -> its test and the value of the guarantee that makes the promise.
PROMISES = {
    "conserves_mass": (conserves_mass, True),
    "prunes": (never_prunes, False),
    "proportional": (proportional, True),
    "equivariant": (equivariant, True),
    "keeps_protected_first": (keeps_protected_first, True),
    "identity_at_1": (identity_at_1, True),
    "needs_class_token": (needs_no_class_token, False),
    "groups": (in_groups, True),
    "averages": (averages, True),
}


def check_promises(variant: Variant, tokens: Tokens, remove: int) -> None:
    for name, (holds, promised) in PROMISES.items():
        if getattr(variant.method.guarantees, name) == promised:
            assert holds(variant, tokens, remove), f"{name_of(variant)} breaks {name}"


NOT_PROMISED = [
    (method, name)
    for method in registry.names()
    for name, (_, promised) in PROMISES.items()
    if getattr(registry.get(method).guarantees, name) != promised
]


@pytest.mark.parametrize(("method", "promise"), NOT_PROMISED)
def test_a_counter_example_for_what_is_not_promised(method, promise):
    holds, _ = PROMISES[promise]
    for variant in (v for v in VARIANTS if v.method.name == method):
        protected = variant.protected(1)
        for n in (8, 9, 12, 2):
            for layer in range(DEPTH):
                tokens = make_tokens(n, protected=protected, layer=layer, dtype=torch.float64)
                if not holds(variant, tokens, variant.remove(n, protected, 0.5, layer)):
                    return
    pytest.fail(f"{method} does not promise {promise}, yet no counter-example was found")


@pytest.mark.parametrize("name", [n for n in registry.names() if not n.endswith("_repo")])
def test_bare_methods_keep_protected_tokens_and_do_nothing_at_ratio_1(name):
    guarantees = registry.get(name).guarantees
    assert guarantees.keeps_protected_first
    assert guarantees.identity_at_1
