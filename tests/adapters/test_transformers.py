"""BERT and DistilBERT: parity with the authors' code, padding, masks, the patch, refusals."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AttentionInterface,
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    RobertaConfig,
    RobertaModel,
)

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import authors_macs
from tests import GOLDEN
from tests.adapters import tiny_vision
from tests.adapters.tiny_text import BUILD, LONGEST, batch, bert, distilbert, seeded, sentence, settings

INDEX = json.loads((GOLDEN / "text.json").read_text())
MODELS = {model["name"]: model for model in INDEX["models"]}
BARE = [name for name in pitome.methods() if not name.endswith("_repo")]
LENGTHS = (23, 7, 1, 2, 15)  # every length differs; 1 and 2 have nothing to merge
SENTENCES = [sentence(n, seed) for seed, n in enumerate(LENGTHS)]

each_family = pytest.mark.parametrize("family", BUILD)


def logits(model: Any, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def layers_of(model: Any) -> Any:
    base = model.base_model
    return base.encoder.layer if hasattr(base, "encoder") else base.transformer.layer


# The authors' code


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: case["name"])
def test_parity(case: dict[str, Any]) -> None:
    recorded = MODELS[case["model"]]
    config, cls = {
        "bert": (BertConfig, BertForSequenceClassification),
        "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    }[recorded["family"]]
    model = cls(config(**recorded["config"])).eval()
    model.load_state_dict(load_file(GOLDEN / recorded["weights"]), strict=True)
    inputs, want = load_file(GOLDEN / recorded["inputs"]), load_file(GOLDEN / case["file"])
    margins, options, method = case["params"].get("margins"), {}, case["method"]
    if margins is not None and len(set(margins)) == 1:
        options = {"margin": margins[0], "margin_slope": 0.0}
    patched = pitome.patch(
        model,
        method if method == "none" else f"{method}_repo",
        ratio=case["params"].get("ratio", 1.0),
        layers="first3",  # the authors' first three
        trace=True,
        **options,
    )
    plans, blocks = [], []
    plan_function = patched.method.plan
    patched.state.method = replace(
        patched.method, plan=lambda *args: plans.append(plan_function(*args)) or plans[-1]
    )
    for layer in layers_of(model):
        layer.register_forward_hook(lambda module, args, output: blocks.append(output))
    got = logits(model, **inputs)

    def close(value: Tensor, name: str) -> None:
        torch.testing.assert_close(value, want[name], **case["tolerance"])

    assert patched.tokens == [case["expected"]["tokens_in"], *case["expected"]["token_counts"]]
    for index, block in enumerate(blocks):
        if f"block{index}" in want:
            close(block, f"block{index}")
    close(blocks[-1], "tokens")
    close(got, "logits")
    if "mask" in want:  # none is left where no padding came in
        padding = patched.state.last.padding[-1]
        assert torch.equal(
            torch.ones_like(want["mask"]) if padding is None else (~padding).long(), want["mask"]
        )
    if "size" in want and method == "mctf":
        assert torch.equal(patched.sizes, want["size"][..., 0])
    elif "size" in want:  # sizes restart in every layer
        assert torch.equal(plans[-1].sizes(torch.ones(2, plans[-1].n_in)), want["size"][..., 0])
    if "macs" in case["expected"]:
        architecture = patched.architecture(inputs["input_ids"].shape[1])
        assert authors_macs(architecture, patched.tokens, method) == case["expected"]["macs"]


# Padding


@each_family
@pytest.mark.parametrize("method", BARE)
@pytest.mark.parametrize("protected", [1, 2])
def test_a_result_does_not_depend_on_the_batch(family: str, method: str, protected: int) -> None:
    model = BUILD[family]()
    with pitome.patch(model, method, ratio=0.7, protected=protected) as handle:
        logits(model, **batch(SENTENCES))  # the first plan is checked, let it be one with padding
        alone = torch.cat([logits(model, input_ids=ids) for ids in SENTENCES])
        for extra in (0, 1, 7, 50):
            together = logits(model, **batch(SENTENCES, extra))
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        if method != "none":
            assert handle.tokens[:2] == [max(LENGTHS) + 50, 17]
        for i, ids in enumerate(SENTENCES):
            padded = logits(model, **batch([ids], extra=11))
            torch.testing.assert_close(padded, alone[i : i + 1], atol=1e-5, rtol=0)


@each_family
def test_a_method_that_knows_nothing_of_padding_sees_none(family: str) -> None:
    model, seen = BUILD[family](), []
    entry = pitome.merge.registry.get("tome")

    def spy(tokens: Any, remove: int, options: Any) -> Any:
        seen.append((tokens.x.shape[:2], tokens.padding, remove))
        return entry.plan(tokens, remove, options)

    handle = pitome.patch(model, "tome", ratio=0.7, layers=[0])
    want = logits(model, **batch(SENTENCES))
    handle.state.method = replace(entry, plan=spy, padding="alone")
    torch.testing.assert_close(logits(model, **batch(SENTENCES)), want, atol=1e-6, rtol=0)
    assert seen == [((1, 23), None, 6), ((1, 7), None, 1), ((1, 15), None, 4)]  # 1 and 2 have nothing


@each_family
def test_sizes_count_real_tokens(family: str) -> None:
    model = BUILD[family]()
    handle = pitome.patch(model, "tome", ratio=0.7, trace=True)
    logits(model, **batch(SENTENCES, 3))
    assert handle.sizes is not None
    torch.testing.assert_close(handle.sizes.sum(dim=1), torch.tensor(LENGTHS).float())
    real = batch(SENTENCES, 3)["attention_mask"].float()
    assert torch.equal(handle.sources.sum(dim=1) * real, real)


def test_the_closing_token_stays_alone_where_it_is_protected() -> None:
    model = bert()
    for ids in SENTENCES[:2]:
        handle = pitome.patch(model, "tome", ratio=0.5, protected=2, trace=True)
        logits(model, **batch([ids], extra=4))
        want = torch.zeros(2, ids.shape[1] + 4)
        want[0, 0] = want[1, ids.shape[1] - 1] = 1
        assert torch.equal(handle.sources[0, :2], want)
        handle.remove()


def test_the_repository_merges_padding() -> None:
    model, ids = bert(), SENTENCES[0]
    pitome.patch(model, "tome_repo", ratio=0.7)
    alone, padded = logits(model, input_ids=ids), logits(model, **batch([ids], extra=7))
    assert not torch.allclose(alone, padded, atol=1e-3)


# Attention


def reference_flash(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
    """What a kernel for padded batches computes: its mask is [B, N], True at real tokens, or None."""
    assert mask is None or mask.ndim == 2
    mask = None if mask is None else mask.bool()[:, None, None, :]
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return out.transpose(1, 2), None


@each_family
def test_kinds_of_attention_are_equal(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, found = BUILD[family](), batch(SENTENCES), {}
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", reference_flash)
    for prop_attn in (True, False):
        for kind in ("sdpa", "eager", "flash_attention_2"):
            if prop_attn and kind.startswith("flash"):
                continue
            model.config._attn_implementation = kind
            with pitome.patch(model, "pitome", ratio=0.7, prop_attn=prop_attn):
                found[prop_attn, kind] = logits(model, **inputs)
    torch.testing.assert_close(found[True, "eager"], found[True, "sdpa"], atol=1e-5, rtol=0)
    for kind in ("eager", "flash_attention_2"):
        torch.testing.assert_close(found[False, kind], found[False, "sdpa"], atol=1e-5, rtol=0)
    assert not torch.allclose(found[True, "sdpa"], found[False, "sdpa"], atol=1e-3)


def test_attention_that_takes_no_bias_is_refused() -> None:
    model = bert()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UsageError, match="prop_attn=false"):
        pitome.patch(model, "pitome", ratio=0.7)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UsageError, match="flex_attention"):
        pitome.patch(model, "pitome", ratio=0.7, prop_attn=False)
    assert pitome.patched(model) is None


@each_family
def test_class_attention_is_one_row_of_the_whole_map(family: str) -> None:
    """`diffrate` ranks by what the model's own attention gives [CLS], padding 0."""
    model, seen = BUILD[family](attn_implementation="eager"), []
    entry = pitome.merge.registry.get("diffrate")
    inputs = batch(SENTENCES)
    with torch.no_grad():
        whole = model(**inputs, output_attentions=True).attentions[0]
    handle = pitome.patch(model, "diffrate", ratio=0.7, layers=[0])
    handle.state.method = replace(entry, plan=lambda *args: seen.append(args[0]) or entry.plan(*args))
    logits(model, **inputs)
    torch.testing.assert_close(seen[0].cls_attention, whole.mean(dim=1)[:, 0])


