"""Who runs when, what is kept, and where it goes on; no test asserts on a real time."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest
import torch

import pitome
from pitome.adapters.core import LayerPatch
from pitome.errors import UsageError
from scripts.bench import timing
from scripts.bench.groups import Group
from scripts.bench.memory import forward_memory
from scripts.bench.record import Record
from scripts.bench.subjects import Subject, build
from scripts.bench.timing import share, time_group
from tests.adapters import tiny_text
from tests.adapters.tiny import images, vit

GROUP = Group("tiny", 20, 2, 0.75, ("pitome", "tome"), pairs=3)


@pytest.fixture
def order(monkeypatch):
    """A tiny model instead of the named one; the order in which variants are timed."""
    model, calls = vit(), []
    monkeypatch.setattr(timing, "build", lambda *_: Subject(model, images(model), (12, 20)))
    monkeypatch.setattr(timing, "forward_memory", lambda *_: 1)

    def seconds(call, clock, device):
        calls.append(call)
        return float(len(calls))

    monkeypatch.setattr(timing, "seconds", seconds)
    return calls


def run(record: Record, deadline: float = math.inf, group: Group = GROUP) -> bool:
    return time_group(group, record, deadline, "cpu", torch.float32)


def test_rounds_alternate_in_order_and_are_kept(order, tmp_path):
    record = Record(tmp_path / "a.json", {})
    assert run(record)
    cell = Record(tmp_path / "a.json", {}).part("speed")[GROUP.key]
    assert cell["rounds"] == [
        {"none": 1, "pitome": 2, "tome": 3, "cut": 4},
        {"none": 8, "pitome": 7, "tome": 6, "cut": 5},
        {"none": 9, "pitome": 10, "tome": 11, "cut": 12},
    ]
    assert cell["macs"]["tome"] < cell["macs"]["none"]
    assert cell["tokens"]["pitome"] == [16, 13, 10, 8, 7]
    assert len({id(call) for call in order}) == 4


def test_a_bench_that_was_stopped_goes_on(order, tmp_path, monkeypatch):
    """As if killed after its first round: that round is in the file and is not measured again."""
    record = Record(tmp_path / "a.json", {})
    clock = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(clock))
    assert not run(record, deadline=1.0)
    monkeypatch.undo()
    again = Record(tmp_path / "a.json", {})
    first = list(again.part("speed")[GROUP.key]["rounds"])
    assert len(first) == 1


def test_a_complete_group_builds_nothing(order, tmp_path, monkeypatch):
    record = Record(tmp_path / "a.json", {})
    assert run(record)
    monkeypatch.setattr(timing, "build", None)
    assert run(record) and len(order) == 12


def test_no_group_is_begun_after_the_deadline(order, tmp_path):
    assert not run(Record(tmp_path / "a.json", {}), deadline=time.monotonic() - 1)
    assert order == []


def test_copies_share_their_weights_and_nothing_else():
    model = vit()
    copy = share(model)
    assert copy.head.weight is model.head.weight and copy.blocks[0] is not model.blocks[0]
    pitome.patch(copy, "tome", r=1)
    assert pitome.patched(model) is None


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_cut_slices_as_many_tokens_off_and_does_no_more(name: str) -> None:
    model = vit() if name == "vit" else tiny_text.bert()
    inputs = images(model) if name == "vit" else torch.arange(5, 45).view(2, 20) % 50
    subject, group = Subject(model, inputs, 20), dataclasses.replace(GROUP, ratio=0.6)
    with torch.no_grad(), pitome.patch(model, "pitome", ratio=0.6) as handle:
        model(inputs)
        tokens = handle.tokens
    cut_model, widths = timing.cut(share(model), group, subject), []
    blocks = [module for module in cut_model.modules() if isinstance(vars(module).get("_pitome"), LayerPatch)]
    for block in blocks:
        block.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]), prepend=True)
    with torch.no_grad():
        cut_model(inputs)
    assert widths == tokens[:-1]
    if name == "vit":
        x = model.norm_pre(model._pos_embed(model.patch_embed(inputs)))
        with torch.no_grad():
            for block, left in zip(model.blocks, tokens[1:], strict=True):
                x = (x + block.attn(block.norm1(x)))[:, :left]
                x = x + block.mlp(block.norm2(x))
            torch.testing.assert_close(cut_model(inputs), model.forward_head(model.norm(x)))


def test_a_model_that_timm_does_not_have():
    with pytest.raises(UsageError, match="unknown model 'vit_nobody'"):
        build("vit_nobody", 1, 224)


def test_memory_of_a_forward_is_its_peak_not_what_is_left():
    kept = []

    def call():
        first = torch.empty(8 << 20, dtype=torch.uint8)
        second = torch.empty(2 << 20, dtype=torch.uint8)
        del first
        kept.append(torch.empty(1 << 20, dtype=torch.uint8))
        return second

    assert forward_memory(call, torch.device("cpu")) == 10 << 20


def test_rounds_of_other_code_are_not_gone_on_with(order, tmp_path, capsys):
    path, more = tmp_path / "a.json", dataclasses.replace(GROUP, pairs=5)
    assert run(Record(path, {"git_revision": "a"}))
    record = Record(path, {"git_revision": "b"})
    order[:] = [None] * 100
    assert run(record, group=more)
    assert "was measured by other code (revision a)" in capsys.readouterr().err
    cell = Record(path, {}).part("speed")[GROUP.key]
    assert len(cell["rounds"]) == 5 and cell["rounds"][0]["none"] == 101
    assert cell["measured"]["git_revision"] == "b"
    assert not run(record, deadline=time.monotonic() - 1, group=dataclasses.replace(GROUP, pairs=6))
    # nothing was measured by c, so nothing says that it was
    later = Record(path, {"git_revision": "c"})
    assert not run(later, deadline=time.monotonic() - 1, group=more)
    later.save()
    assert Record(path, {}).part("speed")[GROUP.key] == cell
