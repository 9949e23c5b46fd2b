"""A sweep that does not run is one line and no measurement."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from scripts.bench import sweep as module
from scripts.bench import targets
from scripts.bench.record import Record


@pytest.mark.parametrize(
    ("said", "shown"), [("first\nno such data\n", "no such data"), ("", "it ended with -9 and said nothing")]
)
def test_a_child_that_fails(said, shown, tmp_path, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], -9, "", said)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    record = Record(tmp_path / "a.json", {})
    assert not module.sweep(record, math.inf)
    assert capsys.readouterr().err == f"sweep not measured: {shown}\n" and not record.part("sweep")


def test_a_sweep_over_files_starts_with_nothing_decoded(tmp_path, monkeypatch):
    seen = []

    def run(command, env, **_):
        roots = [Path(word.partition("=")[2]) for word in command if word.startswith("data.root=")]
        images = [Image.open(path).size for root in roots for path in root.glob("val/*/*.JPEG")]
        seen.append((images, Path(env.get("PITOME_CACHE", "")).exists(), command))
        return subprocess.CompletedProcess(command, 0, f"a line\n{json.dumps({'ratio': 1.05})}\n", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    record = Record(tmp_path / "a.json", {})
    assert module.sweep_over_files(record, math.inf, count=3)
    ((images, cached, command),) = seen
    assert images == [(500, 375)] * 3 and not cached
    assert sum(word.startswith("ratio=") and word.count(",") == 7 for word in command) == 1
    assert module.sweep_over_files(record, math.inf, count=3) and len(seen) == 1
    assert module.sweep(record, math.inf) and len(record.part("sweep")) == 2
    judged = {target.name: target for target in targets.judge({"sweep": record.part("sweep")}, [])}
    over = judged["sweep of 8 points over files / its forwards, one decoding, one start"]
    assert (over.found, over.verdict) == ("1.050", "met")


@pytest.mark.nightly
def test_each_image_is_decoded_once(tmp_path):
    record = Record(tmp_path / "a.json", {})
    assert module.sweep_over_files(record, math.inf, count=12, depth=1)
    (cell,) = record.part("sweep").values()
    assert (cell["decoded"], cell["again"]) == (12, 0) and 0 < cell["decoding"] < cell["total"]
