"""Training in stages, each resumable: what is finished is not repeated, what was cut off goes on. Of every
stage the epoch that is best on the validation split is kept."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from pitome.adapters.patch import AnyPatched, InputSize
from pitome.config import SPEED, Config, StageConfig, TrainerConfig, plain
from pitome.errors import CheckpointError, MemoryShortageError, one_line
from pitome.fields import without_later
from pitome.merge import registry
from pitome.merge.schedule import Reduction
from pitome.records.files import write_atomically
from pitome.records.markdown import markdown_table
from pitome.sources.folders import check_root, folder_fingerprint
from pitome.tasks.base import patch_model
from pitome.tasks.checks import checks_of
from pitome.tasks.devices import barrier, everywhere, flags, make_trainer, rank, seed_apart, share_training
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.memory import is_out_of_memory
from pitome.tasks.optimizers import Trainable
from pitome.tasks.randomness import random_state, restore
from pitome.tasks.recipe import Recipe, recipes, stages

StateDict = Mapping[str, Tensor]
EPOCHS = "epochs.jsonl"
_LOG_EVERY = 20  # steps, or an epoch where it is shorter


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
    input_size: Callable[[], InputSize] | None = None,
    split: str | None = None,
    logger: OpenLogger = lambda: None,
) -> Path:
    """Run the stages of conf/trainer one after another, with merging on if `config` and `amount` ask for
    it, and write the trained weights to `path`, which is returned; nothing is done where it exists.

    build(patch_size): a fresh model with the weights that training starts from; data(number, recipe,
    model): of a stage, for its model, which is patched by then; module(model, recipe): what Lightning
    trains; fit(state, model): the weights of a stage for the next one's patches; save(model, path): writes
    the weights of the last stage; input_size: for `flops=` where the model does not fix it; split: see
    `key_of`; logger: opens the run's, if something is trained.

    Beside `path`, stage i keeps `stage<i>.ckpt` while it runs and, if it is not the last,
    `stage<i>.safetensors` once it is done; every epoch adds a line to `epochs.jsonl`. Killed at any moment,
    the same training goes on from the checkpoint and ends with the weights of an undisturbed one. Raises
    CheckpointError for a checkpoint of another training, DivergedError where a loss is no number.
    """
    if path.exists():
        return path
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    opened = logger() if rank() == 0 else None
    previous: Path | None = None
    parts = recipes(config.trainer)
    training = identity(config, amount, split)
    for number, recipe in enumerate(parts):
        last = number + 1 == len(parts)
        done = path if last else folder / f"stage{number}.safetensors"
        if done.exists():
            previous = done
            continue
        model = build(recipe.patch_size).train()
        if previous is not None:
            model.load_state_dict(fit(load_file(previous), model))
        teacher = copy.deepcopy(model) if recipe.distill else None
        merging = Merging(model, config, amount, recipe, input_size() if input_size is not None else None)
        running = folder / f"stage{number}.ckpt"
        trainable = module(model, recipe)
        if teacher is not None:
            trainable.learn_from(teacher)
        average = Averaged(recipe.ema) if recipe.ema else None
        best = KeepBest(running, trainable.monitor, recipe.save_every, average)
        trainer = make_trainer(
            device,
            **flags(config),
            precision=config.precision,
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip,
            logger=opened or False,
            plugins=[CheckpointFile(training | {"stage": number})],
            callbacks=[
                TQDMProgressBar(refresh_rate=20),
                EpochLog(folder / EPOCHS, number),
                merging,
                *([average] if average is not None else []),
                best,
            ],
            enable_model_summary=False,
            log_every_n_steps=_LOG_EVERY,
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
    """Keeps the weights of the epoch with the highest validation score, the first of equals; after every
    epoch, and within one `minutes` after the last, writes a checkpoint from which training goes on as if it
    had not been stopped: it holds them as well, and what every rank would draw next."""

    def __init__(self, path: Path, monitor: str, minutes: float, average: Averaged | None = None) -> None:
        """average: whose weights are kept in place of the model's."""
        self.path, self.monitor, self.minutes, self.average = path, monitor, minutes, average
        self.score = -math.inf
        self.weights: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        self._random: dict[str, Any] | None = None  # to be restored once nothing else draws

    def on_train_batch_start(self, *args: Any) -> None:
        if self._random is not None:
            restore(self._random)
            self._random = None

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
    ) -> None:
        due = 0 < 60 * self.minutes <= time.monotonic() - self.saved
        if everywhere(due)[0] and index + 1 < trainer.num_training_batches:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        score = float(trainer.callback_metrics[self.monitor])
        if not self.weights or score > self.score:
            self.score = -math.inf if math.isnan(score) else score
            weights = _model_of(module).state_dict() if self.average is None else self.average.weights
            self.weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "weights": self.weights, "random": everywhere(random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.weights = state_dict["score"], state_dict["weights"]
        if rank() < len(state_dict["random"]):  # else more ranks go on than began
            self._random = state_dict["random"][rank()]


class Merging(Callback):
    """Patches a model for its training. With a curriculum it merges more from epoch to epoch, and all that
    was asked for where it is validated."""

    def __init__(
        self, model: nn.Module, config: Config, amount: Reduction, recipe: Recipe, input_size: InputSize
    ) -> None:
        self.model, self.amount, self.over = model, amount, recipe.curriculum * recipe.epochs
        self.handle: AnyPatched | None = None
        self._patch = partial(patch_model, model, config, input_size=input_size)
        if amount.ratio != 1.0:
            self._merge(amount)

    def _merge(self, amount: Reduction) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.handle = self._patch(amount)

    def _grow(self, trainer: lightning.Trainer) -> None:
        if self.over:
            self._merge(self.amount.grown(min(trainer.current_epoch / self.over, 1.0)))

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._grow(trainer)  # an epoch that goes on is not started

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._grow(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.over:
            self._merge(self.amount)


class Averaged(Callback):
    """A moving average of a model's weights, in their place while it is validated."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}  # empty before the first step
        self._trained: dict[str, Tensor] = {}  # the model's, while it has the average

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        state = _model_of(module).state_dict()
        self.weights = {key: self.weights.get(key, value).to(value).clone() for key, value in state.items()}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: Any
    ) -> None:
        for key, value in _model_of(module).state_dict().items():
            if value.is_floating_point():
                self.weights[key].lerp_(value, 1 - self.decay)
            else:
                self.weights[key].copy_(value)

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.weights:
            model = _model_of(module)
            self._trained = {key: value.clone() for key, value in model.state_dict().items()}
            model.load_state_dict(self.weights)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self._trained:
            _model_of(module).load_state_dict(self._trained)
            self._trained = {}

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.weights = state_dict["weights"]


def _model_of(module: lightning.LightningModule) -> nn.Module:
    assert isinstance(module, Trainable)
    return module.model


class CheckpointFile(TorchCheckpointIO):
    """Checkpoints of one stage of one training: written as a whole or not at all, read for it alone."""

    def __init__(self, training: dict[str, Any]) -> None:
        """training: plain values that say which it is."""
        self.training = json.loads(json.dumps(training, default=str))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save({**checkpoint, "training": json.dumps(self.training)}, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raises CheckpointError."""
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
            training = json.loads(checkpoint.pop("training"))
        except Exception as problem:  # whatever a damaged file does to torch
            raise CheckpointError(
                f"{path} is no checkpoint of this program, or damaged ({one_line(problem)[:200]}); "
                "remove it, and its stage is trained from the start"
            ) from None
        if different := _differences(training, self.training):
            raise CheckpointError(
                f"{path} is of another training ({', '.join(different[:3])}); remove it, and its stage is "
                "trained from the start"
            )
        return dict(checkpoint)


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """`seed=1 instead of 0` for all values in which two mappings differ."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{name}={old} instead of {new}"]
    keys = sorted({*old, *new})
    parts = (_differences(old.get(key), new.get(key), f"{name}.{key}" if name else key) for key in keys)
    return [line for part in parts for line in part]


class EpochLog(Callback):
    """A line for each epoch: stage, epoch, seconds, what was measured on the validation split."""

    def __init__(self, path: Path, stage: int) -> None:
        self.path, self.stage, self.clock = path, stage, 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Leave out what was written after the checkpoint that training goes on from. A short epoch has its
        place in the learning curves too."""
        self.clock = time.monotonic()  # of an epoch that goes on, of what is left of it
        trainer.log_every_n_steps = max(1, min(_LOG_EVERY, int(trainer.num_training_batches)))  # type: ignore[attr-defined]
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
    """Write weights as safetensors, as a whole or not at all; return `path`. Raises RecordError."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    write_atomically(path, serialised(tensors, {"format": "pt", **(metadata or {})}))
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
    text = json.dumps(identity(config, amount, split), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identity(config: Config, amount: Reduction, split: str | None = None) -> dict[str, Any]:
    """What `key_of` is made of. Settings that came later are left out at their defaults: keys stay."""
    trainer = without_later(TrainerConfig, plain(config.trainer))
    trainer["stages"] = [without_later(StageConfig, vars(stage)) for stage in stages(config.trainer)]
    for key in (*SPEED, "epochs", "accumulate_grad_batches"):
        trainer.pop(key, None)
    model = plain(config.model)
    del model["data"]  # which stands in `data`
    merge = None
    if amount.ratio != 1.0:
        merge = plain(config.merge)
        del merge["places"]  # a training merges in the tower alone
        merge["options"] = without_later(registry.get(config.merge.name).options, merge["options"])
    return {
        "model": model,
        "data": _data_key(config, split),
        "merge": merge and [merge, amount.asked()],
        "trainer": trainer,
        "weights": config.weights if config.weights_key is None else [config.weights, config.weights_key],
        "precision": config.precision,
        "seed": config.seed,
    } | ({} if config.limit_train is None else {"limit_train": config.limit_train})


def _data_key(config: Config, split: str | None) -> str | list[str]:
    """A custom data set goes by its files, which may change under one name."""
    data = config.data
    names = [data.name] if split is None else [data.name, split]
    if not checks_of(data.task).is_custom(data):
        return data.name if split is None else names
    root = check_root(data.root) if data.root is not None else None
    return [*names, *data.classes, data.repository if root is None else folder_fingerprint(root)]
