"""task=retrieval from the command line to the record, with a tiny CLIP and scenes of small noise."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip import ClipLoss
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.tasks import images
from pitome.tasks.retrieval import data as data_module
from pitome.tasks.retrieval import scenes
from pitome.tasks.retrieval.clip import ImageText, build_model
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.module import RetrievalTraining, contrastive_loss
from pitome.tasks.retrieval.recall import Retrieval, rank_features
from pitome.tasks.retrieval.task import outcomes
from tests.configs import data_in
from tests.tasks.retrieval.test_recall import brute_force
from tests.test_conf import config_of

TINY = (
    "task=retrieval",
    "model.args.vision_cfg.layers=2",
    "model.args.vision_cfg.width=32",
    "model.args.vision_cfg.patch_size=8",
    "model.args.text_cfg.layers=1",
)
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


@pytest.fixture
def retrieve(run: Run) -> Run:
    """retrieve(words) -> exit code of run.py on 40 scenes with the tiny model."""
    return lambda *words, limit=40: run(f"limit={limit}", *words, small=TINY)


def tiny() -> ImageText:
    config = config_of(*TINY).model
    return build_model(config)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A model whose attention is uneven, so that merging changes answers."""
    torch.manual_seed(3)
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    path = tmp_path / "tiny.safetensors"
    save_file({key: value.clone() for key, value in model.state_dict().items()}, path)
    return str(path)


def test_a_record_says_what_was_measured(
    retrieve: Run,
    records: Callable[[], dict[str, Record]],
    tmp_path: Path,
    weights: str,
    images: Path,
) -> None:
    assert retrieve("-m", "merge=none,pitome", "ratio=0.8", f"weights={weights}") == 0
    plain, merged = records()["none"], records()["pitome 0.8"]
    assert merged.data.n_samples == 40 and merged.data.n_skipped == 0 and merged.data.n_truncated == 0
    assert merged.tokens == [50.0, 41.0, 33.0] and merged.method.schedule == [9, 8]
    # The same by other means: features of the model itself, ranks one query at a time.
    model = tiny().eval()
    model.load_state_dict(load_file(weights))
    preprocess = data_module.Preprocess(56, 3, (0.286,) * 3, (0.353,) * 3)
    data = RetrievalData(data_in(images, "scenes"), preprocess, 40, limit=40)
    with torch.no_grad():
        pictures = model.encode_image(next(iter(data.test_dataloader()))[0]).double()
        words = model.encode_text(data.test.captions).double()
    to_text, to_image = brute_force((pictures @ words.T).float(), data.test.owner.tolist())
    for k in (1, 5, 10):
        assert plain.metrics[f"rt{k}"] == pytest.approx(np.mean([rank < k for rank in to_text]))
        assert plain.metrics[f"ri{k}"] == pytest.approx(np.mean([rank < k for rank in to_image]))
    for record in (plain, merged):
        assert record.environment is not None and record.environment.attention == "sdpa"
        assert record.environment.versions["open_clip_torch"] == open_clip.__version__
        parts = sum(record.metrics[f"r{way}{k}"] or 0 for way in "ti" for k in (1, 5, 10))
        assert record.metrics["rsum"] == pytest.approx(100 * parts)
        assert record.score == pytest.approx(parts / 6) and record.headline.name == "mean_recall"
        columns = Store(tmp_path / "results" / "runs").outcomes(record)
        assert columns is not None and len(set(columns["id"])) == 40
        assert float(np.mean(columns["recall"])) == pytest.approx(record.score)
    assert merged.metrics != plain.metrics
    cost = merged.cost
    assert cost is not None and plain.cost is not None and cost.total_macs is not None
    assert cost.macs == pytest.approx(cost.macs_closed_form, rel=1e-3)
    assert cost.unmerged_macs == plain.cost.macs and cost.unmerged_total_macs == plain.cost.total_macs
    assert cost.total_macs - cost.macs == 5 * model.text_macs(), "captions do not merge"


def test_a_sweep_reads_images_and_encodes_captions_once(
    retrieve: Run, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    prepared: list[object] = []
    encoded: list[str] = []
    prepare, encode = images._channels, ImageText.encode_text  # the last step of every view

    def count(image: Any, preprocess: Any) -> Any:
        prepared.append(image)
        return prepare(image, preprocess)

    def listen(self: ImageText, captions: Any) -> Tensor:
        encoded.extend(captions)
        return encode(self, captions)

    monkeypatch.setattr(images, "_channels", count)
    monkeypatch.setattr(ImageText, "encode_text", listen)
    assert retrieve("-m", "merge=none,pitome", "ratio=0.9,0.8", f"weights={weights}") == 0
    assert len(prepared) == 40 and len(encoded) == 200
    # Other weights have features of their own.
    assert retrieve("merge=none", "weights=random") == 0
    assert len(prepared) == 40 and len(encoded) == 400
    assert retrieve("merge=none", f"weights={weights}", "precision=64") == 0
    assert len(encoded) == 600


def test_a_number_means_nothing_with_random_weights(
    retrieve: Run, records: Callable[[], dict[str, Record]]
) -> None:
    assert retrieve("merge=none") == 0
    assert set(records()["none"].metrics.values()) == {None}


def test_throughput_is_of_the_image_tower(
    retrieve: Run, records: Callable[[], dict[str, Record]], weights: str
) -> None:
    assert retrieve("merge=tome", "ratio=0.8", "measure=full", "batch_size=8", f"weights={weights}") == 0
    timing = records()["tome 0.8"].throughput
    assert timing is not None and timing.batch == 8 and timing.images_per_s > 0


def test_captions_longer_than_the_context_are_counted(
    retrieve: Run, records: Callable[[], dict[str, Record]]
) -> None:
    assert retrieve("merge=none", "model.args.text_cfg.context_length=14") == 0
    cut = records()["none"].data.n_truncated
    assert cut is not None and 0 < cut < 200


def test_an_image_and_its_captions_are_one_sample() -> None:
    """The mean of the outcomes is the mean recall, also where images have different numbers of captions."""
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11])
    pictures, words = torch.randn(12, 4), torch.randn(16, 4)
    ranks = rank_features(pictures, words, owner)
    columns = outcomes(ranks, owner, list(range(100, 112)))
    assert columns["id"] == list(range(100, 112))
    assert np.mean(columns["recall"]) == pytest.approx(ranks.recalls()["rsum"] / 600)
    perfect = Retrieval(torch.zeros(12, dtype=torch.long), torch.zeros(16, dtype=torch.long))
    assert np.mean(outcomes(perfect, owner, list(range(12)))["recall"]) == pytest.approx(1)
    expected = torch.stack([ranks.to_image[owner == i].double().mean() for i in range(12)])
    assert columns["image_rank"] == pytest.approx(expected.tolist())