@each_family
@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_ratio_1_is_bit_identical(family: str, kind: str) -> None:
    model = BUILD[family](attn_implementation=kind)
    for inputs in (batch(SENTENCES), {"input_ids": SENTENCES[0]}):
        want = logits(model, **inputs)
        for protected in (1, 2):
            with pitome.patch(model, "pitome", ratio=1.0, protected=protected) as handle:
                assert torch.equal(logits(model, **inputs), want)
                assert handle.sizes is None


# The patch


@each_family
def test_remove_deepcopy_and_keys(family: str) -> None:
    model, inputs = BUILD[family](), batch(SENTENCES)
    unmerged, keys = logits(model, **inputs), list(model.state_dict())

    def traces() -> list[Any]:
        return [(set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]

    before = traces()
    handle = pitome.patch(model, "diffrate", ratio=0.7)
    merged = logits(model, **inputs)
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    logits(twin, input_ids=SENTENCES[1])
    assert handle.tokens[0] == max(LENGTHS), "the copy wrote into the original's state"
    handle.remove()
    assert traces() == before
    assert torch.equal(logits(model, **inputs), unmerged)
    assert torch.equal(logits(twin, **inputs), merged)
    pitome.remove(twin)
    assert torch.equal(logits(twin, **inputs), unmerged)


@each_family
def test_gradient_checkpointing(family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = BUILD[family](**{"hidden_dropout_prob" if family == "bert" else "dropout": 0.0}).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        pitome.patch(model, "tome", ratio=0.7, protected=2)
        model(**batch(SENTENCES)).logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for got, want in zip(*gradients, strict=True):
        assert torch.equal(got, want)


@each_family
def test_autocast(family: str) -> None:
    model, inputs = BUILD[family](), batch(SENTENCES)
    handle = pitome.patch(model, "pitome", ratio=0.7)
    logits(model, **inputs)
    counts = handle.tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = logits(model, **inputs)
    assert output.isfinite().all()
    assert handle.tokens == counts
    assert handle.sizes is not None and handle.sizes.dtype == torch.float32


@each_family
def test_every_position_gets_its_group_where_the_head_reads_all(family: str) -> None:
    cls = BertForMaskedLM if family == "bert" else DistilBertForTokenClassification
    model = seeded(cls(settings(family)))
    inputs = batch(SENTENCES)
    unmerged = logits(model, **inputs)
    with pitome.patch(model, "tome", ratio=1.0):
        assert torch.equal(logits(model, **inputs), unmerged)
    handle = pitome.patch(model, "tome", ratio=0.7, trace=True)
    output = logits(model, **inputs)
    assert output.shape == unmerged.shape
    row = handle.sources[0].argmax(dim=0)
    for position in range(max(LENGTHS)):
        same = int((row == row[position]).nonzero()[0])
        assert torch.equal(output[0, position], output[0, same])
    assert len(output[0].unique(dim=0)) == handle.tokens[-1]


class MeanPool(torch.nn.Module):
    """An encoder with a pool of its own behind it, as sentence-transformers has it."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, **inputs: Tensor) -> Tensor:
        mask = inputs["attention_mask"][..., None]
        return (self.encoder(**inputs).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)


@each_family
def test_a_pool_of_ones_own_counts_every_token_once(family: str) -> None:
    """The mean over input tokens is that over merged rows by size."""
    encoder = BUILD[family]().base_model
    inputs = batch(SENTENCES)
    merged: list[Tensor] = []
    with torch.no_grad(), pitome.patch(encoder, "pitome", ratio=0.7) as handle:
        hook = layers_of(encoder)[-1].register_forward_hook(lambda *args: merged.append(args[-1]))
        encoder(**inputs)
        hook.remove()
        rows, size = merged[0], handle.sizes
        assert size is not None and rows.shape[:2] == size.shape
        want = (rows * size[..., None]).sum(dim=1) / size.sum(dim=1, keepdim=True)
    model = MeanPool(encoder).eval()
    with torch.no_grad(), pitome.patch(model, "pitome", ratio=0.7) as handle:
        torch.testing.assert_close(model(**inputs), want)
        assert handle.tokens[-1] < max(LENGTHS)


@pytest.mark.parametrize(
    ("wrap", "full"),
    [
        (lambda model: model, False),
        (lambda model: get_peft_model(model, LoraConfig(target_modules=["query"])), False),
        (lambda model: model.base_model, True),
        (lambda model: torch.nn.DataParallel(model.base_model), True),
        (lambda model: get_peft_model(model.base_model, LoraConfig(target_modules=["query"])), True),
        (lambda model: MeanPool(model.base_model), True),
        (lambda model: seeded(BertForMaskedLM(model.config)), True),
        (lambda model: seeded(BertLMHeadModel(model.config)), True),
        (lambda model: seeded(BertForTokenClassification(model.config)), True),
        (lambda model: seeded(BertForQuestionAnswering(settings("bert", num_labels=2))), True),
        (lambda model: seeded(BertForPreTraining(model.config)), True),
        (lambda model: seeded(BertForNextSentencePrediction(model.config)), False),
        (lambda model: torch.nn.Sequential(MeanPool(model.base_model))[0], True),
    ],
)
def test_who_gets_the_features_of_every_token(wrap: Any, full: bool) -> None:
    model, inputs = wrap(bert()).eval(), batch(SENTENCES)
    handle = pitome.patch(model, "tome", ratio=0.7)
    lengths = []
    encoder = next(module for module in model.modules() if isinstance(module, BertModel))
    encoder.register_forward_hook(lambda *args: lengths.append(args[-1].last_hidden_state.shape[1]))
    with torch.no_grad():
        (model.module if isinstance(model, torch.nn.DataParallel) else model)(**inputs)
    assert lengths == [max(LENGTHS) if full else handle.tokens[-1]]


class MeanForSequenceClassification(BertForSequenceClassification):
    """Called like a head that reads [CLS] alone, and reads every token."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        hidden, mask = self.bert(input_ids, attention_mask).last_hidden_state, attention_mask[..., None]
        return self.classifier((hidden * mask).sum(dim=1) / mask.sum(dim=1))


def test_a_head_of_ones_own_is_not_known_by_its_name() -> None:
    model = seeded(MeanForSequenceClassification(settings("bert")))
    with torch.no_grad(), pitome.patch(model, "pitome", ratio=0.7):
        together = model(**batch(SENTENCES))
        alone = torch.cat([model(**batch([sentence])) for sentence in SENTENCES])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("build", [bert, distilbert, tiny_vision.clip, tiny_vision.vit, tiny_vision.blip])
def test_layers_that_are_replaced_after_the_patch(build: Any) -> None:
    """Keys would be read before the low-rank update."""
    model = build()
    inputs = batch(SENTENCES) if build in (bert, distilbert) else {"pixel_values": tiny_vision.images()}
    pitome.patch(model, "tome", ratio=0.7)
    names = ["key", "k_lin", "k_proj", "qkv"]
    lora = get_peft_model(model, LoraConfig(target_modules=names))
    with pytest.raises(UsageError, match=r"replaced after the patch, by a Linear, .* patch last"):
        lora(**inputs)
    pitome.remove(lora)
    with torch.no_grad(), pitome.patch(lora, "tome", ratio=0.7) as handle:
        lora(**inputs)
        assert handle.tokens[-1] < handle.tokens[0]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check_compiled(model: Any, backend: str, tolerance: float) -> None:
    """One dynamic graph without a break, run for lengths it was not compiled with."""
    pitome.patch(model, "pitome", ratio=0.7)
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=backend)
    for lengths in ((23, 20), (17, 9), (31, 40), (12, 12)):
        inputs = batch([sentence(n, seed) for seed, n in enumerate(lengths)])
        torch.testing.assert_close(
            logits(compiled, **inputs), logits(model, **inputs), atol=tolerance, rtol=0
        )


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7"), reason="torch 2.6 cannot trace transformers' own BERT"
)
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_for_lengths_it_was_not_compiled_with() -> None:
    check_compiled(distilbert(depth=1), "eager", 1e-6)


