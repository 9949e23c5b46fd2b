import argparse
import json
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pitome.errors import CheckpointError
from pitome.sources.checkpoints import check_checkpoint, load_checkpoint, load_into, sha256_of


class Harmful:
    """Unpickling it would call os.system."""

    def __reduce__(self):
        import os

        return os.system, ("touch should_not_exist",)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_safetensors_and_zip_are_told_apart(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert check_checkpoint(tmp_path / "a.safetensors") == "safetensors"
    assert check_checkpoint(tmp_path / "a.pth") == "zip"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("keep", [0, 5, 12, 0.5, -1])
def test_truncated_files_are_refused(tmp_path, model, name, keep):
    path = tmp_path / name
    save_file(model.state_dict(), path) if name.endswith("safetensors") else torch.save(
        model.state_dict(), path
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"truncated|neither") as error:
        check_checkpoint(path)
    assert str(path) in one_line(error)


def test_a_file_with_too_many_bytes_is_refused(tmp_path, model):
    path = tmp_path / "a.safetensors"
    save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="1 bytes too many"):
        check_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        check_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        check_checkpoint(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("these are no weights at all")
    with pytest.raises(CheckpointError, match="neither a safetensors file nor a torch zip"):
        check_checkpoint(text)
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        check_checkpoint(archive)
    for header in (b"{broken", b"{}", json.dumps({"a": {"data_offsets": "no"}}).encode(), b'{"a": 1}'):
        broken = tmp_path / "broken.safetensors"
        broken.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError, match=r"header cannot be read|no tensors"):
            check_checkpoint(broken)


def test_an_old_torch_file_that_is_no_zip_is_refused(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="save it again"):
        check_checkpoint(tmp_path / "old.pth")


def test_the_check_imports_no_torch(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    code = (
        "import sys; from pitome.sources.checkpoints import check_checkpoint; "
        "from pitome.sources.weights import find_weights; from pitome.sources.folders import check_source; "
        f"check_checkpoint({str(tmp_path / 'a.safetensors')!r}); "
        "find_weights('deit_s', 'hub:a/b@main', 'pretrained'); "
        "assert not {'torch', 'timm', 'lightning', 'huggingface_hub'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_tensors_are_found_under_their_nesting(tmp_path, model, nest):
    state = model.state_dict()
    path = tmp_path / "a.pth"
    torch.save(state if nest is None else {nest: state, "epoch": 3}, path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.state.keys() == state.keys()
    assert checkpoint.sha256 == sha256_of(path)
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)


def test_a_training_checkpoint_loses_its_prefix(tmp_path, model):
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt").state.keys() == model.state_dict().keys()


def test_loading_copies_the_values(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    assert not torch.equal(other(x), model(x))
    load_into(other, load_checkpoint(tmp_path / "a.safetensors"))
    assert torch.equal(other(x), model(x))


def test_a_namespace_is_allowed_as_in_maes_files(tmp_path, model):
    path = tmp_path / "mae.pth"
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(lr=0.1), "epoch": 99}, path)
    assert load_checkpoint(path).state.keys() == model.state_dict().keys()
    # only while we load
    with pytest.raises(Exception, match="argparse"):
        torch.load(path, weights_only=True)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(), "x": Harmful()}, "bad.pth")
    with pytest.raises(CheckpointError, match=r"system") as error:
        load_checkpoint("bad.pth")
    assert "argparse" not in one_line(error)
    assert not (tmp_path / "should_not_exist").exists()


@pytest.mark.parametrize("payload", [[1, 2], {}, {"a": 1}, {"model": {"a": "text"}}])
def test_a_file_without_tensors_is_refused(tmp_path, payload):
    torch.save(payload, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no state_dict"):
        load_checkpoint(tmp_path / "a.pth")


def test_other_shapes_name_the_first_and_count_the_rest(tmp_path, model):
    save_file(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_into(model, load_checkpoint(tmp_path / "a.safetensors"))
    assert "0.weight is [5, 3] in the file and [4, 3] in the model (2 more do not fit)" in one_line(error)


def test_missing_and_unexpected_names_are_refused(tmp_path, model):
    state = model.state_dict()
    state["extra"] = state.pop("1.bias")
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"1\.bias \[2\] is not in the file \(1 more") as error:
        load_into(model, load_checkpoint(tmp_path / "a.safetensors"))
    one_line(error)
    state["1.bias"] = torch.zeros(2)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"extra \[2\] is not in the model; choose"):
        load_into(model, load_checkpoint(tmp_path / "a.safetensors"))


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path, model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    save_file({**{k: v + 1 for k, v in before.items()}, "extra": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        load_into(model, load_checkpoint(tmp_path / "a.safetensors"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