def test_the_loss_is_that_of_open_clip() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    loss = contrastive_loss(a, b, torch.tensor(7.0), torch.arange(6))
    torch.testing.assert_close(loss, ClipLoss()(a, b, torch.tensor(7.0)))


def test_equal_scenes_are_no_negatives() -> None:
    a = torch.eye(3)[[0, 0, 1]]
    scale = torch.tensor(50.0)
    same = torch.tensor([4, 4, 2])
    assert contrastive_loss(a, a, scale, same) < 1e-9
    assert contrastive_loss(a, a, scale, torch.arange(3)) > 0.4


TRAIN = (
    "mode=train",
    "measure=none",
    "trainer.stages=[{epochs: 2, patch_size: 14, batch_size: 32, lr: 0.01},"
    "{epochs: 2, batch_size: 32, lr: 0.01}]",
)


def test_training_goes_on_where_it_was_cut_off(
    retrieve: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Coarse patches, then the model's own; cut off in the second stage, the weights are the same."""
    monkeypatch.setattr(scenes, "EPOCH", 96)
    assert retrieve(*TRAIN, "merge=none") == 0
    (folder,) = (tmp_path / "results" / "train").iterdir()
    whole = load_file(folder / "clip_scenes.safetensors")
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [(one["stage"], one["epoch"]) for one in epochs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(0 <= one["val_ri1"] <= 1 for one in epochs)
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.mode == "train" and record.score is not None and record.weights.sha256
    assert "validation ri1" in (folder / "clip_scenes.md").read_text()
    assert whole["model.visual.conv1.weight"].shape[-1] == 8

    original = RetrievalTraining.training_step
    steps: list[int] = []

    def step(self: RetrievalTraining, batch: Any, index: int) -> Tensor:
        steps.append(self.current_epoch)
        if len(steps) == 3 * 3 + 2:  # in the second epoch of the second stage
            raise RuntimeError("cut off")
        return original(self, batch, index)

    folder.rename(tmp_path / "whole")
    monkeypatch.setattr(RetrievalTraining, "training_step", step)
    assert retrieve(*TRAIN, "merge=none") == 1
    monkeypatch.setattr(RetrievalTraining, "training_step", original)
    assert retrieve(*TRAIN, "merge=none") == 0
    again = load_file(folder / "clip_scenes.safetensors")
    assert all(torch.equal(whole[key], value) for key, value in again.items())


def test_training_learns(retrieve: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls, with merging on as well."""
    monkeypatch.setattr(scenes, "EPOCH", 32 * 20)
    losses: list[float] = []
    original = RetrievalTraining.training_step

    def step(self: RetrievalTraining, batch: Any, index: int) -> Tensor:
        loss = original(self, batch, index)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(RetrievalTraining, "training_step", step)
    stages = "trainer.stages=[{epochs: 1, batch_size: 32, lr: 0.003, warmup: 0.1}]"
    assert retrieve("mode=train", "measure=none", stages, "merge=pitome", "ratio=0.9") == 0
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.method.name == "pitome"


def other(folder: Path) -> str:
    path = folder / "other.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(3, 3)}, path)
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["limit=9"], "recall at 10 means nothing among 9 images"),
        (["data=flickr"], "unknown data=flickr; did you mean flickr8k or flickr30k"),
        (["data=fashion_mnist"], "data=fashion_mnist is for task=classification"),
        (["model=deit_s"], "model=deit_s is for task=classification"),
        (["model=siglip_b16", "mode=train"], "model=siglip_b16 is tested as published"),
        (["model=siglip_b"], "not for task=retrieval; did you mean siglip_b16"),
        (["data=coco", "source=package"], "data=coco is not available from source=package"),
        (["control=resize"], "control=resize is for task=classification"),
        (["weights={other}"], "does not fit this model"),
    ],
    ids=["limit", "data", "task", "model", "loss", "tower", "source", "control", "weights"],
)
def test_bad_words_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = [word.format(other=other(tmp_path)) for word in words]
    small = ("task=retrieval",) if any(word.startswith("model=") for word in words) else TINY
    assert run(*given, small=small) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]


def test_a_run_logs_what_merges_in_its_images(retrieve: Run, drawn: list[bytes | None]) -> None:
    """Of the model that was tested; the unmerged one has no such picture."""
    for method in ("none", "pitome"):
        assert retrieve(f"merge={method}", "ratio=0.8", "measure=none", "logger=wandb") == 0
    first, second = drawn
    assert first is None and second is not None
    told = Image.open(io.BytesIO(second)).text
    assert told["Model"].startswith("clip_scenes") and "pitome" in told["Description"]
