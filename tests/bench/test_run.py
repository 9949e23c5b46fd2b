"""The command: what it refuses, what it writes, what it leaves out when time is short."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from scripts.bench import groups, record, run, timing
from scripts.bench.choice import Choice
from scripts.bench.command import main
from scripts.bench.groups import QUICK_MODEL, Group
from scripts.bench.subjects import Subject
from tests import ROOT
from tests.adapters.tiny import images, vit


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    make_tiny(monkeypatch)


def make_tiny(monkeypatch):
    """A tiny model, whatever is asked for."""
    model = vit()
    monkeypatch.setattr(timing, "build", lambda *_: Subject(model, images(model), (12, 20)))
    monkeypatch.setattr(run.layers, "build", lambda *_: Subject(model, images(model), (12, 20)))
    monkeypatch.setattr(record, "same_code", lambda one, other: True)  # whatever is committed meanwhile


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """What a quick bench wrote."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_tiny(monkeypatch)
        assert main(["--quick", "--parts", "speed", "layers", "--results", str(folder)]) == 0
    return folder


@pytest.fixture
def measured(first, tmp_path):
    """A copy of it, which a test may change."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    return next(tmp_path.glob("*.json"))


def test_a_bench_writes_record_table_and_plot_and_goes_on(measured, tmp_path, capsys):
    path, words = measured, ["--quick", "--parts", "speed", "layers", "--results", str(tmp_path)]
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


def test_a_step_of_training_is_timed_beside_the_unmerged_one(tmp_path):
    assert main(["--quick", "--parts", "training", "--ratio", "0.8", "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    (cell,) = json.loads(path.read_text())["parts"]["speed"].values()
    assert cell["group"]["mode"] == "train" and len(cell["rounds"]) == 6
    assert cell["memory"]["none"] > cell["memory"]["pitome"] > 0, "activations are kept for the backward pass"
    (line,) = [line for line in path.with_suffix(".md").read_text().splitlines() if "| pitome |" in line]
    assert "| train |" in line and "0.8" in line


def test_a_step_of_training_reaches_every_weight():
    model = vit()
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(seen.append)
    with torch.no_grad():
        timing.runner(model, images(model), "train")()
    assert len(seen) == len(list(model.parameters())) and all(p.grad is None for p in model.parameters())


def test_no_time_measures_nothing_and_says_so(tmp_path, capsys):
    assert main(["--quick", "--parts", "speed", "--minutes", "1e-9", "--results", str(tmp_path)]) == 0
    assert "not everything is measured yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ratio", "1.5"], "ratio=1.5 is outside (0, 1]"),
        (["--ratio", "1"], "ratio=1 merges nothing"),
        (["--device", "mps"], "device=mps cannot be timed; give cpu, cuda or cuda:N"),
        (["--methods", "none"], "methods=none leaves nothing to compare with"),
        (["--quick", "--models", "bert_base"], "quick measures test_vit alone"),
        (["--quick", "--parts", "sweep"], "nothing is left to measure: sweep is left out: --quick"),
        (["--parts", "export", "--dtype", "bfloat16"], "it runs on the CPU in float32 alone"),
        (["--parts", "export", "reference", "--device", "cuda"], "reference is left out: it needs --ref"),
        (["--parts", "sweep", "--ratio", "0.9", "--methods", "tome"], "it takes no --methods, --ratio"),
        (["--parts", "llava", "--models", "vit_base_patch16_224"], "of clip_l336, which --models does not"),
        (["--parts", "speed", "--reference", "/tmp"], "the part `reference` is not; add it to --parts"),
        (["--models", "resnet50"], "resnet50 cannot be timed with pitome, choose others: it is not made"),
        (["--models", "swin_tiny_patch4_window7_224"], "cannot patch SwinTransformer"),
        (["--models", "vit_base_patch16_siglip_224"], "cannot be timed with diffrate"),
        (["--batch", "0"], "batch=0 is not a whole number >= 1"),
        (["--pairs", "5"], "pairs=5 is too few for an interval; give 6 or more"),
        (["--minutes", "-1"], "minutes=-1.0 is not above 0"),
        (["--methods", "pitom"], "did you mean pitome"),
        (["--models", "vit_nobody"], "unknown model 'vit_nobody'"),
        (["--reference", "/no/such/folder"], "is not a checkout of the PiToMe repository"),
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
    assert {group.ratio for group in groups_of(tmp_path, ratio=0.8)} == {0.8}
    assert {group.ratio for group in groups_of(tmp_path, "scaling", ratio=0.8)} == {0.8}
    assert {(group.model[4:8], group.ratio) for group in groups_of(tmp_path, "training")} == {
        (size, ratio) for size in ("smal", "base") for ratio in (0.9, 0.8)
    }
    assert {group.ratio for group in groups_of(tmp_path, ratio=0.8, device="cuda")} == {0.8}
    assert {group.ratio for group in groups_of(tmp_path, ratio=0.8, quick=True)} == {0.8}
    assert {group.batch for group in groups_of(tmp_path, models=["vit_base_patch16_224"], batch=4)} == {1, 4}


def test_on_a_gpu_wall_time_alone_is_measured(tmp_path):
    found = groups_of(tmp_path, device="cuda", batch=64)
    assert {group.clock for group in found} == {"wall"}
    assert {group.mode for group in found} == {"eager", "compile", "graphs"}
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


def test_more_pairs_go_on_from_those_that_are_there(measured, tmp_path):
    before = json.loads(measured.read_text())["parts"]["speed"]
    assert main(["--quick", "--parts", "speed", "--results", str(tmp_path), "--pairs", "7"]) == 0
    cells = json.loads(measured.read_text())["parts"]["speed"]
    for key, cell in cells.items():
        assert (len(cell["rounds"]), cell["group"]["pairs"]) == (7, 7)
        assert cell["rounds"][:6] == before[key]["rounds"]


def test_the_keys_of_what_is_measured_stay():
    """Or the records that are there would begin anew."""
    assert {group.key for group in groups.images() + groups.scaling()} >= {
        "vit_small_patch16_224-224-batch16-0.925-eager-cpu-pitome+tome+tofu+diffrate",
        "vit_base_patch16_224-224-batch16-0.925-compile-wall-pitome+tome+tofu+diffrate",
        "vit_small_patch16_224-224-batch16-0.95-eager-cpu-pitome",
        "bert_base-512-batch4-0.8-first3-eager-cpu-pitome+tome",
        "vit_small_patch16_224-224-batch1-0.925-onnx-cpu-pitome",
        "clip_l336-336-batch1-0.925-eager-cpu-pitome",
        "vit_small_patch16_224-1024-batch1-0.925-eager-cpu-pitome",
    }


@pytest.mark.parametrize(
    "words", [["--ratio", "2"], ["--ratio", "1"], ["--methods", "pitom"], ["--results", "{file}"]]
)
def test_what_text_decides_is_told_before_torch_is_imported(words, tmp_path):
    (tmp_path / "file").write_text("")
    words = [word.format(file=tmp_path / "file") for word in words]
    code = f"import sys; from scripts.bench.command import main; assert main({words}) == 2; "
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_results_in_a_file_are_refused_before_anything_is_timed(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        assert main(["--quick", "--results", str(tmp_path / folder)]) == 2
        assert f"{tmp_path / 'file'} is a file; give another one" in capsys.readouterr().err


def test_every_option_that_a_part_does_not_take_is_told(tmp_path):
    choice = Choice(tmp_path, ratio=0.9, methods=["tome", "random"], pairs=40, reference=tmp_path)
    assert choice.notes() == [
        "startup is left out: it takes no --methods, --ratio",
        "sweep is left out: it takes no --methods, --ratio",
        "--pairs is not for export, layers: nothing is taken in pairs there",
        "reference is without random: the authors' repository lacks it",
    ]
    assert Choice(tmp_path, dtype="bfloat16").notes() == [
        "export is left out: it runs on the CPU in float32 alone",
        "startup is left out: it runs on the CPU in float32 alone",
        "reference is left out: it needs --reference",
        "sweep is left out: it runs on the CPU in float32 alone",
        "speed is without onnxruntime: it runs in float32 alone",
    ]
    assert "onnx" not in {group.mode for group in groups_of(tmp_path, dtype="bfloat16")}
    assert "onnx" in {group.mode for group in groups_of(tmp_path)}


def test_options_reach_the_parts(tmp_path, monkeypatch):
    """Ratio, methods and pairs, where a part takes them."""
    seen = {}
    for name, place in (("compare", run.export), ("reference", run), ("time_llava", run)):
        monkeypatch.setattr(place, name, lambda *_, name=name, **given: seen.update({name: given}))
    monkeypatch.setattr(run.layers, "break_down", lambda *given: seen.update(layers=given))
    choice = Choice(tmp_path, ratio=0.9, methods=["tome", "stride"], pairs=40, reference=tmp_path)
    for part in ("export", "reference", "llava", "layers"):
        for _, step in run._steps(part, choice, "cpu"):
            step(None, 0.0)
    for name in ("compare", "reference", "time_llava"):
        assert seen[name]["ratio"] == 0.9
        assert seen[name].get("pairs", 40) == 40
        assert seen[name]["methods"] == (("tome",) if name == "reference" else ("tome", "stride"))
    cells, ratio = seen["layers"][0], seen["layers"][-1]
    assert ratio == 0.9 and {method for *_, method in cells} == {"none", "tome", "stride"}
    cells = run._layers(Choice(tmp_path, models=["vit_tiny_patch16_224"]), ("tome",))
    assert cells == [("vit_tiny_patch16_224", 224, 16, method) for method in ("none", "tome")]


def test_a_record_of_other_code_is_kept_where_time_is_short(measured, tmp_path, monkeypatch, capsys):
    path, words = measured, ["--quick", "--parts", "speed", "layers", "--results", str(tmp_path)]
    before = json.loads(path.read_text())
    before["conditions"] |= {"git_revision": "a" * 40, "git_dirty": False, "load": 0.0}
    for cells in before["parts"].values():  # as records were
        for cell in cells.values():
            del cell["measured"]
    path.write_text(json.dumps(before))
    monkeypatch.setattr(record, "same_code", lambda one, other: False)
    capsys.readouterr()
    assert main([*words, "--minutes", "1e-9"]) == 0
    said = capsys.readouterr().err
    assert said.count("measured by other code (revision aaaaaaa)") == 3
    assert json.loads(path.read_text())["parts"] == before["parts"]
    assert f"git_revision {'a' * 40};" in path.with_suffix(".md").read_text()


def test_the_least_number_of_pairs_is_that_of_the_intervals() -> None:
    """It stands twice, so that options are checked before torch is imported."""
    from pitome.measure import throughput
    from scripts.bench.groups import LEAST_PAIRS

    assert LEAST_PAIRS == throughput.LEAST_PAIRS
