"""The command: what it refuses, what it writes, what it leaves out when time is short."""

from __future__ import annotations

import json

import pytest
import torch

from pitome.bench import run, timing
from pitome.bench.groups import QUICK_MODEL, Group
from pitome.bench.run import Choice
from pitome.bench.subjects import Subject
from scripts.bench import main
from tests.adapters.tiny import images, vit


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A tiny model, whatever is asked for."""
    model = vit()
    monkeypatch.setattr(timing, "build", lambda *_: Subject(model, images(model), (12, 20)))
    monkeypatch.setattr(run.layers, "build", lambda *_: Subject(model, images(model), (12, 20)))


def test_a_bench_writes_record_table_and_plot_and_goes_on(tmp_path, capsys):
    words = ["--quick", "--parts", "speed", "layers", "--results", str(tmp_path)]
    assert main(words) == 0
    (path,) = tmp_path.glob("*.json")
    version = torch.__version__.partition("+")[0]
    assert path.name.startswith(f"cpu-float32-torch{version}-batch16-threads") and "-quick" in path.name
    before = json.loads(path.read_text())["parts"]
    assert [len(cell["rounds"]) for cell in before["speed"].values()] == [6, 6]
    assert {cell["method"] for cell in before["layers"].values()} == {"pitome"}
    text = path.with_suffix(".md").read_text()
    assert "## Targets" in text and QUICK_MODEL in text and "## Per layer" in text
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert main(words) == 0
    assert json.loads(path.read_text())["parts"] == before
    assert "not everything is measured" not in capsys.readouterr().out


def test_no_time_measures_nothing_and_says_so(tmp_path, capsys):
    assert main(["--quick", "--parts", "speed", "--minutes", "1e-9", "--results", str(tmp_path)]) == 0
    assert "not everything is measured yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ratio", "1.5"], "ratio=1.5 is outside (0, 1]"),
        (["--batch", "0"], "batch=0 is not a whole number >= 1"),
        (["--pairs", "5"], "pairs=5 is too few for an interval; give 6 or more"),
        (["--minutes", "-1"], "minutes=-1.0 is not above 0"),
        (["--methods", "pitom"], "did you mean pitome"),
        (["--models", "vit_nobody"], "unknown model 'vit_nobody'"),
        (["--reference", "/no/such/folder"], "is no checkout of the PiToMe repository"),
        (["--device", "cuda:99"], "does not exist here"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, capsys):
    assert main([*words, "--results", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and says in shown.err
    assert not list(tmp_path.iterdir())


def groups_of(tmp_path, part="speed", **choice) -> list[Group]:
    return run._groups(part, Choice(tmp_path, **choice))


def test_choices_narrow_what_is_measured(tmp_path):
    every = groups_of(tmp_path)
    assert len({group.key for group in every}) == len(every)
    assert {group.clock for group in every} == {"cpu", "wall"}
    assert {group.mode for group in every} == {"eager", "compile", "onnx"}
    (one,) = groups_of(tmp_path, models=["clip_l336"])
    assert one.size == 336
    assert {group.methods for group in groups_of(tmp_path, methods=["tome"])} == {("tome",)}
    assert all(group.batch == 4 for group in groups_of(tmp_path, models=["vit_base_patch16_224"], batch=4))


def test_on_a_gpu_wall_time_alone_is_measured(tmp_path):
    found = groups_of(tmp_path, device="cuda", batch=64)
    assert {group.clock for group in found} == {"wall"}
    assert {group.mode for group in found} == {"eager", "compile"}
    assert {group.batch for group in found} == {1, 64}
    assert len({group.key for group in found}) == len(found)


def test_any_model_of_timm_at_its_own_size(tmp_path):
    found = groups_of(tmp_path, models=["deit3_small_patch16_384", "vit_tiny_patch16_224"])
    assert [(g.model[:4], g.size, g.clock) for g in found] == [
        ("deit", 384, "cpu"),
        ("deit", 384, "wall"),
        ("vit_", 224, "cpu"),
        ("vit_", 224, "wall"),
    ]


def test_more_pairs_go_on_from_those_that_are_there(tmp_path, capsys):
    words = ["--quick", "--parts", "speed", "--results", str(tmp_path)]
    for pairs in (6, 7):
        assert main([*words, "--pairs", str(pairs)]) == 0
        (path,) = tmp_path.glob("*.json")
        cells = json.loads(path.read_text())["parts"]["speed"].values()
        assert (
            {len(cell["rounds"]) for cell in cells} == {cell["group"]["pairs"] for cell in cells} == {pairs}
        )
