"""What every registered method must do, on tiny models.

The tests run over `pitome.methods()`, so a new method is tested as soon as it is registered.
Each guarantee a method declares is checked; where it does not declare one, the tests look for a
counter-example, so that a guarantee that holds is declared.

A method of your own, in a file my_method.py of the current directory and registered as `mine`:

    PITOME_IMPORTS=my_method python -m pytest tests/test_suite_methods.py -k mine
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import pitome
from pitome.merge import registry
from pitome.runs.validate import import_modules
from tests.adapters.tiny import GRAPH_ATOL, PATCH, images, mae, patch, vit
from tests.adapters.tiny_text import batch, bert, sentence

import_modules(os.environ.get("PITOME_IMPORTS", "").split())
METHODS = pitome.methods()
RATIOS = (0.95, 0.9, 0.75, 0.6, 0.5)
BUILD = {"deit": vit, "mae": mae}

# Of a method that decides by image: so that images of the tiny models fall on both sides.
OPTIONS: dict[str, dict[str, Any]] = {"ppt": {"threshold": 0.05}}

each_method = pytest.mark.parametrize("name", METHODS)
each_kind = pytest.mark.parametrize("kind", BUILD)


def guarantees(name: str) -> pitome.Guarantees:
    return registry.get(name).guarantees


@dataclasses.dataclass
class Run:
    """One forward pass of a patched model. expected: the token counts the schedule foretells;
    pruned: whether any plan dropped a token or gave it no weight."""

    protected: int
    tokens: list[int]
    expected: list[int]
    size: Tensor  # [B, N_out]
    sources: Tensor  # [B, N_out, N_in]
    pruned: bool


def forward(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def foretell(handle: Any, n: int, protected: int) -> list[int]:
    counts = [n]
    for layer in range(handle.schedule.depth):
        method = handle.method
        counts.append(
            counts[-1] - handle.schedule.remove(layer, counts[-1], protected, method.count, method.limit)
        )
    return counts


class Spy:
    """A plan function that keeps its plans."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        self.plans: list[pitome.Plan] = []

    def __call__(self, tokens: pitome.Tokens, remove: int, options: Any) -> pitome.Plan:
        self.plans.append(self.plan(tokens, remove, options))
        return self.plans[-1]

    def pruned(self) -> bool:
        """Whether a token has no weight in any output row, or is dropped."""
        matrices = [plan.matrix(torch.float64) for plan in self.plans]
        return any((matrix == 0).all(dim=1).any() for matrix in matrices)


def observe(name: str, kind: str, ratio: float, seed: int) -> Run:
    model = BUILD[kind](seed=seed)
    x = images(model, batch=3, seed=seed + 1)
    handle = patch(model, name, ratio=ratio, trace=True, **OPTIONS.get(name, {}))
    spy = Spy(handle.method.plan)
    handle.state.method = dataclasses.replace(handle.method, plan=spy)
    forward(model, x)
    sources = handle.sources
    protected = model.num_prefix_tokens if handle.options.protected is None else handle.options.protected
    return Run(
        protected=model.num_prefix_tokens,
        tokens=handle.tokens,
        expected=foretell(handle, sources.shape[2], protected),
        size=sources.new_ones(sources.shape[:2]) if handle.sizes is None else handle.sizes,
        sources=sources,
        pruned=spy.pruned(),
    )


@functools.cache
def runs(name: str) -> tuple[Run, ...]:
    return tuple(observe(name, kind, ratio, seed) for kind in BUILD for ratio in RATIOS for seed in (0, 1))


# Guarantees


def conserves_mass(run: Run) -> bool:
    total = run.size.sum(dim=1)
    return torch.allclose(total, torch.full_like(total, run.sources.shape[2]), rtol=1e-5)


def keeps_protected_first(run: Run) -> bool:
    """Row i of the first rows holds input token i and nothing else."""
    p = run.protected
    eye = torch.eye(run.sources.shape[2])[:p]
    return torch.equal(run.sources[:, :p], eye.expand(len(run.sources), -1, -1))


@each_method
def test_conserves_mass(name: str) -> None:
    holds = [conserves_mass(run) for run in runs(name)]
    assert all(holds) if guarantees(name).conserves_mass else not all(holds)


@each_method
def test_prunes(name: str) -> None:
    assert any(run.pruned for run in runs(name)) == guarantees(name).prunes
    if not guarantees(name).prunes:
        assert all((run.sources.sum(dim=1) >= 1).all() for run in runs(name))


@each_method
def test_keeps_protected_first(name: str) -> None:
    holds = [keeps_protected_first(run) for run in runs(name)]
    assert all(holds) if guarantees(name).keeps_protected_first else not all(holds)


