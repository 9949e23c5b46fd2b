"""Training of text classifiers: resumable, whole models or adapters, the best epoch by validation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from safetensors.torch import save_file
from torch import Tensor, nn

from pitome.config import Amount, Config, portable
from pitome.records.identity import UNMERGED
from pitome.tasks.loggers import open_logger
from pitome.tasks.text.data import build_text
from pitome.tasks.text.lora import Lora, adapter_state, add_lora, metadata
from pitome.tasks.text.models import build, load_base
from pitome.tasks.text.module import TextClassification, TextRecipe
from pitome.tasks.text.sets import text_set
from pitome.tasks.text.split import text_split

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
    module = TextClassification(model.train(), classes, recipe)  # transformers hands out models in eval mode
    best = ModelCheckpoint(
        folder,
        filename=Path(_BEST).stem,
        monitor="val_accuracy",
        mode="max",
        enable_version_counter=False,
    )
    # `save_last` of the one above would wait for the next best epoch.
    every = ModelCheckpoint(folder, filename=Path(_LAST).stem, enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip,
        logger=logger,
        callbacks=[best, every, TQDMProgressBar(refresh_rate=20), TextEpochs(folder / "epochs.jsonl")],
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
            "stage": 0,
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


def train_text(config: Config, amount: Amount, device: torch.device) -> tuple[Config, Path]:
    """Train what `config` describes; return the configuration that tests the result, and the folder.

    It starts from weights=PATH, from random ones, or, weights=null, from the model's pretrained
    encoder with a new classifier. The folder is results/train/<model>_<data>-<key>, its key a hash
    of all that the weights depend on: the same command goes on where it was cut off, and what is finished
    is not repeated.
    """
    from pitome.tasks.base import patch_model

    name = f"{config.model.name}_{config.data.name}"
    split = text_split(config)
    folder = Path(config.results).parent / "train" / f"{name}-{_key(config, amount, split)}"
    trainer, stage = config.trainer, config.trainer.stages[0]
    classes = len(text_set(config.data.name, config.data.classes).classes)
    model_config = dataclasses.asdict(config.model)
    model: nn.Module
    if config.weights is None:
        model, tokenizer = load_base(model_config, classes)
    else:
        built = build(model_config, config.data.name, classes, config.weights)
        model, tokenizer = built.model.requires_grad_(True), built.tokenizer
    data = build_text(
        dataclasses.asdict(config.data),
        tokenizer,
        batch_size=stage.batch_size,
        split=split,
        source=config.source,
        max_length=model.config.max_position_embeddings,  # type: ignore[union-attr, arg-type]
    )
    # An adapter is of no use without its base, which is what weights=null starts from.
    lora = None
    if trainer.lora.rank and config.weights is None:
        given = trainer.lora
        lora = Lora(given.rank, given.alpha, tuple(given.targets), given.dropout)
        add_lora(model, lora)
    if config.merge.name != UNMERGED and amount.ratio != 1.0:
        patch_model(model, config, amount, max(data.lengths))
    logger = open_logger(config.logger, f"train {name}", portable(config), folder.parent.parent)
    recipe = TextRecipe(
        epochs=stage.epochs,
        batch_size=stage.batch_size,
        lr=stage.lr,
        weight_decay=trainer.weight_decay,
        warmup=stage.warmup,
        schedule=trainer.schedule,
        clip=trainer.clip,
    )
    path = folder / f"{name}.safetensors"
    tested = dataclasses.replace(
        config, weights=str(path), data=dataclasses.replace(config.data, split=split)
    )
    if path.exists():
        return tested, folder
    fit(
        model,
        data,
        classes,
        recipe,
        folder,
        accelerator=device.type,
        precision=config.precision,
        logger=logger or False,
    )
    save_trained(model, lora, path)
    for name in (_BEST, _LAST):
        (folder / name).unlink(missing_ok=True)
    return tested, folder


def _key(config: Config, amount: Amount, split: str) -> str:
    """8 hexadecimal digits of everything the trained weights depend on."""
    trainer = dataclasses.asdict(config.trainer)
    del trainer["workers"]
    parts = {
        "model": dataclasses.asdict(config.model),
        "data": [config.data.name, split, *config.data.classes],
        "merge": [dataclasses.asdict(config.merge), amount.asked()] if amount.ratio != 1.0 else None,
        "trainer": trainer,
        "weights": config.weights,
        "precision": config.precision,
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]
