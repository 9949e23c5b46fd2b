"""The path that runs equals the plain one: whole similarity matrix, attention written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import pitome
from pitome.adapters.core import mean_of_heads
from pitome.merge.fast_path import reference_path
from pitome.tasks.classification import models as vision
from tests import DATA, ROOT
from tests.configs import model_of

CONF = ROOT / "conf" / "model" / "vit_fmnist.yaml"
METHODS = ["pitome", "tome", "tofu", "diffrate", "pitome_repo", "tome_repo", "tofu_repo", "diffrate_repo"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Trained weights: random ones would decide by the last bit."""
    return vision.build_vision_model(model_of(yaml.safe_load(CONF.read_text()))).model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """The first 64 test images of Fashion-MNIST (MIT license), [64, 1, 28, 28]."""
    sheet = np.asarray(Image.open(DATA / "fashion_mnist.png")).reshape(8, 28, 8, 28)
    pixels = torch.from_numpy(sheet.swapaxes(1, 2).reshape(64, 1, 28, 28).copy())
    return (pixels / 255 - 0.286) / 0.353


def fast(model: nn.Module, images: Tensor, method: str) -> Tensor:
    """Logits [B, 10] of the path that runs."""
    with torch.no_grad(), pitome.patch(model, method, ratio=0.9):
        logits: Tensor = model(images)
        return logits


def plain(model: nn.Module, images: Tensor, method: str, attention: SDPBackend = SDPBackend.MATH) -> Tensor:
    """Logits [B, 10] of the plain path."""
    with reference_path(), sdpa_kernel(attention):
        return fast(model, images, method)


@pytest.mark.parametrize("method", METHODS)
def test_equal_in_float64(model: nn.Module, images: Tensor, method: str) -> None:
    """Where rounding decides nothing, every decision and every output is the same."""
    given = copy.deepcopy(model).double(), images[:8].double(), method
    torch.testing.assert_close(fast(*given), plain(*given), atol=1e-9, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_equal_in_float32(model: nn.Module, images: Tensor, method: str) -> None:
    given = model, images[:8], method
    torch.testing.assert_close(fast(*given), plain(*given), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=METHODS)
def rounded(
    request: pytest.FixtureRequest, model: nn.Module, images: Tensor
) -> tuple[tuple[nn.Module, Tensor, str], Tensor]:
    """What a forward in bfloat16 takes, and the classes [32] of the path that runs."""
    given = copy.deepcopy(model).bfloat16(), images[:32].bfloat16(), request.param
    return given, fast(*given).argmax(-1)


def test_the_same_class_in_bfloat16(rounded: tuple[tuple[nn.Module, Tensor, str], Tensor]) -> None:
    """Decisions are taken in float32, so the merging changes no class."""
    given, classes = rounded
    assert torch.equal(plain(*given, SDPBackend.FLASH_ATTENTION).argmax(-1), classes)


def test_nearly_always_the_same_class_in_bfloat16(
    rounded: tuple[tuple[nn.Module, Tensor, str], Tensor],
) -> None:
    """Another attention rounds its 8 bits otherwise; now and then that decides what merges later."""
    given, classes = rounded
    assert (plain(*given).argmax(-1) == classes).float().mean() >= 0.9


@pytest.mark.parametrize("heads", [1, 2, 3, 12])
def test_mean_of_heads(heads: int) -> None:
    keys = torch.randn(2, 5, 3, heads, 4, dtype=torch.float64).permute(2, 0, 3, 1, 4)[1]
    before = keys.clone()
    torch.testing.assert_close(mean_of_heads(keys), keys.mean(dim=1))
    assert torch.equal(keys, before)
