"""What a run measures, in this process or in one for each of several devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger
from torch import nn

from pitome.adapters.patch import AnyPatched
from pitome.config import Config
from pitome.measure.memory import peak_memory
from pitome.merge.schedule import Reduction
from pitome.records.schema import Cost, Environment, MethodInfo, Throughput
from pitome.runs import control, progress
from pitome.runs.environment import describe_environment
from pitome.runs.ranks import launch
from pitome.runs.validate import import_modules
from pitome.tasks.base import Evaluation, Task, patch_model, task_class
from pitome.tasks.devices import flags, make_trainer, rank
from pitome.tasks.loggers import open_training


@dataclass(frozen=True)
class Measured:
    """What was evaluated and measured, for a record."""

    evaluation: Evaluation
    data: dict[str, Any]  # where the samples came from, which of them could not be read
    environment: Environment
    peak_memory: int  # bytes, of evaluation; of several devices, of the first
    cost: Cost | None  # None: not asked for
    throughput: Throughput | None  # None: not asked for, or nothing merges


@dataclass(frozen=True)
class Setup:
    """A run whose task is yet to be built."""

    config: Config
    amount: Reduction  # how much merges
    share: float | None  # of the control `resize`: its cost at most, as a share of the unmerged one
    partial: Path | None  # where finished samples are kept
    name: str  # of the progress bar

    def build(self) -> tuple[Task, AnyPatched | None, MethodInfo | None]:
        """The task with its model patched, and, of a control, what it does instead."""
        task = task_class(self.config.task.name)(self.config)
        if self.share is not None:
            return task, None, control.shrink(task, self.share)
        if self.config.control is not None:
            control.check_resizable(task.model)
        return task, patch_model(task.model, self.config, self.amount, task.input_size), None


def measure(
    task: Task, patched: AnyPatched | None, device: torch.device, setup: Setup, logger: Logger | None = None
) -> Measured | None:
    """Evaluate, then measure; None of every rank but the first."""
    config = setup.config
    task.model.to(device)
    trainer = make_trainer(
        device,
        **flags(config),
        precision=config.precision,
        logger=logger or False,
        callbacks=[Progress(setup.name)],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    task.partial = setup.partial
    evaluation = task.evaluate(trainer)
    first = rank() == 0
    if dist.is_initialized():
        dist.destroy_process_group()  # what follows is on one device
    if not first:
        return None
    task.model.to(device)  # Lightning leaves it on the CPU
    memory = peak_memory(device)
    return Measured(
        evaluation=evaluation,
        data=task.info.record(),
        peak_memory=memory,
        cost=task.cost(patched) if config.measure != "none" else None,
        throughput=task.throughput(patched) if config.measure == "full" else None,
        environment=describe_environment(device, config.precision, attention_kernel(task.model)),
    )


def measure_on(devices: int, device: torch.device, setup: Setup) -> Measured:
    """As `measure`, in a new process for each of `devices`. Raises RankError, and what they raise."""
    measured = launch(_measure_rank, devices, device, setup)
    assert measured is not None
    return measured


def train_on(devices: int, device: torch.device, config: Config, amount: Reduction) -> None:
    """Train in a new process for each of `devices`; who trains the same afterwards finds it done."""
    launch(_train_rank, devices, device, config, amount)


def _measure_rank(device: torch.device, setup: Setup) -> Measured | None:
    _prepare(setup.config)
    task, patched, _ = setup.build()
    task.layers(patched)
    return measure(task, patched, device, setup)


def _train_rank(device: torch.device, config: Config, amount: Reduction) -> None:
    _prepare(config)
    task_class(config.task.name).train(config, amount, device, lambda: open_training(config))


def _prepare(config: Config) -> None:
    import_modules(config.imports)
    lightning.seed_everything(config.seed, workers=True, verbose=False)


def attention_kernel(model: nn.Module) -> str:
    """How the model computes attention: `sdpa` (torch chooses the kernel), `eager`, or transformers' name."""
    if implementation := getattr(getattr(model, "config", None), "_attn_implementation", None):
        return str(implementation)
    # nn.MultiheadAttention, of open_clip's towers, gives no attention map there, and so is fused.
    fused = any(
        isinstance(module, nn.MultiheadAttention) or getattr(module, "fused_attn", False)
        for module in model.modules()
    )
    return "sdpa" if fused else "eager"


class Progress(TQDMProgressBar):
    """Lightning's bar with an estimate, named after the run."""

    def __init__(self, name: str) -> None:
        super().__init__(refresh_rate=1, process_position=progress.row())
        self.name = name

    @property
    def test_description(self) -> str:
        return self.name

    @property
    def predict_description(self) -> str:
        return f"{self.name}: images that vote"
