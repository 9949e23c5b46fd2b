"""docs/vqa_flops.md: follows from the code, and its closed forms are what is counted on a 7B-shaped model."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
import yaml

import pitome
from pitome.measure.flops import count_flops
from pitome.tasks.vqa.costs import answering
from pitome.tasks.vqa.models import build_model
from tests import ROOT


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("vqa_flops", ROOT / "scripts" / "vqa_flops.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(script: Any) -> None:
    assert script.PAGE.read_text() == script.page()


def test_a_row_is_what_is_counted(script: Any) -> None:
    config = yaml.safe_load((ROOT / "conf" / "model" / "llava_7b.yaml").read_text())
    config["args"]["text_config"]["num_hidden_layers"] = 2
    with torch.device("meta"):
        model = build_model(config)
        image = torch.zeros(1, 3, 336, 336)
    with pitome.patch(model, "pitome_repo", ratio=0.9):
        rows = model.image_rows
        tower = count_flops(model.image_tower, image).macs
        found = answering(model.model, rows, script.TEXT)
    assert rows == 54
    assert f"| `pitome_repo` | 0.9 | 54 | {tower / 1e9:.2f} |" in script.PAGE.read_text()
    assert found.prefill == found.prefill_closed and found.decode == found.decode_closed
