"""Training of every task with merging on, from a folder of 100 samples to weights, card and record: killed
once on its way and continued by the same command, it ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pitome.records.store import Store
from tests.tasks.retrieval.test_retrieval import TINY as TINY_CLIP
from tests.tasks.retrieval.test_retrieval_blip import TINY as TINY_BLIP
from tests.tasks.text import tiny_text
from tests.tasks.vqa.tiny_llava import TINY as TINY_LLAVA
from tests.test_adding import environment

COUNT = 100
EPOCHS = 3

# Imports everything once, then forks a process for each command: a start costs no import. With `kill`, the
# process kills itself in the middle of the second epoch.
STARTER = """
import json, os, signal, sys
import torch
from pitome.cli.main import main
import pitome.runs.job, pitome.tasks.training as training
from pitome.tasks.classification import images, task
from pitome.tasks.retrieval import task
from pitome.tasks.text import task
from pitome.tasks.vqa import task

from pitome.tasks.retrieval import blip
from tests.tasks.text import tiny_text

images.default_workers = lambda: 0
blip.fetch_minilm, blip.load_tokenizer = (lambda: None), (lambda folder: tiny_text.tokenizer())

def kill(self, trainer, module, *args):
    if trainer.current_epoch == 1 and trainer.global_step % trainer.num_training_batches == 2:
        os.kill(os.getpid(), signal.SIGKILL)

def keep_last(self, trainer, module):  # the best epoch may be the first, whatever comes after it
    torch.save(module.model.state_dict(), "last.pt")

training.EpochLog.on_train_end = keep_last
for line in sys.stdin:
    job = json.loads(line)
    if not (pid := os.fork()):
        os.chdir(job["folder"])
        out = os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        os.environ["PITOME_CACHE"] = "cache"
        if job["kill"]:
            training.EpochLog.on_train_batch_end = kill
        code = 1
        try:
            code = main(job["words"])
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
Start = Callable[..., int]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """start(folder, words, kill=False) -> exit code of run.py there, -9 if it was killed."""
    # One thread: a pool would not outlive a fork.
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(OMP_NUM_THREADS="1"),
    )
    assert starter.stdin is not None and starter.stdout is not None

    def call(folder: Path, words: list[str], *, kill: bool = False) -> int:
        assert starter.stdin is not None and starter.stdout is not None
        job = {"folder": str(folder), "words": words, "kill": kill}
        starter.stdin.write(json.dumps(job) + "\n")
        starter.stdin.flush()
        return int(starter.stdout.readline())

    yield call
    starter.stdin.close()
    starter.wait(timeout=60)


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 60, (24, 24, 3))
    Image.fromarray((noise + shade % 190).astype(np.uint8)).save(path)


def classification(folder: Path) -> list[str]:
    """Images of one's own, in a folder per class."""
    for number in range(COUNT):
        part = "test" if number % 5 == 0 else "train"
        picture(folder / "data" / part / ("rose", "tulip")[number % 2] / f"{number}.png", number)
    (folder / "conf" / "data").mkdir(parents=True)
    (folder / "conf" / "data" / "flowers.yaml").write_text(
        "# Flowers\nname: flowers\ntask: classification\nroot: data\nclasses: [rose, tulip]\n"
    )
    small = [f"model.args.{key}" for key in ("depth=2", "embed_dim=16", "patch_size=7")]
    return [*small, "data=flowers", "trainer=imagenet", "trainer.workers=0"]


