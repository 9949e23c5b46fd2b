"""The hub's way in: every model and data set of conf/ is downloaded from a hub on a loopback port and read,
and a second time without that hub; by the whole command for one of each kind, nightly for all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pitome.cli.main import main
from pitome.config import CONF
from pitome.records.store import Store
from pitome.runs.compose import check_command_line, check_places, register_schema
from pitome.tasks.base import task_class
from pitome.tasks.retrieval.clip import build_model
from pitome.tasks.text.models import load_base
from tests import ROOT
from tests.configs import model_of
from tests.hub_double import TOKEN, Hub, point_to, serve
from tests.hub_repos import DATA, MODELS, READERS, add_base, add_data, add_model, conf, small, words

NOBODY = "http://127.0.0.1:9"
WHOLE = {"deit_t", "clip_l", "distilbert", "llava_7b"}  # run in every suite, with a data set each
# Opened in every suite: one for each form of files; the others are nightly.
OPENED = {"clip_l_laion", "siglip_b16", "blip_base", "bert_base"}
SIZES = {"clip_l336": "336", "siglip_b16": "160"}


def on_hub(group: str) -> list[str]:
    """The files of conf/ that name a repository."""
    files = {path.stem: path.read_text() for path in sorted((CONF / group).glob("*.yaml"))}
    key = "repository: " if group == "data" else "hub:"
    return [name for name, text in files.items() if key in text and 'repository: ""' not in text]


def test_every_source_of_conf_has_a_stand_in() -> None:
    assert sorted(DATA) == on_hub("data")
    assert sorted(MODELS) == on_hub("model")


def opened(folder: Path, given: Sequence[str]) -> object:
    """Model and data as a run gets them, without computing."""
    register_schema()
    ((config, _),) = check_command_line([*given, f"results={folder}/results"], multirun=False)
    check_places([config])
    task = task_class(config.task.name)(config)
    return task.weights, task.sha256, task.info.record()


def recorded(folder: Path, given: Sequence[str]) -> object:
    """What a run records."""
    options = ["logger=none", "merge=pitome", "ratio=0.9", "batch_size=3", "rerun=true"]
    assert main([*options, f"results={folder}/results", *given]) == 0
    (record,) = Store(folder / "results").all()
    assert record.data.n_skipped == 0 and record.data.n_samples > 1
    return record.weights, record.weights.sha256, record.data, record.metrics


def ways(names: Sequence[str], often: Mapping[Callable, Container[str]]) -> pytest.MarkDecorator:
    """Each name both ways, nightly where it is not named in `often`."""
    return pytest.mark.parametrize(
        ("name", "way"),
        [
            pytest.param(
                name, way, id=f"{name}-{way.__name__}", marks=() if name in some else pytest.mark.nightly
            )
            for way, some in often.items()
            for name in names
        ],
    )


def twice(hub: Hub, way: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch, given: list[str]) -> tuple:
    """With the hub, then without it; both give the same."""
    first = way(folder, given)
    assert hub.downloads() and not hub.leaked
    hub.asked.clear()
    point_to(NOBODY, monkeypatch)
    assert way(folder, given) == first and hub.asked == []
    return first


@ways(list(DATA), {opened: DATA, recorded: ()})
def test_a_data_set(name, way, hub, tmp_path, monkeypatch) -> None:
    repository = add_data(hub, name)
    task = conf("data", name)["task"]
    given = [*READERS[task], f"data={name}", "source=hub"]
    if task == "text":  # a random model would need the vocabulary of a package
        add_model(hub, "bert_base", name)
    else:
        given += ["weights=random"]
    if name == "fashion_mnist":
        given[0] = "model=vit_fmnist"
    elif name == "scenes":
        given.append("limit=12")
    _, _, data, *_ = twice(hub, way, tmp_path, monkeypatch, given)
    assert "hub" in repr(data) and (repository.commit in repr(data) or task != "vqa")


@ways([name for name in MODELS if name != "bert_large"], {opened: OPENED, recorded: WHOLE})
def test_a_model(name, way, hub, tmp_path, monkeypatch) -> None:
    task = conf("model", name)["task"]
    data = {"classification": "imagenet", "text": "sst2", "retrieval": "flickr30k", "vqa": "mme"}[task]
    add_data(hub, data)
    add_model(hub, name, data)
    given = [f"task={task}", f"model={name}", f"data={data}", *words(name)]
    if name in ("siglip_b", "dinov2_s"):
        given += ["task.head=knn", "task.k=5"]
    if name in SIZES:
        given.append(f"model.preprocess.size={SIZES[name]}")
    weights, sha256, *_ = twice(hub, way, tmp_path, monkeypatch, given)
    assert weights.source == "hub" and sha256


@pytest.mark.parametrize("data", ["imdb", "rotten_tomatoes"])
@pytest.mark.parametrize("name", ["bert_base", "distilbert"])
def test_the_other_classifiers_of_a_text_model(name, data, hub, tmp_path) -> None:
    add_data(hub, data)
    add_model(hub, name, data)
    weights, *_ = opened(tmp_path, ["task=text", f"model={name}", f"data={data}", *words(name)])
    assert weights.name in conf("model", name)["checkpoints"][data]["source"]


@pytest.mark.parametrize("name", ["bert_base", "bert_large", "distilbert"])
def test_training_starts_from_the_base(name, hub) -> None:
    norm = add_base(hub, name)
    model, _ = load_base(small(name), 2)
    own = next(value for key, value in model.state_dict().items() if key.endswith("LayerNorm.weight"))
    assert torch.equal(own, norm)


# Words of the command line, what is done to the hub, and what the last line says.
BAD: dict[str, tuple[str, Callable[[Hub], object], str]] = {
    "gated data": (
        "data=imagenet",
        lambda hub: hub.repositories["dataset", "ILSVRC/imagenet-1k"].close(),
        "is gated: accept its terms on the hub and run `hf auth login`",
    ),
    "gated model": (
        "data=imagenet",
        lambda hub: hub.repositories["model", "timm/deit_tiny_patch16_224.fb_in1k"].close(),
        "is gated: accept its terms on the hub and run `hf auth login`",
    ),
    "no such model": (
        "data=imagenet model.checkpoint=hub:timm/deit_tiny@main",
        lambda hub: None,
        "timm/deit_tiny (revision main) is not on the hub, or needs `hf auth login`",
    ),
    "no such data set": (
        "data=imagenet data.repository=none/none",
        lambda hub: None,
        "none/none (revision main) is not on the hub, or needs `hf auth login`",
    ),
    "no such revision of a model": (
        "data=imagenet model.checkpoint=hub:timm/deit_tiny_patch16_224.fb_in1k@v2",
        lambda hub: None,
        "(revision v2) is not on the hub: it has no such revision",
    ),
    "no such revision of a data set": (
        "data=imagenet data.revision=v2",
        lambda hub: None,
        "(revision v2) is not on the hub: it has no such revision",
    ),
    "no such file": (
        "data=imagenet",
        lambda hub: hub.add("dataset", "ILSVRC/imagenet-1k", {"README.md": b""}),
        "data/validation-*.parquet of ILSVRC/imagenet-1k (revision main) is not on the hub: check the rev",
    ),
    "a web page for a file": (
        "data=imagenet",
        lambda hub: hub.trouble.instead.update({"model.safetensors": b"<html>log in</html>"}),
        "did not arrive whole (",
    ),
    "a pointer for a file": (
        "data=imagenet",
        lambda hub: hub.repositories["model", "timm/deit_tiny_patch16_224.fb_in1k"].put(
            "model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"
        ),
        "model.safetensors is a Git LFS pointer",
    ),
    "a damaged table": (
        "data=imagenet",
        lambda hub: hub.repositories["dataset", "ILSVRC/imagenet-1k"].put(
            "data/validation-00000-of-00002.parquet", b"version https://git-lfs.github.com/spec/v1\n"
        ),
        "validation-00000-of-00002.parquet cannot be read (",
    ),
    "a busy hub": (
        "data=imagenet",
        lambda hub: hub.trouble.status.update({".parquet": 503}),
        "(revision main) was refused by the hub (",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_goes_wrong_is_one_line(case, hub, tmp_path, monkeypatch, capfd) -> None:
    add_data(hub, "imagenet")
    add_model(hub, "deit_t")
    given, harm, says = BAD[case]
    harm(hub)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    options = [*READERS["classification"], "logger=none", f"results={tmp_path}/results", "source=hub"]
    assert main([*options, *given.split()]) == 2
    *before, last = [line for line in capfd.readouterr().err.splitlines() if "it/s" not in line]
    assert last.startswith("error: ") and says in last, last
    assert all(line.startswith("fetching ") for line in before), before


def test_offline_nothing_is_asked(hub, tmp_path, monkeypatch, capfd) -> None:
    add_model(hub, "deit_t")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main([*READERS["classification"], "data=imagenet", f"results={tmp_path}/results"]) == 2
    assert "is not in the hub's cache and the hub is out of reach" in capfd.readouterr().err
    assert hub.asked == []


def test_with_a_token_a_gated_data_set_is_read(hub, tmp_path, monkeypatch) -> None:
    add_data(hub, "imagenet").close()
    (tmp_path / "token").write_text(TOKEN)
    assert opened(tmp_path, [*READERS["classification"], "data=imagenet", "source=hub", "weights=random"])
    assert not hub.leaked, "the token stays with the hub"


@pytest.mark.nightly
def test_one_command_on_a_connected_machine(tmp_path) -> None:
    """With HF_ENDPOINT as all that is given: a CLIP ViT-L/14 of the true shapes, 0.86 GB in half precision,
    is fetched, and one command goes from download to table, the second time without the hub."""
    with torch.device("meta"):
        shapes = build_model(model_of(conf("model", "clip_l"))).model.state_dict()
    state = {name: torch.randn(value.shape).half() / 50 for name, value in shapes.items()}
    save_file(state, tmp_path / "clip.safetensors")
    hub = Hub()
    files = {"open_clip_model.safetensors": tmp_path / "clip.safetensors"}
    hub.add("model", "timm/vit_large_patch14_clip_224.openai", files)
    add_data(hub, "flickr30k")
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PITOME_CACHE": str(tmp_path / "cache")}
    command = "task=retrieval model=clip_l data=flickr30k merge=pitome ratio=0.925 logger=none rerun=true"
    done = []
    for _ in range(2):
        with serve(hub) as address:
            done.append(
                subprocess.run(
                    [sys.executable, str(ROOT / "run.py"), *command.split()],
                    env=environment | {"HF_ENDPOINT": address if not done else NOBODY},
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                )
            )
    assert done[0].returncode == done[1].returncode == 0, done[0].stderr + done[1].stderr
    assert "fetching open_clip_model.safetensors" in done[0].stderr and "fetching" not in done[1].stderr
    assert "clip_l" in done[0].stdout
