"""Patched models in what runs them: pipelines, trainers, sentence-transformers, accelerate, ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BertModel,
    BertTokenizerFast,
    Trainer,
    TrainingArguments,
    ViTImageProcessorPil,
    pipeline,
)

import pitome
from tests.adapters import tiny, tiny_clip, tiny_text, tiny_vision

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(tiny_text.VOCABULARY - 5))]
TEXTS = [
    " ".join(f"w{(7 * n + seed) % 50}" for n in range(length)) for seed, length in enumerate((30, 5, 12))
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return BertTokenizerFast(str(path), model_max_length=tiny_text.LONGEST)


def test_image_classification_pipeline() -> None:
    model = tiny_vision.vit()
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    images = [Image.effect_noise((20, 20), 10 + 50 * n).convert("RGB") for n in range(3)]
    run = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    plain = run(images, top_k=7)
    with pitome.patch(model, "pitome", ratio=0.7) as handle:
        merged = run(images, batch_size=3, top_k=7)
        logits = model(**processor(images, return_tensors="pt")).logits
        assert handle.tokens[-1] < 17 and merged != plain
    for scores, row in zip(merged, logits.softmax(dim=-1), strict=True):
        assert [entry["score"] for entry in scores] == pytest.approx(sorted(row.tolist())[::-1], abs=1e-6)
    assert run(images, top_k=7) == plain


@pytest.mark.parametrize("family", tiny_text.BUILD)
def test_text_classification_pipeline(family: str, tokenizer: Any) -> None:
    """A batch with padding gives what each text gives alone."""
    model = tiny_text.BUILD[family]()
    run = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=3)
    with pitome.patch(model, "pitome", ratio=0.7):
        together, alone = run(TEXTS, batch_size=3), [run([text])[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        assert [e["label"] for e in one] == [e["label"] for e in other]
        assert [e["score"] for e in one] == pytest.approx([e["score"] for e in other], abs=1e-5)


@pytest.mark.parametrize("family", tiny_text.BUILD)
def test_feature_extraction_pipeline(family: str, tokenizer: Any) -> None:
    """Of a bare encoder every token has its features, wherever they are pooled."""
    model = tiny_text.BUILD[family]().base_model
    run = pipeline("feature-extraction", model=model, tokenizer=tokenizer, device="cpu")
    plain = run(TEXTS[0], return_tensors="pt")
    with pitome.patch(model, "pitome", ratio=0.7) as handle:
        merged = run(TEXTS[0], return_tensors="pt")
        assert handle.tokens[-1] < plain.shape[1]
    assert merged.shape == plain.shape and len(merged[0].unique(dim=0)) == handle.tokens[-1]


def test_trainer(tmp_path: Path, tokenizer: Any) -> None:
    model = tiny_text.bert()
    rows = [{**tokenizer(text), "label": n} for n, text in enumerate(TEXTS)]
    handle = pitome.patch(model, "pitome", ratio=0.7)
    before = copy.deepcopy(model.state_dict())
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=3,
        per_device_eval_batch_size=3,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        learning_rate=1e-2,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert handle.tokens[-1] < handle.tokens[0] and pitome.patched(model) is handle
    assert all(
        not torch.equal(v, before[k]) for k, v in model.state_dict().items() if "encoder" in k and "bias" in k
    )
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        want = model.eval()(**inputs, labels=torch.arange(3)).loss
    assert trainer.evaluate()["eval_loss"] == pytest.approx(want.item(), abs=1e-5)
    trainer.save_model(str(tmp_path / "saved"))
    again = type(model).from_pretrained(tmp_path / "saved").eval()
    pitome.patch(again, "pitome", ratio=0.7)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("part", ["the whole", "its encoder"])
@pytest.mark.parametrize("order", ["patched in it", "patched before"])
def test_sentence_transformers(part: str, order: str, tokenizer: Any, tmp_path: Path) -> None:
    """Which calls the encoder's forward past its hooks, and pools with the mask of the input."""
    modules = pytest.importorskip("sentence_transformers.models")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tokenizer.save_pretrained(tmp_path)
    tiny_text.seeded(BertModel(tiny_text.settings("bert"))).save_pretrained(tmp_path)
    inner = modules.Transformer(str(tmp_path))
    if order == "patched before" and part == "its encoder":
        pitome.patch(inner.auto_model, "pitome", ratio=0.7)
    model = sentence_transformers.SentenceTransformer(modules=[inner, modules.Pooling(32)], device="cpu")
    plain = None if pitome.patched(model) else embed(model, 3)
    if plain is not None:
        pitome.patch(model if part == "the whole" else inner.auto_model, "pitome", ratio=0.7)
    together, alone = embed(model, 3), embed(model, 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    with torch.no_grad():
        hidden = inner.auto_model(
            **(inputs := tokenizer(TEXTS, padding=True, return_tensors="pt"))
        ).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    torch.testing.assert_close(together, (hidden * mask).sum(1) / mask.sum(1), atol=1e-5, rtol=0)
    assert plain is None or 1e-3 < (together - plain).abs().max() < 0.5
    pitome.remove(model)
    assert plain is None or torch.equal(embed(model, 3), plain)


def embed(model: Any, batch: int) -> Tensor:
    return model.encode(TEXTS, batch_size=batch, convert_to_tensor=True, show_progress_bar=False)


HOOKED: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "timm": lambda: ((model := tiny.vit(depth=2)), {"x": tiny.images(model)}),
    "open_clip": lambda: (tiny_clip.tower(layers=2), {"x": tiny_clip.images()}),
    "bert": lambda: (tiny_text.bert(depth=2), tiny_text.batch([tiny_text.sentence(n) for n in (9, 14)])),
    "distilbert": lambda: (tiny_text.distilbert(depth=2), tiny_text.batch([tiny_text.sentence(9)])),
    "clip": lambda: (tiny_vision.clip(), {"pixel_values": tiny_vision.images()}),
    "blip": lambda: (tiny_vision.blip(), {"pixel_values": tiny_vision.images()}),
}


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", HOOKED)
def test_accelerate(kind: str, when: str) -> None:
    """Its hooks replace the forward of every module, before the patch or after it."""
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_submodules

    model, inputs = HOOKED[kind]()
    with torch.no_grad():
        plain = first(model(**inputs))
        with pitome.patch(model, "pitome", ratio=0.7):
            want = first(model(**inputs))
        if when == "before":
            handle = pitome.patch(model, "pitome", ratio=0.7)
        model = dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)
        if when == "after":
            handle = pitome.patch(model, "pitome", ratio=0.7)
        assert torch.equal(first(model(**inputs)), want)
        assert handle.tokens[-1] < handle.tokens[0]
        handle.remove()
        assert torch.equal(first(model(**inputs)), plain)
        remove_hook_from_submodules(model)
        assert torch.equal(first(model(**inputs)), plain)


