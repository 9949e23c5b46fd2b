"""Training of text classifiers: resumable, whole models or adapters, the best epoch by validation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from safetensors.torch import save_file
from torch import Tensor, nn

from pitome.models.lora import Lora, adapter_state, metadata
from pitome.tasks.text_classifier import TextClassification, TextRecipe

_BEST, _LAST = "best.ckpt", "last.ckpt"


def fit(
    model: nn.Module,
    data: lightning.LightningDataModule,
    classes: int,
    recipe: TextRecipe,
    folder: Path,
    *,
    accelerator: str,
    precision: str,
    logger: Logger | bool = False,
) -> None:
    """Train `model` in place; it ends with the weights of its best epoch on the validation split.

    In `folder`, `last.ckpt` lets the same call go on where it was cut off, and every epoch adds a
    line to `epochs.jsonl`. The test split is not looked at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = TextClassification(model, classes, recipe)
    best = ModelCheckpoint(
        folder,
        filename=Path(_BEST).stem,
        monitor="val_accuracy",
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        logger=logger,
        callbacks=[best, TQDMProgressBar(refresh_rate=20), TextEpochs(folder / "epochs.jsonl")],
        enable_model_summary=False,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
    )
    last = folder / _LAST
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    state = torch.load(folder / _BEST, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)


class TextEpochs(Callback):
    """A line for each epoch: epoch, seconds, validation accuracy."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.clock = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        line = {
            "epoch": trainer.current_epoch,
            "seconds": round(time.monotonic() - self.clock, 1),
            "val_accuracy": float(trainer.callback_metrics["val_accuracy"]),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def save_trained(model: nn.Module, lora: Lora | None, path: Path) -> None:
    """Write the adapters and the head, or the whole model, as safetensors."""
    state: dict[str, Tensor] = model.state_dict() if lora is None else adapter_state(model)
    partial = path.with_suffix(".partial")
    save_file(
        {key: value.detach().cpu().contiguous().clone() for key, value in state.items()},
        partial,
        {"format": "pt"} if lora is None else metadata(lora),
    )
    partial.replace(path)


def training_key(parts: dict[str, Any]) -> str:
    """8 hexadecimal digits of everything the trained weights depend on."""
    plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in parts.items()}  # type: ignore[arg-type]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]
