"""The state of a forward belongs to the forward: threads, replicas, copies in other processes, graphs."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pitome
from pitome.errors import UsageError
from tests.adapters import tiny, tiny_clip, tiny_text, tiny_vision

# Every adapter, and within one every kind of block, pool and hook.
Build = Callable[[], tuple[Any, dict[str, Any]]]


def text(build: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    return build(), tiny_text.batch([tiny_text.sentence(n) for n in (9, 14)])


def vision(build: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    return build(), {"pixel_values": tiny_vision.images()}


MODELS: dict[str, Build] = {
    "vit": lambda: ((model := tiny.vit()), {"x": tiny.images(model)}),
    "mae": lambda: ((model := tiny.mae()), {"x": tiny.images(model)}),
    "open_clip": lambda: (tiny_clip.tower(), {"x": tiny_clip.images()}),
    "bert": lambda: text(tiny_text.bert),
    "distilbert": lambda: text(tiny_text.distilbert),
    "clip": lambda: vision(tiny_vision.clip),
    "siglip": lambda: vision(tiny_vision.siglip),
    "blip": lambda: vision(tiny_vision.blip),
}
each_model = pytest.mark.parametrize("kind", MODELS)


def run(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return first(model(**inputs))


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[-1] if len(output) > 1 else output[0]


def patched(kind: str, method: str = "tome") -> tuple[Any, dict[str, Any], pitome.Patched]:
    model, inputs = MODELS[kind]()
    return model, inputs, pitome.patch(model, method, ratio=0.7)


def sample(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    """Inputs of another forward: the samples in another order, numbers that differ from call to call."""
    changed = {}
    for name, value in inputs.items():
        value = value.roll(index, dims=0)
        changed[name] = value * (1 + 0.1 * index) if value.is_floating_point() else value
    return changed


@each_model
def test_four_threads_get_the_numbers_of_one(kind: str) -> None:
    model, inputs, handle = patched(kind)
    several = [sample(inputs, index) for index in range(4)]
    want = [run(model, each) for each in several]

    def work(index: int) -> list[tuple[Tensor, list[int]]]:
        return [(run(model, several[index]), handle.tokens) for _ in range(12)]

    with ThreadPoolExecutor(4) as pool:
        for index, results in enumerate(pool.map(work, range(4))):
            for got, tokens in results:
                assert torch.equal(got, want[index])
                assert tokens == handle.tokens


def test_a_thread_waits_inside_a_layer_while_another_runs() -> None:
    """One forward starts and ends while another one stands between two layers."""
    model = tiny.vit()
    handle = pitome.patch(model, "pitome", ratio=0.7)
    x, other = tiny.images(model), tiny.images(model, batch=3, seed=5)
    want = run(model, {"x": x})
    with ThreadPoolExecutor(1) as pool:

        def interrupt(module: nn.Module, args: tuple[Tensor]) -> None:
            if len(args[0]) == 2:
                pool.submit(run, model, {"x": other}).result()

        hook = model.blocks[2].register_forward_pre_hook(interrupt)
        assert torch.equal(run(model, {"x": x}), want)
        hook.remove()
    assert handle.sizes is not None and len(handle.sizes) == 2, "the handle shows this thread's forward"


@each_model
def test_replicas_run_their_own_weights(kind: str) -> None:
    """As DataParallel makes them: modules with the same attributes and other parameters."""
    model, inputs, _ = patched(kind)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    want = run(other, inputs)
    assert not torch.equal(want, run(model, inputs))
    assert torch.equal(run(replica(model, dict(other.named_parameters())), inputs), want)


def replica(model: nn.Module, parameters: dict[str, nn.Parameter]) -> nn.Module:
    """A copy as torch.nn.parallel.replicate makes it, which needs CUDA."""
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for name, module in model.named_modules():
        for child, part in module._modules.items():
            if part is not None:
                copies[module]._modules[child] = copies[part]
        for key in module._parameters:
            full = f"{name}.{key}".removeprefix(".")
            copies[module]._parameters[key] = None
            if full in parameters:
                del copies[module]._parameters[key]
                vars(copies[module])[key] = parameters[full].detach()
    return copies[model]


@each_model
@pytest.mark.parametrize("used", [False, True])
def test_pickle_and_save_keep_the_patch(kind: str, used: bool) -> None:
    model, inputs, handle = patched(kind, "pitome_repo" if kind != "siglip" else "pitome")
    want = run(model, inputs)
    if not used:
        model, inputs, handle = patched(kind, handle.method.name)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for loaded in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        again = pitome.patched(loaded)
        assert again is not None and again.method.name == handle.method.name
        assert (again.options, again.schedule, again.layers) == (
            handle.options,
            handle.schedule,
            handle.layers,
        )
        assert type(loaded) is type(model) and loaded.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(run(loaded, inputs), want)
        pitome.remove(loaded)
        pitome.remove(copied := copy.deepcopy(model))
        assert torch.equal(run(loaded, inputs), run(copied, inputs))


def count_tokens(model: Any, x: Tensor) -> tuple[list[int], Tensor]:
    output, handle = run(model, {"x": x}), pitome.patched(model)
    assert handle is not None
    return handle.tokens, output


@pytest.mark.nightly
def test_a_spawned_process_gets_a_patched_model() -> None:
    model = tiny.vit()
    handle = pitome.patch(model, "pitome", ratio=0.7)
    x = tiny.images(model)
    want = run(model, {"x": x})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tokens, got = pool.apply(count_tokens, (model, x))
    assert tokens == handle.tokens
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", ["vit", pytest.param("mae", marks=pytest.mark.nightly), "open_clip"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_trace_as_the_first_call(kind: str) -> None:
    model, inputs, _ = patched(kind)
    traced = torch.jit.trace(model, inputs["x"])
    assert torch.equal(traced(inputs["x"]), run(model, inputs))
    other = sample(inputs, 1)
    torch.testing.assert_close(traced(other["x"]), run(model, other))


@each_model
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: nn.Sequential(nn.Identity(), model)])
def test_script_says_that_it_cannot(kind: str, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, _, handle = patched(kind)
    with pytest.raises(UsageError, match=r"cannot be scripted.*use torch\.jit\.trace"):
        torch.jit.script(wrap(model))
    handle.remove()
    assert not hasattr(model, "__prepare_scriptable__")


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_in_threads(reentrant: bool) -> None:
    """Layers run again in the backward pass find the forward that they belong to."""
    model = tiny.vit()
    pitome.patch(model, "pitome", ratio=0.7)

    def gradient(features: Tensor) -> Tensor | None:
        x = y = features.clone().requires_grad_()
        for block in model.blocks:
            y = checkpoint(block, y, use_reentrant=reentrant)
        model.pool(y).square().sum().backward()  # reentrant checkpoints know no autograd.grad
        return x.grad

    several = [torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    want = [gradient(x) for x in several]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(gradient, several), want, strict=True):
            torch.testing.assert_close(got, expected)