@pytest.mark.nightly
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@each_family
def test_compiled_by_every_backend(family: str, backend: str) -> None:
    check_compiled(BUILD[family](depth=2), backend, 1e-4)


# Costs


@each_family
@pytest.mark.parametrize("method", ["none", "pitome", "tome", "diffrate"])
def test_the_closed_form_is_what_is_counted(family: str, method: str) -> None:
    model = BUILD[family]()
    with pitome.patch(model, method, ratio=0.8, layers="first3"):
        for tokens in (2, 17):
            cost = pitome.flops(model, tokens)
            assert cost.macs == pytest.approx(cost.macs_closed_form, rel=1e-3)
    assert (cost.share < 1) == (method != "none")


def test_a_share_of_the_cost_at_a_length() -> None:
    model = bert()
    with pitome.patch(model, "tome", flops=0.7, input_size=64):
        assert 0.65 < pitome.flops(model, 64).share <= 0.7


def test_throughput_takes_what_a_tokenizer_makes() -> None:
    model = bert(depth=1)
    pitome.patch(model, "tome", ratio=0.7)
    timing = pitome.throughput(model, batch(SENTENCES), pairs=6, warmup=1, progress=False)
    assert timing.batch == len(LENGTHS)
    assert timing.images_per_s > 0


# Refusals


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: BertLMHeadModel(settings("bert", is_decoder=True)), "decoder"),
        (
            lambda: RobertaModel(RobertaConfig(**settings("bert").to_dict())),
            "found transformers.*RobertaModel",
        ),
        (lambda: torch.nn.ModuleList([bert(depth=1), bert(depth=1)]), "found 2 of them"),
        (lambda: bert(chunk_size_feed_forward=2), "chunk_size_feed_forward"),
        (
            lambda: type("Own", (BertModel,), {"forward": lambda self, x: x})(settings("bert")),
            "with its own",
        ),
    ],
    ids=["decoder", "roberta", "two", "chunks", "own-forward"],
)
def test_models_that_are_refused(build: Any, says: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", ratio=0.7)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None


@pytest.mark.parametrize("value", [0, 3])
def test_protected_counts_special_tokens(value: int) -> None:
    model = bert()
    with pytest.raises(UsageError, match=r"1 \(\[CLS\]\) or 2"):
        pitome.patch(model, "tome", ratio=0.7, protected=value)
    assert pitome.patched(model) is None


def test_inputs_that_are_refused() -> None:
    model, inputs = bert(), batch(SENTENCES)
    pitome.patch(model, "tome", ratio=0.7)
    mask = inputs["attention_mask"]
    empty = mask.clone()
    empty[1] = 0
    left = mask.flip(1)
    for bad in (empty, left):
        with pytest.raises(UsageError, match="begins with padding"):
            logits(model, input_ids=inputs["input_ids"], attention_mask=bad)
    with pytest.raises(UsageError, match=r"shape \[B, N\]"):
        logits(model, input_ids=inputs["input_ids"], attention_mask=mask[:, None, None, :])
    torch.testing.assert_close(logits(model, **inputs), logits(model, **inputs))


@pytest.mark.parametrize("size", [None, 0, LONGEST + 1, (4, 4), True])
def test_lengths_that_are_refused(size: Any) -> None:
    with pitome.patch(bert(), "tome", ratio=0.7) as handle, pytest.raises(UsageError, match="input_size"):
        handle.example(size)
