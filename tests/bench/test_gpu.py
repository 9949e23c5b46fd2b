"""The GPU pack in its tiny form, so that its first run on a GPU is not its first run."""

from __future__ import annotations

import json

import pytest
import torch

from scripts.bench import gpu, llava
from scripts.bench.results import results
from tests.bench.test_llava import small_tower  # noqa: F401  (a fixture for every test here)


@pytest.fixture(autouse=True)
def one_row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling is for the night."""
    if "compiled" not in request.node.name:
        monkeypatch.setattr(gpu, "groups", lambda tiny, every=gpu.groups: every(tiny)[:1])
    small = {**llava.FULL.language, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    monkeypatch.setattr(gpu, "TINY_LLAVA", llava.Sizes(28, 3, {**small, "num_hidden_layers": 1}, text=3))


def run(folder, *words: str) -> int:
    return gpu.main(["--device", "cpu", "--tiny", "--results", str(folder), *words])


def test_all_of_it_runs_and_is_not_measured_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "golden", lambda *_: {"passed": 1, "failed": 0})  # a process of its own: below
    assert run(tmp_path) == 0
    assert "all of it is measured" in capsys.readouterr().out
    (path,) = tmp_path.glob("gpu-pack-*-tiny.json")
    parts = json.loads(path.read_text())["parts"]
    assert all(cell["same_class"] >= 60 for cell in parts["agreement"].values())
    assert [cell["fastest"] in cell for cell in parts["decisions"].values()] == [True] * 3
    assert {result.method for result in results(parts["speed"])} == {"pitome", "tome"}
    assert set(parts["llava"]) == {"pitome", "tome"}
    assert any(name.startswith("aten::") for name in parts["profile"]["slowest"])
    page = path.with_suffix(".md").read_text()
    assert "golden: float32 on cpu" in page and "decisions: sums, batch 2, 20 tokens" in page
    for name in ("golden", "agreement", "decide"):
        monkeypatch.setattr(gpu, name, lambda *_: pytest.fail("measured twice"))
    assert run(tmp_path) == 0


def test_nothing_is_begun_after_the_minutes(tmp_path, capsys):
    assert run(tmp_path, "--minutes", "0") == 0
    assert "the same command goes on" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert gpu.main(["--results", str(tmp_path)]) == 2
    assert "cuda" in capsys.readouterr().err


@pytest.mark.parametrize("question", gpu.QUESTIONS)
def test_sides_of_a_question_compute_the_same(question):
    sides = gpu.QUESTIONS[question]("cpu", 2, 26)
    if question == "ranks":
        assert torch.equal(sides["topk"]().indices, sides["stable sort"]().indices[:, :2])
        return
    first, second = ("broadcast", "key column") if question == "bias" else ("index_add", "one-hot product")
    one, other = sides[first](), sides[second]()[..., : 64 if question == "bias" else None]
    tolerance = 0.03 if question == "bias" else 1e-5
    torch.testing.assert_close(one.reshape(other.shape), other, atol=tolerance, rtol=tolerance)


@pytest.mark.nightly
def test_compiled_rows_and_golden_cases_run_too(tmp_path):
    assert run(tmp_path) == 0
    (path,) = tmp_path.glob("gpu-pack-*-tiny.json")
    parts = json.loads(path.read_text())["parts"]
    (golden,) = parts["golden"].values()
    assert golden["passed"] > 0 and golden["failed"] == 0
    rows = results(parts["speed"])
    assert {row.group["mode"] for row in rows} == {"eager", "graphs"} and all(row.complete for row in rows)
