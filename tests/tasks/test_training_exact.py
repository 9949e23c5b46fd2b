"""A training that is cut off at any step ends as an undisturbed one; what cannot go on says so and keeps the
last good checkpoint."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pitome.config import Config, StageConfig, TrainerConfig
from pitome.errors import CheckpointError, DivergedError, Unreadable
from pitome.merge.schedule import Reduction
from pitome.records.schema import RecordError
from pitome.tasks import devices
from pitome.tasks.data import DataInfo
from pitome.tasks.loading import Tolerant, TolerantLoader, TrainingData, collate_tolerant
from pitome.tasks.optimizers import Trainable
from pitome.tasks.training import train
from tests.test_conf import config_of

STEPS, EPOCHS = 4, 2  # steps of an epoch
ALWAYS = 1e-9  # minutes between checkpoints


class Numbered(Dataset[Tensor]):
    """Item n is noise that n alone decides."""

    def __getitem__(self, number: int) -> Tensor:
        return torch.randn(8, 3, generator=torch.Generator().manual_seed(number))

    def __len__(self) -> int:
        return STEPS


class Noise(TrainingData):
    def train_dataloader(self) -> DataLoader[Tensor]:
        return self.step_loader(Numbered(), 0)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Numbered(), batch_size=None)


class Noted(Trainable):
    """Trains a small model with dropout; notes the weights and the rate of every step."""

    monitor = "val_score"
    at: ClassVar[Callable[[int, Tensor], Tensor]]  # what becomes of the loss of a step
    steps: ClassVar[list[tuple[int, float, list[Tensor]]]]
    start: ClassVar[list[Tensor]]  # the weights before the first step

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        rows = torch.cat(self.in_parts(len(batch), lambda rows: self.model(batch[rows])))
        return type(self).at(self.global_step, rows.float().square().mean())

    def on_train_start(self) -> None:
        type(self).start = [parameter.detach().clone() for parameter in self.model.parameters()]

    def on_train_batch_end(self, *args: Any) -> None:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        weights = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.steps.append((self.global_step, rate, weights))

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("val_score", -self.model(batch).float().square().mean())


def config(**settings: Any) -> Config:
    seed, precision = settings.pop("seed", 0), settings.pop("precision", "32")
    own = {key: settings.pop(key) for key in ("lr", "warmup") if key in settings}
    stage = StageConfig(**{"epochs": EPOCHS, "batch_size": 8, "lr": 0.05} | own)
    trainer = TrainerConfig(stages=[stage], **{"save_every": ALWAYS, "weight_decay": 0.1} | settings)
    return dataclasses.replace(config_of("logger=none"), trainer=trainer, seed=seed, precision=precision)


def trained(
    folder: Path, at: Callable[[int, Tensor], Tensor] | None = None, dropout: float = 0.5, **settings: Any
) -> dict[str, Tensor]:
    """The weights of a training in `folder`; at(step, loss) may raise."""
    Noted.at = staticmethod(at or (lambda step, loss: loss))  # type: ignore[assignment]
    Noted.steps = []
    asked = config(**settings)
    lightning.seed_everything(asked.seed, verbose=False)

    def build(patch_size: int | None) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Dropout(dropout), nn.Linear(5, 2))

    path = train(
        asked,
        Reduction(ratio=1.0),
        torch.device("cpu"),
        folder / "weights.safetensors",
        build=build,
        data=lambda number, recipe, model: Noise(),
        module=Noted,
    )
    return load_file(path)


class Killed(Exception):
    pass


def killer(when: int) -> Callable[[int, Tensor], Tensor]:
    def at(step: int, loss: Tensor) -> Tensor:
        if step == when:
            raise Killed
        return loss

    return at


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "settings",
    [{"warmup": 1.0}, {"schedule": "plateau"}, {"schedule": "linear", "parts": 2}, {"ema": 0.5}],
    ids=["cosine", "plateau", "linear", "average"],
)
@pytest.mark.parametrize(
    "cuts",
    [(2, STEPS, STEPS + 1), pytest.param(range(1, EPOCHS * STEPS), marks=pytest.mark.nightly)],
    ids=["some", "all"],
)
def test_cut_off_at_any_step_it_goes_on_step_by_step(
    tmp_path: Path, settings: dict[str, Any], cuts: Sequence[int]
) -> None:
    """Weights and rates after every step are those of the undisturbed training."""
    whole = trained(tmp_path / "whole", **settings)
    steps = Noted.steps
    for when in cuts:
        with pytest.raises(Killed):
            trained(tmp_path / str(when), killer(when), **settings)
        weights = trained(tmp_path / str(when), **settings)
        assert same(weights, whole), when
        rest = steps[when:]
        assert [step[:2] for step in Noted.steps] == [step[:2] for step in rest]
        for (*_, got), (*_, want) in zip(Noted.steps, rest, strict=True):
            assert all(map(torch.equal, got, want))


class Unreadables(Dataset[Any]):
    """Samples of which the first and the last two cannot be read."""

    def __getitem__(self, position: int) -> Any:
        if position % 10 in (0, 1, 8, 9):
            raise Unreadable("damaged")
        return torch.zeros(1), 0, position % 10

    def __len__(self) -> int:
        return 10


def test_an_epoch_has_all_its_batches_where_some_cannot_be_read() -> None:
    """Lightning validates after the last one. In place of a lost batch comes the next one, or the last."""
    info = DataInfo.of("set", "", "train", "local", 10, 10)

    def batches(fill: bool) -> list[list[int]]:
        samples = Tolerant(Unreadables(), range(10), info, fill=fill)
        return [ids.tolist() for *_, ids in TolerantLoader(samples, 2, collate_fn=collate_tolerant)]

    assert batches(True) == [[2, 3], [2, 3], [4, 5], [6, 7], [6, 7]]
    assert batches(False) == [[2, 3], [4, 5], [6, 7]]


def test_without_checkpoints_within_an_epoch_it_is_repeated(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", save_every=0)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", killer(STEPS + 2), save_every=0)
    assert same(trained(tmp_path / "cut", save_every=0), whole) and len(Noted.steps) == STEPS


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("when", [0, 2, STEPS + 1])
def test_what_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path, what: str, when: int) -> None:
    class Bad(torch.autograd.Function):
        """The identity; its gradient is no number."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * torch.nan

    def at(step: int, loss: Tensor) -> Tensor:
        bad: Tensor = loss * torch.nan if what == "loss" else Bad.apply(loss)
        return bad if step == when else loss

    epoch, batch = divmod(when, STEPS)
    expected = rf"the {what} is nan in step {when + 1} \(epoch {epoch + 1}, batch {batch + 1}\)"
    with pytest.raises(DivergedError, match=expected):
        trained(tmp_path / "bad", at)
    assert (tmp_path / "bad" / "stage0.ckpt").exists() is (when > 0)
    assert same(trained(tmp_path / "bad"), trained(tmp_path / "whole")), "as if nothing had been"


