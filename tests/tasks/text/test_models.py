"""Text models from the configuration, a package, a hub folder or a file; adapters with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pitome.errors import CheckpointError
from pitome.tasks.text import models as text
from pitome.tasks.text.lora import Lora, adapter_state, add_lora, merge_adapter, metadata, read_lora
from pitome.tasks.text.models import build_text_model, check_vocabulary, load_base
from tests.configs import model_of
from tests.tasks.text.tiny_text import CONFIG, WORDS, tokenizer, write_folder

LORA = Lora(2, 4.0, ("query", "value"))
MODEL = model_of(CONFIG)
HUB = CONFIG | {
    "checkpoints": {"sst2": {"source": "hub:some/model@abc", "cased": False, "split": "official"}}
}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """What stands for the package: a tiny encoder without a classifier."""
    return write_folder(tmp_path_factory.mktemp("package"), classifier=False)


@pytest.fixture(autouse=True)
def no_network(package, monkeypatch):
    monkeypatch.setattr(text, "fetch_minilm", lambda: package)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([[2, 7, 9, 3]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_random_weights_need_the_configuration_alone():
    torch.manual_seed(1)
    built = build_text_model(MODEL, "sst2", 2, "random")
    torch.manual_seed(1)
    assert torch.equal(logits(built.model), logits(build_text_model(MODEL, "sst2", 2, "random").model)), (
        "the seed decides"
    )
    assert built.sha256 is None and built.weights.source == "random" and not built.model.training
    assert len(built.tokenizer) == len(WORDS)


def test_training_starts_from_the_encoder_of_the_package(package):
    model, _ = load_base(MODEL, 2)
    encoder = load_file(package / "model.safetensors")
    own = model.state_dict()
    assert all(torch.equal(own[f"bert.{key}"], value) for key, value in encoder.items())
    assert own["classifier.weight"].shape == (2, 16)


def test_an_adapter_file_gives_the_trained_model(tmp_path):
    torch.manual_seed(0)
    model, _ = load_base(MODEL, 2)
    add_lora(model, LORA)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[-2] for name in trained if "lora_" not in name} == {"dense", "classifier"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.normal_(0, 0.3)
    path = tmp_path / "adapter.safetensors"
    save_file({key: value.clone() for key, value in adapter_state(model).items()}, path, metadata(LORA))
    assert read_lora(path) == LORA
    built = build_text_model(MODEL, "sst2", 2, str(path))
    torch.testing.assert_close(logits(built.model), logits(model.eval()), rtol=1e-5, atol=1e-5)
    assert not any("lora" in name for name, _ in built.model.named_modules()), (
        "plain layers, as the patch wants"
    )
    assert built.sha256 and built.weights.source == "file"


def test_an_adapter_of_another_model(tmp_path):
    model, _ = load_base(MODEL, 2)
    add_lora(model, LORA)
    state = {key: value.clone() for key, value in adapter_state(model).items()}
    path = tmp_path / "adapter.safetensors"
    for change in (lambda: state.update({"classifier.weight": torch.zeros(3, 16)}), lambda: state.popitem()):
        change()
        save_file(state, path, metadata(LORA))
        fresh, _ = load_base(MODEL, 2)
        with pytest.raises(CheckpointError, match=r"does not fit this model: .*classifier") as error:
            merge_adapter(fresh, LORA, path)
        assert "\n" not in str(error.value)


def test_damaged_words_on_an_adapter(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"lora": "{"})
    with pytest.raises(CheckpointError, match="its settings of the adapters cannot be read"):
        read_lora(path)


def test_no_layer_of_that_name():
    model, _ = load_base(MODEL, 2)
    with pytest.raises(CheckpointError, match=r"no layer for adapters .*trainer\.lora\.targets"):
        add_lora(model, dataclasses.replace(LORA, targets=("nothing",)))


def test_a_whole_model_as_a_file(tmp_path):
    first = build_text_model(MODEL, "sst2", 2, "random")
    path = tmp_path / "whole.safetensors"
    save_file({key: value.clone() for key, value in first.model.state_dict().items()}, path)
    assert read_lora(path) is None
    assert torch.equal(logits(build_text_model(MODEL, "sst2", 2, str(path)).model), logits(first.model))
    torch.save(first.model.state_dict(), tmp_path / "whole.pt")
    assert torch.equal(
        logits(build_text_model(MODEL, "sst2", 2, str(tmp_path / "whole.pt")).model),
        logits(first.model),
    )
    with pytest.raises(CheckpointError, match="does not fit this model"):
        build_text_model(MODEL, "sst2", 3, str(path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A repository on the hub: a folder, named after its commit."""
    folder = tmp_path / "c0ffee"

    def fetch(repo, *wanted, **options):
        return folder

    monkeypatch.setattr(text, "fetch_folder", fetch)
    return folder


