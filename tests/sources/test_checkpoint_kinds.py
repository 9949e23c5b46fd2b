"""Checkpoints as people have them. Every table here takes a new case as one line."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import pickle
import types
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pitome.errors import CheckpointError
from pitome.sources.checkpoint_files import check_checkpoint, sha256_of_files
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.weights import SHIPPED, find_weights

State = dict[str, Tensor]


def make(classes: int = 2, depth: int = 3) -> nn.Module:
    model = nn.Module()
    model.embed = nn.Linear(3, 4)
    model.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
    model.norm = nn.LayerNorm(4)
    if classes:
        model.head = nn.Linear(4, classes)
    return model


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return make()


def pre(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def zero(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def body(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def head(state: State) -> State:
    return {name: value for name, value in state.items() if name.startswith("head.")}


def read(path: Path, key: str | None = None, model: nn.Module | None = None) -> tuple[State, str | None]:
    """What a fresh model holds after it was given the file, and the note."""
    model = make() if model is None else model
    checkpoint = load_checkpoint(path, model, key)
    load_into(model, checkpoint)
    return model.state_dict(), checkpoint.note


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def refused(path: Path, key: str | None = None, model: nn.Module | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        read(path, key, model)
    message = str(error.value)
    assert "\n" not in message
    assert "weights_only" not in message
    return message


# name -> what is saved of a state; whatever it is, the model comes out
WRAPPED: dict[str, Callable[[State], Any]] = {
    "nothing": lambda s: s,
    "sparse": lambda s: {name: value.to_sparse() for name, value in s.items()},
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": torch.ones(())},
    "net": lambda s: {"net": s, "acc": 93.1},
    "deeper": lambda s: {"checkpoint": {"trainer": {"model": s}}},
    "lightning": lambda s: {"state_dict": pre("model.", s), "hyper_parameters": {"lr": 0.1}},
    "lightning, net, with metrics": lambda s: {
        "state_dict": pre("net.", s) | {"val_acc.total": torch.ones(())}
    },
    "ddp": lambda s: pre("module.", s),
    "ddp in a wrapper": lambda s: {"state_dict": pre("module.", s)},
    "ddp inside another part": lambda s: {"state_dict": pre("model.module.", s)},
    "compiled": lambda s: pre("_orig_mod.", s),
    "compiled, then ddp": lambda s: pre("module._orig_mod.", s),
    "ddp, then compiled": lambda s: pre("_orig_mod.module.", s),
    "blocks compiled one by one": lambda s: {
        name.replace("blocks.1.", "blocks.1._orig_mod."): value for name, value in s.items()
    },
    "deepspeed": lambda s: {"module": s, "ds_version": "0.9"},
    "average of torch": lambda s: pre("module.", s) | {"n_averaged": torch.tensor(5)},
    "backbone, and its head beside it": lambda s: pre("backbone.", body(s)) | head(s),
    "backbone, head and neck": lambda s: {
        "state_dict": pre("backbone.", body(s)) | pre("", head(s)) | {"neck.weight": torch.ones(3)}
    },
    "a tower of a larger model": lambda s: pre("visual.trunk.", s) | {"text.weight": torch.ones(9)},
    "one name without the prefix": lambda s: pre("module.", body(s)) | head(s),
    "EMA beside raw weights": lambda s: {"model": zero(s), "model_ema": s},
    "EMA beside raw weights, ddp": lambda s: {
        "state_dict": pre("module.", zero(s)),
        "state_dict_ema": pre("module.", s),
    },
    "EMA alone": lambda s: {"state_dict_ema": pre("module.", s)},
    "EMA as a prefix": lambda s: {"state_dict": pre("model.", zero(s)) | pre("ema_model.", s)},
    "EMA of a name without prefix": lambda s: zero(s) | pre("ema.", s),
    "dino": lambda s: {
        "student": pre("module.backbone.", zero(s)) | {"module.head.mlp.weight": torch.ones(3)},
        "teacher": pre("backbone.", s) | {"head.mlp.weight": torch.ones(3)},
    },
    "a teacher of another size": lambda s: {
        "student": s,
        "teacher": {name: torch.ones(7) for name in s},
    },
    "one part registered twice": lambda s: {"state_dict": pre("model.", s) | pre("model.inner.", s)},
    "half precision": lambda s: {name: value.half() for name, value in s.items()},
    "pretraining's parts": lambda s: s | {"mask_token": torch.ones(4), "decoder_norm.weight": torch.ones(4)},
    "buffers of older versions": lambda s: s | {"embed.position_ids": torch.arange(4)},
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_and_prefixes_are_undone(tmp_path, model, case):
    content = WRAPPED[case](model.state_dict())
    torch.save(content, tmp_path / "a.pth")
    state, note = read(tmp_path / "a.pth")
    want = model.state_dict()
    if case == "half precision":
        want = {name: value.half().float() for name, value in want.items()}
    assert equal(state, want)
    assert (note is None) == (content is want or case in ("nothing", "half precision", "sparse"))
    assert note is None or "\n" not in note


# content, weights_key -> which of the states comes out (1 or 2)
CHOSEN: list[tuple[str, Callable[[State, State], Any], str, int]] = [
    ("raw instead of EMA", lambda a, b: {"model": a, "model_ema": b}, "model", 1),
    ("EMA by name", lambda a, b: {"model": a, "model_ema": b}, "model_ema", 2),
    (
        "a prefix",
        lambda a, b: {"state_dict": pre("student.", a) | pre("teacher.", b)},
        "state_dict.student",
        1,
    ),
    ("neither is an average", lambda a, b: {"encoder_q": a, "encoder_k": b}, "encoder_k", 2),
    ("with ddp", lambda a, b: {"x": pre("module.", a), "x_ema": pre("module.", b)}, "x.module", 1),
    ("what has no prefix", lambda a, b: a | pre("ema.", b), ".", 1),
]


@pytest.mark.parametrize(("case", "content", "key", "which"), CHOSEN)
def test_weights_key_chooses(tmp_path, model, case, content, key, which):
    states = model.state_dict(), zero(model.state_dict())
    torch.save(content(*states), tmp_path / "a.pth")
    assert equal(read(tmp_path / "a.pth", key)[0], states[which - 1])


def test_what_is_taken_and_left_is_said_once(tmp_path, model, capsys):
    state = model.state_dict()
    torch.save({"model": zero(state), "model_ema": state | {"mask_token": torch.ones(4)}}, tmp_path / "b.pth")
    for _ in range(2):
        read(tmp_path / "b.pth")
    assert capsys.readouterr().err.splitlines() == [
        "b.pth: names lose 'model_ema.'; the moving average is taken, weights_key=model takes the weights it "
        "is of; 1 tensor is not used (mask_token)"
    ]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_nothing_is_said_of_shipped_weights(path, capsys):
    names = {name.removeprefix("model."): value for name, value in load_file(path).items()}
    assert load_checkpoint(path, names).state.keys() == names.keys()
    assert capsys.readouterr().err == ""


def test_two_alike_have_to_be_chosen_from(tmp_path, model):
    state = model.state_dict()
    torch.save({"first": state, "second": zero(state)}, tmp_path / "a.pth")
    assert "2 sets of weights for this model, first, second: choose one with weights_key=" in refused(
        tmp_path / "a.pth"
    )
    message = refused(tmp_path / "a.pth", "third")
    assert "weights_key=third: " in message
    assert "available: first, second" in message


# name -> an object that stands beside the tensors, of a type that cannot run code
HARMLESS: dict[str, Any] = {
    "scalar of numpy": np.float64(0.5),
    "int of numpy": np.int64(3),
    "array of numpy": np.arange(3),
    "dtype of numpy": np.dtype("float32"),
    "path": pathlib.Path("a/b"),
    "pure Windows path": pathlib.PureWindowsPath("a"),
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("a")),
    "simple namespace": types.SimpleNamespace(a=1),
    "omegaconf": OmegaConf.create({"a": {"b": [1, 2.5, None, "x"]}, "c": "${a.b}"}),
    "list of omegaconf": OmegaConf.create([1, 2]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1]),
    "counter": collections.Counter("aab"),
    "date": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "fraction": Fraction(1, 3),
    "set": {1, 2},
    "class of Python": float,
    "slice": slice(1, 2),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_types_are_allowed(tmp_path, model, case):
    torch.save({"model": model.state_dict(), "args": HARMLESS[case]}, tmp_path / "a.pth")
    assert equal(read(tmp_path / "a.pth")[0], model.state_dict())


def test_what_is_allowed_is_so_while_a_file_is_read_only(tmp_path, model):
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    read(tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError, match="argparse"):
        torch.load(tmp_path / "a.pth", weights_only=True)


class Reduces:
    """Unpickled, it would call a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


