"""weights=FOLDER: the files of several models in one place, so that one sweep has them all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pitome.config import choices, load_model
from pitome.errors import CheckpointError
from pitome.sources import weights
from pitome.sources.weights import find_weights
from pitome.tasks.checks import checks_of
from tests.test_conf import config_of

URL = "https://example.org/files/mae_large.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "mae_large.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "deit_s.safetensors")
    return tmp_path


def test_a_file_under_the_urls_name_or_the_models(folder: Path) -> None:
    assert find_weights("mae_l", URL, str(folder)).path == folder / "mae_large.pth"
    assert find_weights("deit_s", "hub:timm/deit@main", str(folder)).path == folder / "deit_s.safetensors"


def test_what_is_on_the_hub_need_not_be_there(folder: Path) -> None:
    found = find_weights("deit_t", "hub:timm/deit@main", str(folder))
    assert (found.source, found.name) == ("hub", "timm/deit")


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no mae_huge\.pth: download https://example\.org"):
        find_weights("mae_h", "https://example.org/mae_huge.pth", str(folder))


@pytest.mark.parametrize(
    "name", [name for name in choices("model") if load_model(name).checkpoint == "shipped"]
)
def test_weights_that_do_not_come_along_yet_name_the_command_that_trains_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    task = load_model(name).task
    with pytest.raises(CheckpointError, match=f"run.py task={task} mode=train model={name}\\)"):
        checks_of(task).weights(config_of(f"task={task}", f"model={name}"), "pretrained")