@each_method
def test_groups_are_disjoint_and_counted(name: str) -> None:
    disjoint = [bool((run.sources.sum(dim=1) <= 1).all()) for run in runs(name)]
    assert all(disjoint) if guarantees(name).groups else not all(disjoint)
    for run in runs(name):
        assert (run.sources.sum(dim=2) >= 1).all(), "an output holds no token"
        assert run.tokens == run.expected
        assert run.sources.shape[1] == run.tokens[-1] == run.size.shape[1]


def grouped(name: str, x: Tensor, model: Any) -> Tensor:
    """[B, N, N]: 1 where two input tokens end in the same output."""
    with patch(model, name, ratio=0.6, trace=True, **OPTIONS.get(name, {})) as handle:
        forward(model, x)
        return handle.sources.transpose(1, 2) @ handle.sources


@each_method
def test_equivariant(name: str) -> None:
    """Without positions, shuffling the patches shuffles the groups and changes nothing else."""
    holds = []
    for seed in range(4):
        model = vit(seed=seed).double()
        model.pos_embed.data.zero_()
        rows, columns = model.patch_embed.grid_size
        patches = torch.randn(rows * columns, PATCH, PATCH, generator=torch.Generator().manual_seed(seed))
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed + 9))
        before, after = (
            grouped(name, assemble(part, rows, columns).double(), model) for part in (patches, patches[order])
        )
        # Token 0 is the class token; token 1 + i of `after` is token 1 + order[i] of `before`.
        index = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])
        same = torch.equal(after, before[:, index][:, :, index])
        if not guarantees(name).groups:  # every token is with every other: look at the output
            x, shuffled = (assemble(part, rows, columns).double() for part in (patches, patches[order]))
            with patch(model, name, ratio=0.6):
                same = torch.allclose(forward(model, x), forward(model, shuffled))
        holds.append(same)
    assert all(holds) if guarantees(name).equivariant else not all(holds)


