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
from pitome.sources.checkpoint_files import check_checkpoint, sha256_of
from pitome.sources.checkpoints import load_checkpoint, load_into


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
    with pytest.raises(CheckpointError, match="neither a safetensors file nor a torch file"):
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


def test_the_check_imports_no_torch(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    code = (
        "import sys; from pitome.sources.checkpoint_files import check_checkpoint; "
        "from pitome.sources.weights import find_weights; from pitome.sources.folders import check_source; "
        f"check_checkpoint({str(tmp_path / 'a.safetensors')!r}); "
        "find_weights('deit_s', 'hub:a/b@main', 'pretrained'); "
        "assert not {'torch', 'timm', 'lightning', 'huggingface_hub'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkpoint_has_the_sha256_of_its_file(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    checkpoint = load_checkpoint(tmp_path / "a.safetensors", model)
    assert checkpoint.sha256 == sha256_of(tmp_path / "a.safetensors")
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)
    assert checkpoint.note is None


def test_loading_copies_the_values(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    assert not torch.equal(other(x), model(x))
    load_into(other, load_checkpoint(tmp_path / "a.safetensors", other))
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("payload", [[1, 2], {}, {"a": 1}, {"a": {"b": {}}}, {"model": {"a": "text"}}])
def test_a_file_without_tensors_is_refused(tmp_path, payload):
    torch.save(payload, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no state_dict"):
        load_checkpoint(tmp_path / "a.pth", {})


def test_other_shapes_name_the_first_and_count_the_rest(tmp_path, model):
    save_file(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_into(model, load_checkpoint(tmp_path / "a.safetensors", model))
    assert "0.weight is [5, 3] in the file and [4, 3] in the model (2 more do not fit)" in one_line(error)


def test_missing_and_unexpected_names_are_refused(tmp_path, model):
    state = model.state_dict()
    state["extra"] = state.pop("1.bias")
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"1\.bias \[2\] is not in the file \(1 more") as error:
        load_into(model, load_checkpoint(tmp_path / "a.safetensors", model))
    one_line(error)
    state["1.bias"] = torch.zeros(2)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"extra \[2\] is not in the model; choose"):
        load_into(model, load_checkpoint(tmp_path / "a.safetensors", model))


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path, model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    save_file({**{k: v + 1 for k, v in before.items()}, "extra": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        load_into(model, load_checkpoint(tmp_path / "a.safetensors", model))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
