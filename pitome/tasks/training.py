"""Training in stages, each resumable: what is finished is not repeated, what was cut off goes on. Of every
stage the epoch that is best on the validation split is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pitome.config import Config, plain, portable
from pitome.errors import MemoryShortageError
from pitome.fields import without_later
from pitome.merge import registry
from pitome.merge.schedule import Reduction
from pitome.records.files import write_atomically
from pitome.records.markdown import markdown_table
from pitome.sources.folders import check_root, folder_fingerprint
from pitome.tasks.base import patch_model
from pitome.tasks.checks import checks_of
from pitome.tasks.devices import barrier, make_trainer, rank, seed_apart, share_training
from pitome.tasks.loggers import open_logger
from pitome.tasks.memory import is_out_of_memory
from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe, recipes

StateDict = Mapping[str, Tensor]
EPOCHS = "epochs.jsonl"


def save_model(model: nn.Module, path: Path) -> Path:
    """Write all weights of a model; see `save_weights`."""
    return save_weights(model.state_dict(), path)


def train(
    config: Config,
    amount: Reduction,
    device: torch.device,
    path: Path,
    *,
    build: Callable[[int | None], nn.Module],
    data: Callable[[int, Recipe, nn.Module], lightning.LightningDataModule],
    module: Callable[[nn.Module, Recipe], Trainable],
    fit: Callable[[dict[str, Tensor], nn.Module], StateDict] = lambda state, model: state,
    save: Callable[[nn.Module, Path], Path] = save_model,
    input_size: Callable[[], int] | None = None,
) -> Path:
    """Run the stages of conf/trainer one after another, with merging on if `config` and `amount` ask for
    it, and write the trained weights to `path`, which is returned; nothing is done where it exists.

    build(patch_size): a fresh model with the weights that training starts from; data(number, recipe,
    model): of a stage, for its model, which is patched by then; module(model, recipe): what Lightning
    trains; fit(state, model): the weights of a stage for the next one's patches; save(model, path): writes
    the weights of the last stage; input_size: for `flops=` where the model does not fix it.

    Beside `path`, stage i keeps `stage<i>.ckpt` while it runs and, if it is not the last,
    `stage<i>.safetensors` once it is done; every epoch adds a line to `epochs.jsonl`.
    """
    if path.exists():
        return path
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    name = f"train {folder.name.rpartition('-')[0]}"
    logger = open_logger(config.logger, name, portable(config), folder.parent.parent) if rank() == 0 else None
    previous: Path | None = None
    stages = recipes(config.trainer)
    for number, recipe in enumerate(stages):
        last = number + 1 == len(stages)
        done = path if last else folder / f"stage{number}.safetensors"
        if done.exists():
            previous = done
            continue
        model = build(recipe.patch_size).train()
        if previous is not None:
            model.load_state_dict(fit(load_file(previous), model))
        if amount.ratio != 1.0:
            patch_model(model, config, amount, input_size() if input_size is not None else None)
        running = folder / f"stage{number}.ckpt"
        trainable = module(model, recipe)
        best = KeepBest(running, trainable.monitor)
        trainer = make_trainer(
            device,
            precision=config.precision,
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip,
            logger=logger or False,
            callbacks=[TQDMProgressBar(refresh_rate=20), EpochLog(folder / EPOCHS, number), best],
            enable_model_summary=False,
            log_every_n_steps=20,
        )
        batches = data(number, recipe, model)
        share_training(batches)
        seed_apart(config.seed)
        checkpoint = str(running) if running.exists() else None
        try:
            trainer.fit(trainable, batches, ckpt_path=checkpoint, weights_only=True)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            raise MemoryShortageError(
                f"out of memory with {recipe.batch_size} samples in a step of training, computed in "
                f"{recipe.parts} parts; give a larger trainer.parts, or more devices= to share them"
            ) from None
        if trainer.interrupted:
            raise KeyboardInterrupt
        if rank() == 0:
            model.load_state_dict(best.weights)
            (save if last else save_model)(model, done)
            running.unlink(missing_ok=True)
        barrier()
        previous = done
    return path


class KeepBest(Checkpoint):
    """Keeps the weights of the epoch with the highest validation score, the first of equals, and after every
    epoch writes a checkpoint from which training goes on; it holds them as well."""

    def __init__(self, path: Path, monitor: str) -> None:
        self.path, self.monitor = path, monitor
        self.score = -math.inf
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Trainable)
        score = float(trainer.callback_metrics[self.monitor])
        if not self.weights or score > self.score:
            self.score = -math.inf if math.isnan(score) else score
            self.weights = {
                key: value.detach().cpu().clone() for key, value in module.model.state_dict().items()
            }
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if rank() == 0:
            partial.replace(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.weights = state_dict["score"], state_dict["weights"]


class EpochLog(Callback):
    """A line for each epoch: stage, epoch, seconds, what was measured on the validation split."""

    def __init__(self, path: Path, stage: int) -> None:
        self.path, self.stage, self.clock = path, stage, 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Leave out what was written after the checkpoint that training goes on from."""
        if rank():
            return
        before = [
            line
            for line in read_epochs(self.path)
            if line["stage"] != self.stage or line["epoch"] < trainer.current_epoch
        ]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in before).encode())

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.clock = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if rank():
            return
        line = {
            "stage": self.stage,
            "epoch": trainer.current_epoch,
            "seconds": round(time.monotonic() - self.clock, 1),
        } | {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of an `EpochLog`, without one that was cut off; none where there is no file."""
    epochs = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            epochs.append(json.loads(line))
    return epochs


def save_weights(state: StateDict, path: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write weights as safetensors, as a whole or not at all; return `path`."""
    partial = path.with_suffix(".partial")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    save_file(tensors, partial, {"format": "pt", **(metadata or {})})
    partial.replace(path)
    return path


def write_card(folder: Path, name: str, command: str, facts: dict[str, Any]) -> Path:
    """A card beside the weights: data, command, time, seed and score, as they were."""
    epochs = read_epochs(folder / EPOCHS)
    rows = [[key, str(value)] for key, value in facts.items()]
    for stage in sorted({epoch["stage"] for epoch in epochs}):
        of_stage = [epoch for epoch in epochs if epoch["stage"] == stage]
        minutes = sum(epoch["seconds"] for epoch in of_stage) / 60
        key = next(key for key in of_stage[-1] if key.startswith("val_"))
        score = key.removeprefix("val_").replace("top1", "top-1")
        best = max(of_stage, key=lambda epoch: epoch[key])
        kept = f"epoch {best['epoch'] + 1}, validation {score} {best[key]:.4f}"
        last = f"({of_stage[-1][key]:.4f} at the end)"
        rows.append([f"stage {stage}", f"{len(of_stage)} epochs, {minutes:.0f} minutes; kept: {kept} {last}"])
    content = f"# {name}\n\nTrained with `{command}`.\n\n{markdown_table(['', ''], rows)}\n"
    path = folder / f"{name}.md"
    write_atomically(path, content.encode())
    return path


def train_folder(config: Config, amount: Reduction, name: str, split: str | None = None) -> Path:
    """Where a training keeps its files: the same command finds them again. For `name` and `split` see
    `key_of`."""
    return Path(config.results).parent / "train" / f"{name}-{key_of(config, amount, split)}"


def key_of(config: Config, amount: Reduction, split: str | None = None) -> str:
    """8 hexadecimal digits of everything the trained weights depend on. split: which of several ways to
    divide the data set is trained on; None where there is but one."""
    trainer = plain(config.trainer)
    del trainer["workers"], trainer["parts"]
    merge = None
    if amount.ratio != 1.0:
        merge = plain(config.merge)
        merge["options"] = without_later(registry.get(config.merge.name).options, merge["options"])
    parts = {
        "model": plain(config.model),
        "data": _data_key(config, split),
        "merge": merge and [merge, amount.asked()],
        "trainer": trainer,
        "weights": config.weights if config.weights_key is None else [config.weights, config.weights_key],
        "precision": config.precision,
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _data_key(config: Config, split: str | None) -> str | list[str]:
    """A custom data set goes by its files, which may change under one name."""
    data = config.data
    names = [data.name] if split is None else [data.name, split]
    if not checks_of(data.task).is_custom(data):
        return data.name if split is None else names
    root = check_root(data.root) if data.root is not None else None
    return [*names, *data.classes, data.repository if root is None else folder_fingerprint(root)]