def assemble(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Patches [rows * columns, P, P] -> image [1, 1, rows * P, columns * P]."""
    grid = patches.view(rows, columns, PATCH, PATCH).transpose(1, 2)
    return grid.reshape(1, 1, rows * PATCH, columns * PATCH)


def merged_difference(name: str, model: Any, patches: Tensor, **how: Any) -> tuple[float, Tensor]:
    """Largest difference between merged and unmerged output where a token is its patch and nothing
    else (no positions), and the sources."""
    model.pos_embed.data.zero_()
    x = assemble(patches, *model.patch_embed.grid_size)
    unmerged = forward(model, x)
    with patch(model, name, trace=True, **how) as handle:
        return (forward(model, x) - unmerged).abs().max().item(), handle.sources


@each_method
@each_kind
def test_proportional(name: str, kind: str) -> None:
    """All patches are equal, so whatever merges is a duplicate: the output is the unmerged one."""
    differences = []
    for seed in range(2):
        patch = torch.randn(1, PATCH, PATCH, generator=torch.Generator().manual_seed(seed))
        model = BUILD[kind](grid=(4, 4), seed=seed)
        differences.append(merged_difference(name, model, patch.expand(16, -1, -1), ratio=0.75)[0])
    assert (max(differences) <= 3e-6) == guarantees(name).proportional


@each_method
@each_kind
def test_proportional_pairs(name: str, kind: str) -> None:
    """Every patch comes twice: where only duplicates meet, the output is the unmerged one."""
    pair = torch.arange(17).add(1).div(2, rounding_mode="floor")  # 0; 1 1; 2 2; ...
    same = (pair[:, None] == pair).float()
    for seed in range(2):
        patches = torch.randn(8, PATCH, PATCH, generator=torch.Generator().manual_seed(seed))
        model = BUILD[kind](grid=(4, 4), seed=seed)
        how = {"ratio": 0.5, "layers": [0]}
        difference, sources = merged_difference(name, model, patches.repeat_interleave(2, dim=0), **how)
        only_duplicates = bool((sources.transpose(1, 2) @ sources <= same).all())
        if guarantees(name).proportional and only_duplicates:
            assert difference <= 3e-6
        if name in ("tome", "pitome"):  # methods that must find them
            assert only_duplicates


@each_method
@each_kind
def test_identity_at_1(name: str, kind: str) -> None:
    model = BUILD[kind]()
    x = images(model)
    unmerged = forward(model, x)
    with patch(model, name, ratio=1.0) as handle:
        assert torch.equal(forward(model, x), unmerged)
        assert handle.sizes is None, "a size, and with it a bias, where nothing merged"
    # A permutation may undo itself over four layers: look at one.
    handle = patch(model, name, ratio=0.999, layers=[3], trace=True)
    output = forward(model, x)
    if name == "diffrate_repo":  # whose first layer takes one token more than the ratio says
        assert handle.tokens[3] == 16
    if guarantees(name).identity_at_1:
        assert torch.equal(output, unmerged)
        assert handle.sizes is None
    else:
        assert not torch.equal(handle.sources, torch.eye(16).expand(2, -1, -1))


@each_method
def test_needs_class_token(name: str) -> None:
    model = mae(class_token=False)
    if guarantees(name).needs_class_token:
        with pytest.raises(pitome.errors.UnsupportedModelError, match="class token"):
            patch(model, name, ratio=0.75)
    else:
        patch(model, name, ratio=0.75)
        assert forward(model, images(model)).isfinite().all()


@pytest.mark.parametrize("name", [name for name in METHODS if not name.endswith("_repo")])
def test_bare_methods_declare_the_basics(name: str) -> None:
    assert guarantees(name).keeps_protected_first
    assert guarantees(name).identity_at_1


# The patch


@each_method
@each_kind
def test_patch_then_remove_leaves_no_trace(name: str, kind: str) -> None:
    model = BUILD[kind]()
    x = images(model)
    unmerged, keys = forward(model, x), list(model.state_dict())
    before = [(set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    handle = patch(model, name, ratio=0.75)
    forward(model, x)
    assert list(model.state_dict()) == keys
    handle.remove()
    after = [(set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert after == before
    assert torch.equal(forward(model, x), unmerged)
    assert pitome.patched(model) is None


@each_method
def test_deepcopy_is_patched_on_its_own(name: str) -> None:
    model = vit()
    x, longer = images(model), images(model, batch=3)
    unmerged = forward(model, x)
    handle = patch(model, name, ratio=0.75)
    model(x).sum().backward()  # leaves tensors with a graph in the state
    merged = forward(model, x)
    twin = copy.deepcopy(model)
    assert torch.equal(forward(twin, x), merged)
    forward(twin, longer)
    assert handle.sizes is None or len(handle.sizes) == 2, "the copy wrote into the original's state"
    pitome.remove(model)
    assert torch.equal(forward(model, x), unmerged)
    assert torch.equal(forward(twin, x), merged)
    pitome.remove(twin)
    assert torch.equal(forward(twin, x), unmerged)


@each_method
def test_two_sizes_in_a_row(name: str) -> None:
    model = vit(dynamic_img_size=True)
    small, large = images(model), images(model, size=(20, 24))
    handle = patch(model, name, ratio=0.75)
    first, counts = forward(model, small), handle.tokens
    forward(model, large)
    assert handle.tokens[0] == 31
    assert torch.equal(forward(model, small), first)
    assert handle.tokens == counts


# Numbers


@each_method
@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_blank_images_stay_finite(name: str, kind: str, dtype: torch.dtype) -> None:
    model = BUILD[kind]().to(dtype)
    handle = patch(model, name, ratio=0.6)
    counts = set()
    for fill in (0.0, 1.0, None):
        x = images(model) if fill is None else torch.full_like(images(model), fill)
        output = forward(model, x.to(dtype))
        assert output.isfinite().all()
        assert output.dtype == dtype
        counts.add(tuple(handle.tokens))
    assert len(counts) == 1


@each_method
def test_autocast(name: str) -> None:
    model = vit()
    x = images(model)
    handle = patch(model, name, ratio=0.6)
    forward(model, x)
    counts = handle.tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = forward(model, x)
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()
    assert handle.tokens == counts
    assert handle.sizes is None or handle.sizes.dtype == torch.float32


@each_method
@each_kind
@pytest.mark.parametrize("patches", [1, 2, 3])
def test_few_tokens(name: str, kind: str, patches: int) -> None:
    model = BUILD[kind](grid=(1, patches))
    for ratio in (0.5, 0.6, 0.75, 0.9, 1.0):
        with patch(model, name, ratio=ratio) as handle:
            assert forward(model, images(model, batch=1)).isfinite().all()
            assert handle.tokens[0] == patches + 1
            assert handle.tokens[-1] >= 1


@each_method
def test_all_ratios_and_batch_of_one(name: str) -> None:
    model = vit(grid=(5, 6))
    x, previous = images(model, batch=1), 0
    for percent in range(50, 101, 5):
        with patch(model, name, ratio=percent / 100) as handle:
            output = forward(model, x)
            assert output.shape == (1, 7)
            assert output.isfinite().all()
            assert handle.tokens[-1] >= previous, "a larger ratio kept fewer tokens"
            previous = handle.tokens[-1]


@each_method
@each_kind
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_gradients_match_finite_differences(name: str, kind: str, fast: bool) -> None:
    """Steps of 1e-6 leave every decision as it is, so the model is smooth between them. fast: along random
    directions, else for each pixel and logit."""
    model = BUILD[kind](grid=(2, 3), dim=8, depth=2).double()
    handle = patch(model, name, ratio=0.6)
    x = images(model, batch=1).double().requires_grad_()
    assert torch.autograd.gradcheck(model, x, atol=1e-6, rtol=1e-4, fast_mode=fast)
    assert handle.tokens[-1] < handle.tokens[0] or name == "none"


@each_method
@pytest.mark.parametrize("kind", [*BUILD, "bert"])
def test_gradients_of_all_weights_match_finite_differences(name: str, kind: str) -> None:
    """Along a random direction of all weights at once; of a text model with padding in its batch."""
    if kind == "bert":
        if registry.get(name).padding == "merged":
            pytest.skip("padding merges with tokens")
        model, inputs = bert().double(), batch([sentence(n) for n in (12, 7)], extra=1)
    else:
        model = BUILD[kind](grid=(2, 3), dim=8, depth=2).double()
        inputs = {"x": images(model).double()}
    handle = (pitome.patch if kind == "bert" else patch)(model, name, ratio=0.6, **OPTIONS.get(name, {}))
    weights = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]

    def loss() -> Tensor:
        output = model(**inputs)
        logits: Tensor = output.logits if kind == "bert" else output
        return logits.square().sum()

    def moved(step: float) -> float:
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=step)
            value = float(loss())
            torch._foreach_add_(weights, direction, alpha=-step)
        return value

    loss().backward()
    pairs = [(w.grad, d) for w, d in zip(weights, direction, strict=True) if w.grad is not None]
    slope = sum(float((gradient * d).sum()) for gradient, d in pairs)
    step = 1e-7
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=1e-5)
    assert handle.tokens[-1] < handle.tokens[0] or name == "none"


@each_method
def test_gradient_checkpointing(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = vit().train()
        model.set_grad_checkpointing(checkpointing)
        patch(model, name, ratio=0.75)
        model(images(model)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for got, want in zip(*gradients, strict=True):
        assert torch.equal(got, want)


# Compilation


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_difference(name: str, backend: str, depth: int = 2) -> float:
    model = vit(depth=depth)
    x = images(model)
    handle = patch(model, name, ratio=0.75)
    eager, counts = forward(model, x), handle.tokens
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    first = forward(compiled, x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        second = forward(compiled, x)
    assert torch.equal(first, second)
    assert handle.tokens == counts
    return (first - eager).abs().max().item()


@each_method
@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.nightly)])
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_to_one_graph(name: str, depth: int) -> None:
    """A second block is the same code with sizes: `test_inductor`."""
    assert compiled_difference(name, "aot_eager", depth) <= GRAPH_ATOL


@pytest.mark.usefixtures("fresh_compiler")
def test_inductor() -> None:
    assert compiled_difference("pitome", "inductor") <= 1e-4


# Text


@each_method
def test_text_of_every_length_in_one_batch(name: str) -> None:
    """On a tiny BERT: padding merges with nothing, except where a preset says so."""
    model = bert()
    sentences = [sentence(n) for n in (19, 6, 1, 2, 12)]
    inputs = batch(sentences, extra=3)
    mask = inputs["attention_mask"]

    def logits(**inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return model(**inputs).logits

    unmerged = logits(**inputs)
    try:
        handle = pitome.patch(model, name, ratio=0.7, trace=True)
    except pitome.errors.UsageError:
        assert name.endswith("_repo"), "only a preset may lack options for a family"
        return
    output = logits(**inputs)
    assert output.isfinite().all()
    sources = handle.sources
    assert (sources.sum(dim=1) <= 1).all() or not guarantees(name).groups, "a token ended in two outputs"
    if registry.get(name).padding != "merged":
        if guarantees(name).conserves_mass and handle.sizes is not None:
            torch.testing.assert_close(handle.sizes.sum(dim=1), mask.sum(dim=1).float())
        holds_real = (sources * mask[:, None, :]).sum(dim=2) > 0
        holds_padding = (sources * (1 - mask)[:, None, :]).sum(dim=2) > 0
        assert not (holds_real & holds_padding).any(), "a token merged with padding"
        alone = torch.cat([logits(input_ids=ids) for ids in sentences])
        torch.testing.assert_close(output, alone, atol=1e-5, rtol=0)
    handle.remove()
    assert torch.equal(logits(**inputs), unmerged)