def text(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    for part in ("train", "test"):
        rows = [f"{('good', 'bad')[n % 2]} film {'a b ' * (n % 5)}{part} {n},{n % 2}" for n in range(COUNT)]
        (folder / "data" / f"{part}.csv").write_text("\n".join(["text,label", *rows]))
    tiny_text.write_folder(folder / "cache" / "minilm", classifier=False)
    args = [f"args.{key}={value}" for key, value in tiny_text.CONFIG["args"].items()]
    small = [f"{'+' if 'max' in word else ''}model.{word}" for word in args]
    return ["task=text", *small, "data=imdb", "trainer.schedule=linear"]


def photographs(folder: Path) -> list[str]:
    """Photographs and their captions, in Karpathy's form."""
    entries = []
    for number in range(COUNT):
        part = "test" if number % 5 == 0 else "val" if number % 5 == 1 else "train"
        picture(folder / "data" / "images" / f"{number}.png", number)
        said = [{"raw": f"{('one', 'two')[number % 2]} {('shirt', 'dress', 'bag')[number % 3]} at the top"}]
        entries.append({"filename": f"{number}.png", "split": part, "sentences": said})
    (folder / "data" / "dataset_flickr30k.json").write_text(json.dumps({"images": entries}))
    return ["data=flickr30k", "trainer.workers=0"]


def retrieval(folder: Path) -> list[str]:
    return [*TINY_CLIP, "model=clip_scenes", *photographs(folder)]


def blip(folder: Path) -> list[str]:
    return [*TINY_BLIP, *photographs(folder), "trainer=coco_blip", "task.rerank=5"]


def vqa(folder: Path) -> list[str]:
    for part, count in (("train", COUNT), ("test", 20)):
        rows = []
        for number in range(count):
            picture(folder / "data" / part / "images" / f"{number}.png", number)
            shape = ("circle", "triangle")[number % 2]
            rows += [["what is the shape?", shape, number], [f"is there a {shape}?", "yes", number]]
        (folder / "data" / part / "questions.json").write_text(json.dumps(rows))
    return [*TINY_LLAVA, "task=vqa", "data=easy_vqa"]


TASKS = [
    classification,
    text,
    vqa,
    *(pytest.param(task, marks=pytest.mark.nightly) for task in (retrieval, blip)),  # test_retrieval.py too
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
@pytest.mark.parametrize(
    "minutes", [1e-9, pytest.param(10, marks=pytest.mark.nightly)], ids=["within", "after epochs"]
)
def test_training_with_merging_survives_a_kill(
    task: Callable[[Path], list[str]], minutes: float, tmp_path: Path, start: Start
) -> None:
    """And ends with the weights of an undisturbed one: killed in the middle of an epoch, it goes on from a
    checkpoint of the step before, or from that of the epoch before."""
    words = task(tmp_path)
    if task is not classification:
        words = [*words, "data.root=data"]
    stages = f"trainer.stages=[{{epochs: {EPOCHS}, batch_size: 20, lr: 1e-3}}]"
    words = ["mode=train", "merge=pitome", "ratio=0.8", "measure=none", "logger=none", stages, *words]
    words += [f"trainer.save_every={minutes}"]
    out, results = tmp_path / "out", tmp_path / "results"
    assert start(tmp_path, words, kill=True) == -9, out.read_text()
    (folder,) = (results / "train").iterdir()
    assert {path.name for path in folder.iterdir()} == {"epochs.jsonl", "stage0.ckpt"}
    assert Store(results / "runs").all() == []
    saved = torch.load(folder / "stage0.ckpt", weights_only=True)
    within = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]
    epochs = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    assert (epochs, within) == ((1, 1) if minutes < 1 else (1, saved["global_step"]))
    assert start(tmp_path, words) == 0, out.read_text()
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == list(range(EPOCHS)), "the first epoch is not repeated"
    (weights,), (card,) = folder.glob("*.safetensors"), folder.glob("*.md")
    assert {path.name for path in folder.iterdir()} == {"epochs.jsonl", weights.name, card.name}
    assert all(value.isfinite().all() for value in load_file(weights).values())
    said = card.read_text()
    assert "merge=pitome ratio=0.8" in said and f"{EPOCHS} epochs" in said and "kept: epoch" in said
    (record,) = Store(results / "runs").all()
    assert record.done and record.mode == "train" and record.method.name == "pitome"
    assert record.score is not None and record.weights.sha256 and record.weights.sha256 in said
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    whole = tmp_path / "whole"
    assert start(tmp_path, [*words, f"results={whole}/runs"]) == 0, out.read_text()
    (undisturbed,) = whole.glob("train/*/*.safetensors")
    same = load_file(undisturbed)
    assert undisturbed.parent.name == weights.parent.name
    assert all(torch.equal(value, same[key]) for key, value in load_file(weights).items())
    undisturbed_last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert all(torch.equal(value, undisturbed_last[key]) for key, value in last.items())