def test_a_checkpoint_of_the_hub(hub):
    write_folder(hub)
    built = build_text_model(model_of(HUB), "sst2", 2)
    assert built.weights.record(built.sha256)["name"] == "some/model@c0ffee" and len(built.sha256 or "") == 64
    state = load_file(hub / "model.safetensors")
    assert torch.equal(built.model.state_dict()["classifier.weight"], state["classifier.weight"])


def test_an_older_repository_without_safetensors(hub):
    write_folder(hub)
    torch.save(load_file(hub / "model.safetensors"), hub / "pytorch_model.bin")
    state = load_file(hub / "model.safetensors")
    (hub / "model.safetensors").unlink()
    built = build_text_model(model_of(HUB), "sst2", 2)
    assert torch.equal(built.model.state_dict()["classifier.weight"], state["classifier.weight"])


def test_a_pickle_that_runs_code_is_not_loaded(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    write_folder(hub)
    torch.save({"a": Evil()}, hub / "pytorch_model.bin")
    (hub / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        build_text_model(model_of(HUB), "sst2", 2)
    assert "\n" not in str(error.value) and not (tmp_path / "touched").exists()


def test_what_does_not_belong_together(hub):
    write_folder(hub, words=[*WORDS, "more"])
    with pytest.raises(CheckpointError, match="the tokenizer has 16 words and model=tiny embeds 15"):
        build_text_model(model_of(HUB), "sst2", 2)
    write_folder(hub, cased=True)
    with pytest.raises(CheckpointError, match=r"the tokenizer of some/model keeps case.*it lower-cases"):
        build_text_model(model_of(HUB), "sst2", 2)
    write_folder(hub, classifier=False)
    with pytest.raises(CheckpointError, match="holds no trained classifier"):
        build_text_model(model_of(HUB), "sst2", 2)
    write_folder(hub)
    other = HUB | {"args": CONFIG["args"] | {"num_hidden_layers": 3}}
    with pytest.raises(CheckpointError, match="num_hidden_layers is 2, model=tiny has 3"):
        build_text_model(model_of(other), "sst2", 2)
    (hub / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        build_text_model(model_of(HUB), "sst2", 2)


def test_a_data_set_without_a_classifier():
    with pytest.raises(CheckpointError, match="model=tiny has no classifier for data=imdb"):
        build_text_model(model_of(HUB), "imdb", 2)


def test_a_larger_vocabulary_is_noticed():
    model, _ = load_base(MODEL, 2)
    with pytest.raises(CheckpointError, match="they do not belong together"):
        check_vocabulary(model, tokenizer(WORDS[:-1]), "tiny")


def test_a_file_goes_with_the_tokenizer_beside_it(tmp_path, monkeypatch):
    write_folder(tmp_path, classifier=True)
    monkeypatch.setattr(text, "fetch_minilm", lambda: pytest.fail("the tokenizer is at hand"))
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        built = build_text_model(MODEL, "sst2", 2, str(weights))
        assert built.tokenizer.get_vocab() == tokenizer().get_vocab()
        state = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(value, state[name]) for name, value in built.model.state_dict().items())