def test_accelerate_prepares() -> None:
    from accelerate import Accelerator

    model, inputs = HOOKED["clip"]()
    handle = pitome.patch(model, "tome", ratio=0.7)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = copy.deepcopy(model.state_dict())
    accelerator.backward(first(prepared(**inputs)).square().sum())
    optimizer.step()
    assert pitome.patched(accelerator.unwrap_model(prepared)) is handle
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert "vision_model.embeddings.class_embedding" in moved or "embeddings.class_embedding" in moved
    with torch.no_grad():
        first(prepared(**inputs))
    assert handle.tokens[-1] < handle.tokens[0]


ONNX = ["open_clip", "blip", "clip", "bert", "distilbert"]


class Plain(torch.nn.Module):
    """Tensors in and out."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return first(self.model(**dict(zip(self.names, inputs, strict=True))))


@pytest.mark.nightly  # tests/bench/test_export.py has timm's in every run
@pytest.mark.skipif(not tiny.ONNX_SORTS, reason="this torch has no ONNX for a stable sort")
@pytest.mark.parametrize("kind", ONNX)
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime(kind: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, inputs = HOOKED[kind]()
    handle = pitome.patch(model, "pitome", ratio=0.8)
    wrapped = Plain(model, list(inputs)).eval()
    with torch.no_grad():
        want = wrapped(*inputs.values())
        program: Any = torch.onnx.export(wrapped, tuple(inputs.values()), dynamo=True, verbose=False)
    session = runtime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    fed = {
        given.name: value.numpy() for given, value in zip(session.get_inputs(), inputs.values(), strict=True)
    }
    torch.testing.assert_close(torch.from_numpy(session.run(None, fed)[0]), want, atol=1e-4, rtol=0)
    assert handle.tokens[-1] < handle.tokens[0]