# name -> an object that could run code, and the word of the message
HARMFUL: dict[str, tuple[Any, str]] = {
    "os.system": (Reduces(__import__("os").system, "touch should_not_exist"), "system"),
    "eval": (Reduces(eval, "open('should_not_exist', 'w')"), "eval"),
    "getattr": (Reduces(getattr, "a", "upper"), "getattr"),
    "exec behind a harmless type": ({"a": argparse.Namespace(b=Reduces(exec, "1"))}, "exec"),
    "a whole model": (nn.Linear(2, 2), "whole pickled model"),
    "a function": (json.loads, "loads"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", HARMFUL)
def test_what_could_run_code_is_refused_and_not_run(tmp_path, model, case, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, word = HARMFUL[case]
    state = {"model": model.state_dict(), "args": argparse.Namespace(), "x": content}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    message = refused(tmp_path / "a.pth")
    assert word in message
    assert "could run code; save only the state_dict" in message
    assert "argparse" not in message
    assert not (tmp_path / "should_not_exist").exists()


def sharded(folder: Path, state: State, form: str) -> Path:
    """Two files and their index, as transformers writes them."""
    names = list(state)
    suffix = "safetensors" if form == "model" else "bin"
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{form}-{number:05}-of-00002.{suffix}"
        save = save_file if suffix == "safetensors" else torch.save
        save({name: state[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    path = folder / f"{form}.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


@pytest.mark.parametrize("form", ["model", "pytorch_model"])
def test_a_model_in_several_files_is_given_by_its_index(tmp_path, model, form):
    path = sharded(tmp_path, model.state_dict(), form)
    assert check_checkpoint(path) == "index"
    assert equal(read(path)[0], model.state_dict())
    shards = sorted(tmp_path.glob("*-of-*"))
    assert load_checkpoint(path, model).sha256 == sha256_of_files(shards)
    assert f"it is one of 2 files: give {path.name}" in refused(shards[0])
    shards[1].unlink()
    assert shards[1].name in refused(path)


@pytest.mark.parametrize("form", ["model", "pytorch_model"])
def test_a_folder_may_hold_one_models_files(tmp_path, model, form):
    path = sharded(tmp_path, model.state_dict(), form)
    assert find_weights("deit_s", "hub:a/b@main", str(tmp_path)).path == path
    whole = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), whole)
    if form == "pytorch_model":
        assert find_weights("mine", "", str(tmp_path)).path == whole
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds neither mine\.safetensors"):
        find_weights("mine", "", str(tmp_path / "empty"))


def test_a_file_from_before_torch_1_6_is_read(tmp_path, model):
    path = tmp_path / "a.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    assert check_checkpoint(path) == "legacy"
    assert equal(read(path)[0], model.state_dict())
    path.write_bytes(path.read_bytes()[:-40])
    assert "cannot be read" in refused(path)


class Tower(nn.Module):
    """As OpenAI's CLIP files: half precision, a shared storage, and buffers that say the model's sizes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        inner = make()
        self.embed, self.blocks, self.norm, self.head = inner.embed, inner.blocks, inner.norm, inner.head
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 3))])
@pytest.mark.parametrize("half", [False, True])
def test_a_torchscript_archive_is_read_without_its_code(tmp_path, form, half):
    tower = Tower().eval()
    script = form(tower)
    if half:
        tower, script = tower.half(), script.half()
    torch.jit.save(script, tmp_path / "ViT.pt")
    assert check_checkpoint(tmp_path / "ViT.pt") == "script"
    want = {name: value.float() for name, value in tower.state_dict().items() if name != "input_resolution"}
    state, note = read(tmp_path / "ViT.pt")
    assert equal(state, want)
    assert note == "ViT.pt: 1 tensor is not used (input_resolution)"


# name -> bytes of a file that is no checkpoint, and the words of the message
OTHERS: dict[str, tuple[bytes, str]] = {
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html>log in</html>", "web page"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "unpack"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "GGUF": (b"GGUF" + bytes(40), "quantised"),
    "array": (b"\x93NUMPY" + bytes(40), "NumPy"),
    "plain pickle": (pickle.dumps({"a": 1}), "torch.save did not write"),
    "text": (b"no weights at all, but text", "neither a safetensors file nor a torch file"),
    "nothing": (b"", "neither"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_kind_of_file_is_named(tmp_path, case):
    content, words = OTHERS[case]
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        check_checkpoint(tmp_path / "a.pth")
    assert words in refused(tmp_path / "a.pth")


def test_an_archive_of_numpy_arrays_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    assert "NumPy arrays" in refused(tmp_path / "a.npz")


# name -> what is saved, and the words of the message
UNFIT: dict[str, tuple[Callable[[State], Any], str]] = {
    "no head": (body, r"it has no classifier (head.weight is not in the file)"),
    "other classes": (
        lambda s: s | head(make(classes=5).state_dict()),
        "its classifier has 5 outputs and the model's 2",
    ),
    "another head": (
        lambda s: body(s) | {"fc.weight": torch.ones(1)},
        "it has no classifier (head.weight is not in the file)",
    ),
    "more blocks": (lambda s: make(depth=4).state_dict(), "blocks.3.weight [4, 4] is not in the model"),
    "fewer blocks": (lambda s: make(depth=2).state_dict(), "blocks.2.weight [4, 4] is not in the file"),
    "one more norm": (
        lambda s: s | {"fc_norm.weight": torch.ones(4)},
        "fc_norm.weight [4] is not in the model",
    ),
    "one more head": (
        lambda s: s | {"head_dist.weight": torch.ones(1)},
        "head_dist.weight [1] is not in the model",
    ),
    "other names": (lambda s: {"a.kernel": torch.ones(2)}, "have other names, e.g. a.kernel"),
    "diverged": (
        lambda s: s | {"norm.weight": torch.full((4,), torch.nan)},
        "holds values that are no numbers, e.g. in norm.weight",
    ),
    "a list": (lambda s: list(s.items()), "holds no state_dict but a list"),
    "quantised": (lambda s: {k: v.to(torch.int8) for k, v in s.items()}, "is torch.int8 in the file"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_said(tmp_path, model, case):
    content, words = UNFIT[case]
    torch.save(content(model.state_dict()), tmp_path / "a.pth")
    assert words in refused(tmp_path / "a.pth")


def test_a_model_without_classifier_needs_none_of_the_file(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pth")
    state, note = read(tmp_path / "a.pth", model=make(classes=0))
    assert equal(state, body(model.state_dict()))
    assert note == "a.pth: 2 tensors are not used (head.bias, head.weight)"


def test_another_pickle_protocol_is_one_line(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pth", pickle_protocol=5)
    assert "pickle protocol" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ""])
def test_the_content_decides_and_not_the_suffix(tmp_path, model, suffix):
    want = model.state_dict()
    torch.save(want, tmp_path / f"a{suffix}")
    save_file(want, tmp_path / f"b{suffix or '.pth'}")
    assert all(equal(read(tmp_path / name)[0], want) for name in (f"a{suffix}", f"b{suffix or '.pth'}"))
