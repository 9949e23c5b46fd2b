"""Constants that are kept between forwards."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import pitome
from pitome.merge import fast_path
from pitome.merge.fast_path import made_once
from pitome.merge.plan import positions
from tests.adapters.tiny import images, vit

CPU = torch.device("cpu")


def test_the_next_call_gets_the_same_tensor() -> None:
    first = positions(2, 0, 5, 1, CPU)
    assert first.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert positions(2, 0, 5, 1, CPU) is first
    assert positions(2, 0, 5, 2, CPU).tolist() == [[0, 2, 4]] * 2


def test_what_inference_made_serves_training() -> None:
    with torch.inference_mode():
        assert not positions(1, 0, 1234, 1, CPU).is_inference()


def test_fake_tensors_are_not_kept_nor_given_real_ones() -> None:
    real = positions(1, 0, 77, 1, CPU)
    with FakeTensorMode():
        assert isinstance(positions(1, 0, 77, 1, CPU), FakeTensor)
        assert isinstance(positions(1, 0, 78, 1, CPU), FakeTensor)
    assert positions(1, 0, 77, 1, CPU) is real
    assert not isinstance(positions(1, 0, 78, 1, CPU), FakeTensor)


def test_what_a_transform_of_functions_made_is_not_kept() -> None:
    def some(x: torch.Tensor) -> torch.Tensor:
        return (x * positions(1, 0, 79, 1, CPU)[0]).sum()

    gradient = torch.func.grad(some)(torch.ones(79))
    assert gradient.tolist() == list(range(79))
    assert type(positions(1, 0, 79, 1, CPU)) is torch.Tensor
    assert not torch._C._functorch.is_functorch_wrapped_tensor(positions(1, 0, 79, 1, CPU))


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path, "KEPT", 3)
    made = []

    @made_once
    def number(value: int, device: torch.device) -> torch.Tensor:
        made.append(value)
        return torch.tensor(value, device=device)

    for value in (0, 1, 2, 2, 3, 3, 0):
        assert number(value, CPU).item() == value
    assert made == [0, 1, 2, 3, 0]


def without_gradient(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def test_a_forward_writes_to_none_of_them() -> None:
    """Several methods, models, batches and threads use the same constants."""
    model = vit()
    inputs = {batch: images(model, batch) for batch in (1, 3)}
    for method in ("pitome", "tome", "random", "stride", "diffrate"):
        with torch.no_grad(), pitome.patch(model, method, ratio=0.8):
            want = {batch: model(x) for batch, x in inputs.items()}
            copies = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))] * 2
            with ThreadPoolExecutor(6) as pool:
                for output in pool.map(without_gradient, copies, [inputs[3]] * 6):
                    assert torch.equal(output, want[3])
            assert torch.equal(model(inputs[1]), want[1])
