"""LLaVA's stages, timed apart on a tiny one."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch

from scripts.bench import llava
from scripts.bench.llava import Sizes, time_llava
from scripts.bench.record import Record

TINY = Sizes(
    28,
    3,
    {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 2,
    },
    text=3,
)


@pytest.fixture(autouse=True)
def small_tower(monkeypatch):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=4,
    )
    monkeypatch.setattr(llava, "clip_tower", lambda *_: CLIPVisionModel(config))


def run(record: Record, deadline: float = math.inf, **given) -> bool:
    return time_llava(record, deadline, "cpu", torch.float32, TINY, **given)


def test_every_stage_with_the_tokens_that_are_left(tmp_path, monkeypatch):
    ticks = itertools.count(1.0, 1.0)
    monkeypatch.setattr(llava, "seconds", lambda stage, clock, device: (stage(), next(ticks))[1])
    record = Record(tmp_path / "a.json", {})
    assert run(record)
    row = Record(tmp_path / "a.json", {}).part("llava")["pitome"]
    # 49 patches; two of three layers merge: floor(49 * 0.075) = 3, then floor(46 * 0.075) = 3
    assert (row["image_tokens_unmerged"], row["image_tokens"]) == (49, 43)
    for stage in llava.STAGES:
        assert row[f"{stage}_low"] <= row[f"{stage}_speedup"] <= row[f"{stage}_high"]
    before = dict(record.part("llava"))
    with monkeypatch.context() as patch:
        patch.setattr(llava, "_build", None)
        assert run(record) and record.parts["llava"] == before
    assert run(record, ratio=0.5, methods=("tome",)) and run(record, pairs=7, methods=("pitome",))
    found = record.part("llava")
    assert found["tome, ratio 0.5"]["image_tokens"] < 43 and found["pitome"]["pairs"] == 7
    assert found["tome"] == before["tome"]


def test_nothing_is_begun_after_the_deadline(tmp_path):
    assert not run(Record(tmp_path / "a.json", {}), time.monotonic() - 1)
