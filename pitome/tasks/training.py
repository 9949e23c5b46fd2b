"""Training in stages, each resumable: what is finished is not repeated, what was cut off goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pitome.config import Amount, Config, DataConfig, StageConfig, TrainerConfig, portable
from pitome.records.files import write_atomically
from pitome.records.identity import UNMERGED
from pitome.sources.folders import check_root, folder_fingerprint
from pitome.tasks.loggers import open_logger


@dataclass(frozen=True)
class Stage:
    """One stage: `patch_size` None keeps the model's own."""

    recipe: Recipe
    batch_size: int
    patch_size: int | None = None


def train(
    stages: list[Stage],
    build: Callable[[int | None], nn.Module],
    datamodule: Callable[[int, int], lightning.LightningDataModule],
    module: Callable[[nn.Module, Recipe], lightning.LightningModule],
    folder: Path,
    *,
    accelerator: str,
    precision: str,
    logger: Logger | bool,
    fit: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]],
    prepare: Callable[[nn.Module], object] = lambda model: None,
) -> nn.Module:
    """Run `stages` one after another; each starts from the weights of the one before.

    `build(patch_size)` gives a fresh model; `datamodule(batch_size, number)` the data of stage
    `number`; `module(model, recipe)` what Lightning trains, which logs a metric `val_...`;
    `prepare(model)` patches a model for training with merging on; `fit(state, model)` resizes the
    weights of a stage to the next one's patches. In `folder`, stage i keeps `stage<i>.ckpt` while it
    runs and `stage<i>.safetensors` once it is done, and every epoch adds a line to `epochs.jsonl`.
    Returns the trained model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    previous: Path | None = None
    model: nn.Module | None = None
    for number, stage in enumerate(stages):
        done = folder / f"stage{number}.safetensors"
        model = build(stage.patch_size)
        if done.exists():
            model.load_state_dict(load_file(done))
            previous = done
            continue
        if previous is not None:
            model.load_state_dict(fit(load_file(previous), model))
        prepare(model)
        last = folder / f"stage{number}.ckpt"
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=stage.recipe.epochs,
            gradient_clip_val=stage.recipe.clip,
            logger=logger,
            callbacks=[
                ModelCheckpoint(folder, filename=f"stage{number}", enable_version_counter=False),
                TQDMProgressBar(refresh_rate=20),
                EpochLog(folder / "epochs.jsonl", number),
            ],
            enable_model_summary=False,
            log_every_n_steps=20,
        )
        trainer.fit(
            module(model, stage.recipe),
            datamodule(stage.batch_size, number),
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        save_weights(model, done)
        last.unlink(missing_ok=True)
        previous = done
    assert model is not None, "training needs at least one stage"
    return model


class EpochLog(Callback):
    """A line for each epoch: stage, epoch, seconds, what was measured on the validation split."""

    def __init__(self, path: Path, stage: int) -> None:
        self.path, self.stage, self.clock = path, stage, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.clock = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        line = {
            "stage": self.stage,
            "epoch": trainer.current_epoch,
            "seconds": round(time.monotonic() - self.clock, 1),
        } | {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def train_stages(
    config: Config,
    amount: Amount,
    device: torch.device,
    folder: Path,
    make: Callable[[int | None], nn.Module],
    data: Callable[[int, int], lightning.LightningDataModule],
    module: Callable[[nn.Module, Recipe], lightning.LightningModule],
    fit: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]],
) -> Path:
    """The stages of conf/trainer as `train` runs them, with merging if the configuration asks for it;
    returns the file of the weights, `<model>.safetensors` in `folder`."""

    def prepare(model: nn.Module) -> None:
        from pitome.tasks.base import patch_model

        if config.merge.name != UNMERGED and amount.ratio != 1.0:
            patch_model(model, config, amount)

    name = f"train {folder.name.rpartition('-')[0]}"
    logger = open_logger(config.logger, name, portable(config), folder.parent.parent)
    model = train(
        [stage_of(stage, config.trainer) for stage in config.trainer.stages],
        make,
        data,
        module,
        folder,
        accelerator=device.type,
        precision=config.precision,
        logger=logger or False,
        prepare=prepare,
        fit=fit,
    )
    return save_weights(model, folder / f"{config.model.name}.safetensors")


def save_weights(model: nn.Module, path: Path) -> Path:
    """Write the weights as safetensors, as a whole or not at all; return `path`."""
    partial = path.with_suffix(".partial")
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, partial, {"format": "pt"}
    )
    partial.replace(path)
    return path


def write_card(folder: Path, name: str, command: str, facts: dict[str, Any]) -> Path:
    """A card beside the weights: data, command, time, seed and score, as they were."""
    lines = (folder / "epochs.jsonl").read_text().splitlines() if (folder / "epochs.jsonl").exists() else []
    epochs = [json.loads(line) for line in lines]
    stages = sorted({epoch["stage"] for epoch in epochs})
    rows = [f"# {name}", "", f"Trained with `{command}`.", "", "| | |", "| --- | --- |"]
    rows += [f"| {key} | {value} |" for key, value in facts.items()]
    for stage in stages:
        own = [epoch for epoch in epochs if epoch["stage"] == stage]
        minutes = sum(epoch["seconds"] for epoch in own) / 60
        key = next(key for key in own[-1] if key.startswith("val_"))
        score = key.removeprefix("val_").replace("top1", "top-1")
        rows.append(
            f"| stage {stage} | {len(own)} epochs, {minutes:.0f} minutes, "
            f"validation {score} {own[-1][key]:.4f} at its end, {max(e[key] for e in own):.4f} at its best |"
        )
    path = folder / f"{name}.md"
    write_atomically(path, ("\n".join(rows) + "\n").encode())
    return path


def stage_of(stage: StageConfig, trainer: TrainerConfig) -> Stage:
    """One stage of conf/trainer as `train` takes it."""
    recipe = Recipe(
        epochs=stage.epochs,
        lr=stage.lr,
        min_lr=stage.min_lr,
        weight_decay=trainer.weight_decay,
        warmup=stage.warmup,
        mixup=trainer.mixup,
        cutmix=trainer.cutmix,
        smoothing=trainer.smoothing,
        clip=trainer.clip,
    )
    return Stage(recipe, stage.batch_size, stage.patch_size)


def key_of(config: Config, amount: Amount) -> str:
    """8 hexadecimal digits of everything the trained weights depend on."""
    trainer = dataclasses.asdict(config.trainer)
    del trainer["workers"]
    merge = dataclasses.asdict(config.merge) if amount.ratio != 1.0 else None
    parts = {
        "model": dataclasses.asdict(config.model),
        "data": _own_data(config.data) if config.data.classes else config.data.name,
        "merge": merge and [merge, amount.asked()],
        "trainer": trainer,
        "weights": config.weights,
        "precision": config.precision,
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _own_data(data: DataConfig) -> list[str]:
    """A set of one's own goes by its files, which may change under one name."""
    root = check_root(data.root) if data.root is not None else None
    return [data.name, *data.classes, data.repository if root is None else folder_fingerprint(root)]


@dataclass(frozen=True)
class Recipe:
    """How one stage of training runs.

    epochs: passes over the training images; lr: peak learning rate of AdamW; warmup: epochs of
    linear warm-up, then cosine to `min_lr`; mixup, cutmix: alpha of timm's Mixup, 0 is off;
    smoothing: of the labels; clip: maximal norm of the gradient.
    """

    epochs: int
    lr: float
    min_lr: float
    weight_decay: float
    warmup: float
    mixup: float
    cutmix: float
    smoothing: float
    clip: float
