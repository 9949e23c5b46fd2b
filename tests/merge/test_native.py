"""The compiled kernel beside the plain path: the same plans, and bit for bit the same features and sizes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import pitome
from pitome.errors import UsageError
from pitome.merge import native, registry
from pitome.merge.fast_path import reference_path
from pitome.merge.plan import Plan, Tokens
from tests.adapters.tiny import images, vit


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    """Where there is no compiler the plain path is all there is."""
    if native.kernel() is None:
        assert not native._compiler(), native.state()
        pytest.skip(native.state())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokens(shape: tuple[int, int, int], protected: int, seed: int = 0) -> Tokens:
    """Random ones of `shape` [B, N, D], for the kernel."""
    make = torch.Generator().manual_seed(seed)
    size = torch.randint(1, 4, shape[:2], generator=make).float()
    metric = torch.randn(shape, generator=make) + torch.randn(shape[2], generator=make)
    return Tokens(metric, metric, size, protected, layer=1, depth=4, native=True)


def both(given: Tokens, remove: int, method: str, **options: Any) -> tuple[Plan, Plan]:
    """The plan of the kernel, and that of the plain path."""
    entry = registry.get(method)
    chosen = entry.resolve(entry.build_options(options), "deit", 4)
    plans = [entry.plan(part, remove, chosen) for part in (given, dataclasses.replace(given, native=False))]
    assert all(isinstance(plan, Plan) for plan in plans)
    return plans[0], plans[1]  # type: ignore[return-value]


def assert_equal(plan: Plan, plain: Plan) -> None:
    for field in dataclasses.fields(Plan):
        ours, theirs = getattr(plan, field.name), getattr(plain, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs, field.name


PLANS = [
    ("pitome", {}),
    ("pitome", {"energy": "elu", "alpha": 0.3}),
    ("pitome", {"energy": "gaussian", "weighted": False}),
    ("pitome", {"protect": "none"}),
    ("pitome", {"protect": "second_half", "margin": 0.2}),
    ("pitome_repo", {}),
    ("tome", {}),
    ("tome", {"weighted": False}),
    ("tofu", {"prune_share": 0.0}),
    ("tofu", {}),
]
SHAPES = [(1, 197, 64), (2, 50, 24), (3, 34, 7), (1, 33, 16), (2, 9, 80), (1, 4, 3)]


@pytest.mark.parametrize(("method", "options"), PLANS)
def test_plans_are_equal(method: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("pitome_plan", "tome_plan"):
        plan = getattr(native, name)
        monkeypatch.setattr(native, name, lambda *a, plan=plan: asked.append("") or plan(*a))
    cases = list(itertools.product(SHAPES, (0, 1, 2)))
    for shape, protected in cases:
        for remove in {1, (shape[1] - protected) // 5 + 1, (shape[1] - protected) // 2}:
            if 0 < remove <= (shape[1] - protected) // 2:
                assert_equal(*both(tokens(shape, protected), remove, method, **options))
    assert len(asked) >= len(cases)


def test_of_equal_tokens_the_first_come_first() -> None:
    metric = torch.full((1, 70, 5), 0.3)
    given = Tokens(metric, metric, metric[..., 0], 1, layer=0, depth=4, native=True)
    plan = both(given, 8, "pitome")[0]
    assert plan.kept[0].tolist() == [0, *range(17, 70), *range(2, 17, 2)]
    assert plan.source[0].tolist() == list(range(1, 17, 2))
    assert plan.target[0].tolist() == [54] * 8  # the row of token 2


@pytest.mark.parametrize("method", ["pitome", "tome"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0, 3e38])
def test_whatever_the_features_every_token_goes_somewhere(method: str, value: float) -> None:
    given = tokens((2, 40, 16), 1)
    given.metric[:, ::3] = value
    given.metric[:, 5, 2] = -value
    plan = both(given, 9, method)[0]
    assert torch.equal(torch.cat([plan.kept, plan.source], 1).sort().values, torch.arange(40).expand(2, -1))
    assert ((plan.target >= 1) & (plan.target < plan.n_out)).all()


@pytest.mark.parametrize("method", ["pitome", "tome"])
def test_more_than_half_is_left_to_the_plain_path(method: str) -> None:
    assert native.pitome_plan(torch.randn(1, 9, 4), 1, 5, True, "paper", 0.9, 1.0) is None
    assert native.tome_plan(torch.randn(1, 9, 4), 1, 5) is None


@given(
    batch=st.integers(1, 3),
    n=st.integers(1, 40),
    share=st.floats(0, 1),
    channels=st.integers(1, 40),
    dropped=st.booleans(),
    weight=st.sampled_from(["none", "size", "other", "zero"]),
    factors=st.booleans(),
    same=st.booleans(),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=150, deadline=None)
def test_a_plan_is_carried_out_bit_for_bit(
    batch: int, n: int, share: float, channels: int, dropped: bool, weight: str, factors: bool, same: bool,
    seed: int,
) -> None:  # fmt: skip
    make = torch.Generator().manual_seed(seed)
    kept = n - int(share * (n - 1))
    order = torch.stack([torch.randperm(n, generator=make) for _ in range(1 if same else batch)])
    target = torch.randint(-1 if dropped else 0, kept, (len(order), n - kept), generator=make)
    size = torch.randint(1, 5, (batch, n), generator=make).float()
    other = torch.rand(batch, n, generator=make)
    plan = Plan(
        *(part.expand(batch, -1) for part in (order[:, :kept], order[:, kept:], target)),
        weight={"none": None, "size": size, "other": other, "zero": other * 0}[weight],
        mass=torch.rand(batch, n, generator=make) if factors else None,
        scale=torch.rand(batch, kept, generator=make) if factors else None,
        whole=not dropped and weight != "zero",
    )
    x = torch.randn(batch, n, channels, generator=make)
    if dropped and kept < n and target[0, 0] == -1:
        x[0, order[0, kept]] = torch.inf
    assert native.fits(x)
    out, sizes = plan.carry_out(x, size)
    assert torch.equal(sizes, plan.sizes(size))
    assert torch.equal(out, plan.apply(x))


def test_a_wrong_index_is_an_error_not_a_crash() -> None:
    x, size = torch.randn(1, 4, 3), torch.ones(1, 4)
    for kept, source, target in (([0, 1, 9], [3], [0]), ([0, 1, 2], [-7], [0]), ([0, 1, 2], [3], [3])):
        plan = Plan(*(torch.tensor([part]) for part in (kept, source, target)), weight=size, whole=True)
        with pytest.raises((IndexError, RuntimeError)):
            plan.carry_out(x, size)


def test_what_is_no_plan_of_these_tokens_is_left_to_the_plain_path() -> None:
    x, size = torch.randn(2, 4, 3), torch.ones(2, 4)
    right = [torch.tensor([part, part]) for part in ([0, 1, 2], [3], [0])]
    done = native.carry_out(x, size, tuple(right), size, size[:, 1:].contiguous())
    assert done is not None and done[0].shape == (2, 3, 3)
    short, narrow = torch.ones(1, 4), torch.ones(2, 3)
    for wrong in range(3):
        for change in (Tensor.int, lambda part: part[:1], lambda part: torch.cat([part, part], 1)):
            indices = [change(part) if at == wrong else part for at, part in enumerate(right)]
            assert native.carry_out(x, size, tuple(indices), None, None) is None
    for factors in ((short, size, narrow), (size, short, narrow), (size, narrow, narrow), (size, size, size)):
        assert native.carry_out(x, factors[0], tuple(right), *factors[1:]) is None


def test_the_default_device_is_that_of_no_index() -> None:
    x = tokens((1, 9, 4), 1)
    with torch.device("meta"):
        plans = [
            native.pitome_plan(x.metric, 1, 2, True, "paper", 0.9, 1.0),
            native.tome_plan(x.metric, 1, 2),
        ]
    assert all(plan is not None and plan[0].device.type == "cpu" for plan in plans)


def test_mean_of_heads_and_log_of_sizes() -> None:
    keys = torch.randn(2, 9, 3, 5, 12).permute(2, 0, 3, 1, 4)[1]
    mean = native.mean_of_heads(keys)
    assert mean is not None
    heads = [head.contiguous() for head in keys.unbind(1)]
    assert torch.equal(mean, (sum(heads[1:], heads[0])) / 5)
    size = torch.tensor([[0.0, 0.5, 1, 2, 3, 197, torch.nan]])
    bias = native.log_sizes(size)
    assert bias is not None
    torch.testing.assert_close(bias[:, 0, 0], size.clamp_min(1).log(), equal_nan=True)


def wrapped(x: Tensor) -> bool:
    seen: list[bool] = []
    torch.func.vmap(lambda row: seen.append(native.fits(row[None])) or row)(x)
    return seen[0]


def traced(x: Tensor) -> bool:
    seen: list[bool] = []
    torch.jit.trace(lambda x: seen.append(native.fits(x)) or x + 1, x, check_trace=False)
    return seen[0]


def faked(x: Tensor) -> bool:
    with FakeTensorMode() as mode:
        return native.fits(x) or native.fits(mode.from_tensor(x))


def dual(x: Tensor) -> bool:
    with forward_ad.dual_level():
        return native.fits(forward_ad.make_dual(x, x))


def counted(x: Tensor) -> bool:
    with reference_path():
        return native.fits(x)


def on_two_threads(x: Tensor) -> bool:
    torch.set_num_threads(2)
    assert native.fits(x[:1])
    return native.fits(x)


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: native.fits(x.double()),
        lambda x: native.fits(x.bfloat16()),
        lambda x: native.fits(x.requires_grad_()),
        lambda x: native.fits(x.to("meta")),
        lambda x: native.fits(torch.nn.Parameter(x, requires_grad=False)),
        lambda x: native.fits(x.expand(2, 2000, 4)),
        lambda x: native.carry_out(x.mT, x[..., 0], (torch.arange(4)[None],) * 3, None, None) is not None,
        *(wrapped, traced, faked, dual, counted, on_two_threads),
    ],
)
def test_elsewhere_the_plain_path_runs(refused: Callable[[Tensor], bool]) -> None:
    x = torch.randn(2, 1, 4)
    assert native.fits(x)
    assert not refused(x)


@pytest.mark.parametrize("method", ["pitome", "tome", "tofu", "random", "stride", "diffrate", "tome_repo"])
def test_a_model_runs_on_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit(
        grid=(5, 6), class_token=method != "stride", global_pool="token" if method != "stride" else "avg"
    )
    inputs, used = images(model, 1), []
    carry_out = native.carry_out
    monkeypatch.setattr(native, "carry_out", lambda *a: used.append("") or carry_out(*a))
    with torch.no_grad(), pitome.patch(model, method, ratio=0.8, trace=True) as patched:
        output, sources = model(inputs), patched.sources
        assert torch.equal(model(inputs), output)
        assert len(used) == 2 * 4  # layers
        monkeypatch.setattr(native, "fits", lambda x: False)
        torch.testing.assert_close(model(inputs), output)
        assert torch.equal(patched.sources, sources)


def test_training_has_the_plain_paths_gradient() -> None:
    model = vit(grid=(5, 6))
    inputs = images(model, 1)
    with pitome.patch(model, "pitome", ratio=0.8):
        with torch.no_grad():
            model(inputs)  # on the kernel
        model(inputs).sum().backward()
        gradient = model.patch_embed.proj.weight.grad.clone()
        model.zero_grad()
        with reference_path():
            model(inputs).sum().backward()
    torch.testing.assert_close(gradient, model.patch_embed.proj.weight.grad)


@pytest.fixture
def made_anew() -> Iterator[None]:
    native._made.cache_clear()
    yield
    native._made.cache_clear()


@pytest.mark.parametrize(
    ("variables", "state"),
    [
        ({"PITOME_NATIVE": "off"}, "plain path: PITOME_NATIVE=off"),
        ({"PATH": ""}, "plain path: no C compiler found (cc, gcc or clang, or CC)"),
        ({"CC": "false"}, "plain path: false fails: without a word"),
        ({"CC": "env -u NOTHING gcc"}, "compiled by env NOTHING gcc"),
        ({"CC": "gcc '"}, "plain path: No closing quotation"),
        ({"PITOME_CACHE": "/proc/none"}, "plain path: /proc/none/arrays cannot be written"),
        ({"PITOME_CACHE": "~no-such-user/x"}, "plain path: Could not determine home directory"),
        ({"PITOME_NATIVE": "on"}, "compiled by "),
    ],
)
def test_how_it_is_made(
    variables: dict[str, str], state: str, monkeypatch: pytest.MonkeyPatch, made_anew: None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert native.state().startswith(state)
    assert (native.kernel() is None) == state.startswith("plain")
    assert native.fits(torch.ones(1, 2, 3)) == state.startswith("compiled")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PITOME_NATIVE": "on", "PATH": ""}, "but there is no compiled kernel: no C compiler found"),
        ({"PITOME_NATIVE": "on", "CC": "false"}, "false fails"),
        ({"PITOME_NATIVE": "yes"}, "PITOME_NATIVE=yes: give auto, on or off"),
    ],
)
def test_what_is_insisted_on_in_vain_is_one_line(
    variables: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch, made_anew: None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=line) as problem:
        pitome.patch(vit(), "tome", ratio=0.9)
    assert "\n" not in str(problem.value)