def test_the_mean_over_ranks_does_not_hide_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank without a sample has no mean, and no part in that of all; one with samples has."""
    monkeypatch.setattr(devices, "world", lambda: 2)
    monkeypatch.setattr(devices.dist, "all_reduce", lambda total: total.add_(3))
    no_number = torch.tensor(torch.nan)
    assert devices.of_whole_batch(no_number, 0) == 0 and devices.of_whole_batch(no_number, 1).isnan()
    assert devices.of_whole_batch(torch.tensor(2.0), 1) == 1.0  # a quarter of the samples, times two ranks


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed=0 instead of 1"),
        ({"schedule": "linear"}, "trainer.schedule=cosine instead of linear"),
        ({"lr": 0.1}, "lr.: 0.05"),
        ({"precision": "bf16-mixed"}, "precision=32 instead of bf16-mixed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, killer(3))
    with pytest.raises(CheckpointError, match=f"is of another training.*{named}"):
        trained(tmp_path, **changed)
    trained(tmp_path, parts=4, save_every=5)  # which change no weight


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-100], lambda data: b"x" * 99])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, killer(3))
    path = tmp_path / "stage0.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"stage0.ckpt is no checkpoint of this program, or damaged"):
        trained(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As the disk says it: in the middle of writing, or at its end."""
    whole, sync, calls = trained(tmp_path / "whole"), os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 7:
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr("pitome.records.files.os.fsync", full)
    with pytest.raises(RecordError, match=r"the disk is full, stage0\.ckpt was not written"):
        trained(tmp_path / "full")
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "full").iterdir()} <= {"stage0.ckpt", "epochs.jsonl"}
    assert same(trained(tmp_path / "full"), whole)
    assert 0 < len(Noted.steps) < EPOCHS * STEPS


@pytest.mark.parametrize(
    ("settings", "far"),
    [
        ({"parts": 4}, 1e-6),
        ({"parts": 3}, 1e-6),  # of unequal size
        ({"clip": 1e9}, 0.0),  # which clips nothing
        ({"clip": 0.0}, 0.0),
        ({"precision": "bf16-mixed"}, 0.03),
        ({"precision": "64"}, 1e-5),
    ],
    ids=str,
)
def test_how_a_step_is_computed_does_not_change_it(
    tmp_path: Path, settings: dict[str, Any], far: float
) -> None:
    """Parts are computed again for the backward pass, so this is activation checkpointing as well."""
    plain = trained(tmp_path / "plain", dropout=0.0, **{"clip": 1e9} if "clip" in settings else {})
    other = trained(tmp_path / "other", dropout=0.0, **settings)
    moved = max(float((plain[key] - value).abs().max()) for key, value in other.items())
    assert moved <= far, f"{moved:.1e}"


def test_settings_that_no_weight_depends_on_do_not_change_the_key() -> None:
    from pitome.tasks.training import key_of

    amount = Reduction(ratio=1.0)
    keys = {key_of(config(**how), amount) for how in ({}, {"save_every": 0.0}, {"workers": 3}, {"parts": 2})}
    assert len(keys) == 1
    long = config(epochs=7)
    stage = dataclasses.replace(long.trainer.stages[0], epochs=7)
    said = dataclasses.replace(long, trainer=dataclasses.replace(config().trainer, stages=[stage]))
    assert key_of(long, amount) == key_of(said, amount) not in keys, "epochs= is short for the stages'"
    assert key_of(dataclasses.replace(long, limit_train=9), amount) != key_of(long, amount)


def test_an_average_of_the_weights_is_validated_and_kept(tmp_path: Path) -> None:
    kept = trained(tmp_path, ema=0.7)
    lines = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    average, scores, averages = Noted.start, [], []
    for number, (*_, weights) in enumerate(Noted.steps, 1):
        average = [0.7 * old + 0.3 * new for old, new in zip(average, weights, strict=True)]
        if number % STEPS == 0:
            model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Identity(), nn.Linear(5, 2))
            model.load_state_dict(dict(zip(model.state_dict(), average, strict=True)))
            losses = [model(Numbered()[number]).square().mean() for number in range(STEPS)]
            scores.append(-torch.stack(losses).mean().item())
            averages.append(average)
    assert [line["val_score"] for line in lines] == pytest.approx(scores)
    written = [kept[name] for name in model.state_dict()]
    assert all(map(torch.allclose, written, averages[scores.index(max(scores))]))
    assert not any(map(torch.allclose, written, Noted.steps[-1][2]))
