"""Bad input: one line that says what to do, exit code 2, no traceback; torch is never imported."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.cli.worker import Worker

CASES = {
    "ratio=0": "outside (0, 1]",
    "ratio=1.5": "outside (0, 1]",
    "ratio=nan": "outside (0, 1]",
    "ratio=-1": "outside (0, 1]",
    "ratio=abc": "is not a number",
    "ratio=[0.9,2]": "outside (0, 1]",
    "r=-3": "whole number",
    "r=1.5": "whole number",
    "flops=0": "outside (0, 1]",
    "flops=abc": "flops=abc is not a number in (0, 1]",
    "ratio=0.9 r=4": "ratio and r exclude each other",
    "ratio=0.9 flops=0.5": "ratio and flops exclude each other",
    "ratio=0.9 inflection=1": "goes with a single r",
    "keep=0": "neither a number of image tokens",
    "keep=1.5": "nor a share of them in (0, 1]",
    "keep=0.5 ratio=0.9": "ratio and keep exclude each other",
    "keep=0.5": "keep=0.5 is for task=vqa, not for task=classification",
    "merge=divprune": "merge=divprune does not fit task=classification; it is for: vqa",
    "task=vqa merge=divprune": "merge=divprune needs keep",
    "task=vqa merge=divprune ratio=0.9": "merge=divprune takes keep, not ratio",
    "keep=0.5 task=retrieval task.tower=tome": "task.tower=tome is for task=vqa, not for task=retrieval",
    "task=vqa data=scenes_qa data.root=/tmp": "data=scenes_qa is made on the spot; leave out data.root=/tmp",
    "task=vqa merge=divprune keep=0.5 task.tower=pitme": "did you mean pitome or tome",
    "task=vqa merge=divprune keep=0.5 task.tower=divprune": "does not merge in the layers of a tower; did",
    "task=vqa merge=divprune keep=0.5 task.tower_ratio=0.9": "tower_ratio=0.9 goes with task.tower=NAME",
    "task=vqa model=qwen2_5_vl_7b merge=divprune keep=0.5 task.tower=tome": "attends within windows",
    "task=vqa merge=tofu keep=0.5": "give ratio or r instead of keep",
    "task=vqa merge=divprune keep=0": "neither a number of image tokens",
    "task=vqa merge=divprune keep=1.01": "nor a share of them in (0, 1]",
    "task=vqa merge=divprune keep=257": "keep=257 is more than the 256 tokens of an image",
    "task=vqa merge=random keep=257": "keep=257 is more than the 256 tokens of an image",
    "task=vqa merge=fastv keep=0.5 merge.options.layer=4": "the language model has layers 0 to 3",
    "task=vqa merge=dart keep=0.5": "layer=5 is not one that tokens can be taken out before",
    "task=vqa merge=fastv keep=0.5 merge.options.layr=2": "did you mean merge.options.layer",
    "task=vqa merge=divprune keep=0.5 layers=first2": "leave it out with keep",
    "task=vqa mode=train merge=divprune keep=0.5": "goes with mode=test",
    "task=vqa mode=search merge=divprune keep=0.5": "needs one target, not keep",
    "-m task=vqa merge=none,divprune keep=0.5,2.5": "keep=2.5",
    "schedule=[9,10]": "keeps 10 tokens in layer 1 after 9 in layer 0",
    "schedule=[]": "whole numbers above 0",
    "schedule=no/such/file.json": "cannot be read",
    "schedule={text}": "must hold lists named prune_kept and merge_kept",
    "schedule=published/deit_s@2.8": "available: published/deit_s@2.3",
    "schedule=published/deit@2.9": "did you mean deit_",
    "schedule=[9,8] ratio=0.9": "ratio and schedule exclude each other",
    "schedule=[9,8] layers=first2": "a schedule names every layer",
    "schedule=[9,8] flops=0.5": "names no share, so leave out flops",
    "schedule=uniform ratio=0.9 r=3": "ratio and r exclude each other",
    "mode=search merge=tome": "needs one target: flops=SHARE or speed=TIMES",
    "mode=search merge=tome flops=0.6 speed=2": "needs one target",
    "mode=search merge=tome flops=0.6 ratio=0.9": "needs one target, not ratio",
    "mode=search merge=tome schedule=uniform": "needs one target, not schedule",
    "mode=search merge=none flops=0.6": "needs a method that merges",
    "mode=search merge=tome flops=0.6 devices=2": "runs on one device",
    "mode=search merge=tome flops=0.6 control=resize measure=full": "goes with mode=test",
    "mode=search merge=tome speed=1": "above 1",
    "mode=search merge=pitome flops=0.6 search.options=[protct]": "did you mean protect",
    "mode=search merge=diffrate flops=0.6 merge.options.merge_kept=[9,8]": "has a schedule already",
    "mode=search merge=tome flops=0.6 search.sampler=gradient": "learns the rates of merge=diffrate",
    "mode=search merge=diffrate speed=2 search.sampler=gradient": "for flops=SHARE",
    "mode=search merge=tome flops=0.6 search.sampler=grid": "available: cmaes, gradient, tpe",
    "mode=search merge=tome flops=0.6 search.trials=0": "whole number >= 1",
    "mode=search merge=tome flops=0.6 search.minutes=0": "above 0",
    "-m mode=search,test merge=tome flops=0.6": "a command of its own",
    "-m mode=search merge=tome flops=0.6 hydra/launcher=basic": "one after the other",
    "search.trials=5": "search.trials goes with mode=search alone",
    "speed=1.5": "speed goes with mode=search alone",
    "r=4 inflection=2": "outside [-1, 1]",
    "layers=1:3": "first3",
    "task=clasification": "did you mean classification",
    "model=deit": "did you mean deit_",
    "merge=pitom": "did you mean pitome",
    "data=fashon_mnist": "did you mean fashion_mnist",
    "rato=0.9": "did you mean ratio",
    "merge.options.alfa=1": "did you mean merge.options.alpha",
    "+merge.options.alfa=1": "did you mean alpha",
    "merge.tasks=[text]": "merge=pitome does not fit task=classification",
    "model.task=text": "is for task=text",
    "merge=none,tome": "add -m",
    "-m merge=none,tom": "did you mean tome",
    "-m ratio=0.9,1.1": "outside (0, 1]",
    "data.root=/no/such/folder": "no such folder",
    "data.root={empty}": "is empty",
    "source=local": "data.root=FOLDER",
    "source=hub data.root={empty}": "exclude each other",
    "source=web": "available: auto, hub, local, package",
    "batch_size=0": "whole number >= 1",
    "batch_size=ten": "whole number >= 1",
    "limit=0": "whole number >= 1",
    "seed=abc": "seed",
    "device=gpu": "device=gpu is not known",
    "mode=tset": "did you mean test",
    "mode=train merge=none trainer.stages=[{{epochs:1,batch_size:9,lr:1,patch_size:7}}]": "has patch_size=7",
    "mode=train merge=none trainer.mixup=-1": "trainer.mixup=-1 is not a number >= 0",
    "task=retrieval mode=train merge=none trainer.mixup=1": "is for task=classification",
    "measure=flop": "did you mean flops",
    "precision=8": "available: 16-mixed",
    "weights={text}": "neither a safetensors file nor a torch file",
    "weights={truncated}": "truncated",
    "weights={empty}/none.pth": "no such file",
    "results={text} weights=random": "make it a writable folder or choose another",
    "model=vit_fmnist -m merge=none,tom": "did you mean tome",
    "model.preprocess.size=big": "model.preprocess.size=big is not a whole number",
    "+model.preprocess.crop=1": "did you mean crop_pct",
    "model.preprocess.mean=[0.5,0.5]": "is not a list of 1 numbers",
    "model.preprocess.std=[0]": "model.preprocess.std[0]=0 is outside (0, 1]",
    "model.preprocess.channels=2": "model.preprocess.channels=2 is not known; available: 1, 3",
    "+model.preprocess.crop_pct=0": "outside (0, 1]",
    "+model.preprocess.interpolation=cubic": "did you mean bicubic",
    "model=deit_s model.preprocess={{size:28}}": "model.preprocess.mean is missing",
    "~model.preprocess.mean": "model.preprocess.mean is missing",
    "weights=pretrained model.checkpoint=hubb:a/b": "neither shipped nor hub:OWNER/NAME@REVISION nor a URL",
    "weights=pretrained model.checkpoint=hub:a/b/c@main": "names no repository",
    "imports=[no_such_module]": "no_such_module cannot be imported",
    "ratio=[0.9": "input",
    "=": "",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("places")
    (folder / "empty").mkdir()
    (folder / "text").write_text("not a checkpoint, only some text")
    (folder / "truncated").write_bytes(b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b" " * 10)
    (folder / "fake" / "torch").mkdir(parents=True)
    (folder / "fake" / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    return {name: folder / name for name in ("empty", "text", "truncated", "fake")}


def run(words: list[str], fake: Path) -> subprocess.CompletedProcess[str]:
    """run.py with a torch in front of the real one that ends the process when imported."""
    code = f"import sys; sys.path.insert(0, {str(fake)!r}); sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from pitome.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("worker"))
    yield made
    made.close()


@pytest.mark.parametrize("words", CASES)
def test_one_line_exit_2_without_torch(words: str, places: dict[str, Path], worker: Worker) -> None:
    arguments = [word.format(**places) for word in words.split()]
    if not any(word.startswith("weights=") for word in arguments):
        arguments.append("weights=random")
    answer = worker("run", arguments)
    assert (answer.fault, answer.code, answer.out) == (None, 2, ""), answer
    assert CASES[words] in answer.err


@pytest.mark.parametrize(
    ("variable", "says"),
    [("PITOME_NATIVE=yes", "give auto, on or off"), ("PITOME_CACHE_GB=much", "is not a size in GB")],
)
def test_variables_without_meaning_are_told_without_torch(
    variable: str, says: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(*variable.split("="))
    done = run(["merge=tome", "weights=random", f"results={tmp_path}"], places["fake"])
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert f"{variable}" in done.stderr and says in done.stderr


def test_weights_that_cannot_be_had_are_told_without_torch(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    words = ["task=retrieval", "model=clip_l", "merge=pitome", "ratio=0.925"]
    done = run(words, places["fake"])
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "vit_large_patch14_clip_224.openai (revision" in done.stderr
    assert "give the file with weights=PATH, or use weights=random" in done.stderr


def test_a_sweep_whose_weights_can_be_had_in_part_runs(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = run(["-m", "task=retrieval", "model=clip_l,clip_scenes", "data=scenes"], places["fake"])
    assert "torch was imported" in done.stderr


def test_the_fake_torch_is_seen(places: dict[str, Path]) -> None:
    """A valid command does reach torch, so the cases above could fail."""
    assert "torch was imported" in run(["weights=random"], places["fake"]).stderr


def test_help_needs_neither_torch_nor_hydra(places: dict[str, Path]) -> None:
    (places["fake"] / "hydra").mkdir(exist_ok=True)
    (places["fake"] / "hydra" / "__init__.py").write_text("raise SystemExit('hydra was imported')")
    try:
        done = run(["--help"], places["fake"])
    finally:
        (places["fake"] / "hydra" / "__init__.py").unlink()
        (places["fake"] / "hydra").rmdir()
    assert done.returncode == 0, done.stderr
    for group in ("task", "model", "merge", "data", "trainer", "logger"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [path.stem])
            assert len(line.split()) > 3, f"{path} opens with no comment that describes it"
    assert "examples:" in done.stdout
