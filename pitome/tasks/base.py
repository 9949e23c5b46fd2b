"""What the job needs of a task: its model and data, how it is evaluated, trained and measured."""

from __future__ import annotations

import importlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightning
import torch
from torch import nn

import pitome
from pitome.adapters.patch import AnyPatched, InputSize
from pitome.config import Config
from pitome.errors import UsageError
from pitome.merge.costs import Architecture
from pitome.merge.schedule import Reduction
from pitome.records.identity import UNMERGED
from pitome.records.schema import Cost, Headline, Throughput
from pitome.search.probe import Probe
from pitome.sources.weights import Weights
from pitome.tasks import measuring
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.subject import Subject


class Info(Protocol):
    """Where the samples came from; see `pitome.tasks.data.DataInfo`."""

    def record(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """What a test gave."""

    metrics: Mapping[str, float | None]  # shares in [0, 1] unless their name says otherwise
    outcomes: Mapping[str, Sequence[Any]]  # column -> one value per sample, with an `id` column
    # samples computed at once, where memory was short for the batch that was asked for
    batch_size: int | None = None


@dataclass(frozen=True)
class Layers:
    """What every layer does."""

    tokens: list[float]  # entering each block, then the final count; means where samples differ
    schedule: list[Any] | None  # one entry per layer, as it enters the identity


class Task(ABC):
    """One run of one task. A task's file, `pitome/tasks/<task>.py`, defines `TASK`, its class.

    The job makes it from a configuration, which builds `model` on the CPU, patches that model, asks
    for `layers`, stops if the run is recorded, and else calls `evaluate`, `cost` and `throughput`
    with the model on its device.
    """

    headline: ClassVar[Headline]
    model: nn.Module  # what `pitome.patch` takes
    family: str  # the adapter's name of the model's kind
    weights: Weights
    sha256: str | None  # of the weights; None if random
    note: str = ""  # suffix for the model's name in records and tables, e.g. `kNN, k=20`
    partial: Path | None = None  # where `evaluate` may keep finished samples; the job removes it at the end
    input_size: InputSize = None  # for `flops=` where the model does not fix it

    @abstractmethod
    def __init__(self, config: Config) -> None:
        """Build model and data. Raises PitomeError for what does not fit."""

    @staticmethod
    @abstractmethod
    def train(
        config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
    ) -> tuple[Config, Path]:
        """Train what `config` describes; the configuration that tests it, and the folder of the run. logger:
        opens that of the run, once something is trained."""

    @staticmethod
    def probe(config: Config, device: torch.device) -> Probe:
        """The model on its device and samples that are not tested on, for mode=search. Raises PitomeError for
        what does not fit."""
        raise UsageError(f"mode=search is not for task={config.task.name}")

    @staticmethod
    def train_split(config: Config) -> str | None:
        """Which of several ways to divide the data set is trained on; None where there is but one."""
        return None

    @property
    @abstractmethod
    def info(self) -> Info:
        """The samples of this run; `n_skipped` is final once they have been read."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a result depends on besides model, data and method; enters the identity if not empty."""
        return {}

    def resize(self, height: int, width: int) -> None:
        """For the control `resize`: from now on, model, data and cost are of images of this size.
        Only tasks of images that `control=resize` is offered for."""
        raise UsageError(f"control=resize is not for {type(self).__name__}; leave control out")

    @abstractmethod
    def layers(self, patched: AnyPatched | None) -> Layers:
        """What every layer removes."""

    @abstractmethod
    def evaluate(self, trainer: lightning.Trainer) -> Evaluation:
        """Run the test split."""

    @abstractmethod
    def cost(self, patched: AnyPatched | None) -> Cost:
        """Cost of one sample, counted and by the closed forms."""

    def subject(self, count: int) -> Subject | None:
        """The model and about `count` test images, or fewer texts, to draw what merges in them; None where
        there is nothing to draw. The patch is to be removed before."""
        return None

    @abstractmethod
    def throughput(self, patched: AnyPatched | None) -> Throughput | None:
        """Merged against unmerged model, timed alternately; None if nothing merges."""


class ImageTask(Task):
    """A task whose model has an image tower, in which it merges; costs are of one image."""

    config: Config
    architecture: Architecture  # of the tower

    def layers(self, patched: AnyPatched | None) -> Layers:
        tokens = measuring.tokens_per_layer(self.architecture, patched)
        removed = [before - after for before, after in itertools.pairwise(tokens)]
        return Layers([float(n) for n in tokens], removed if patched is not None else None)


def task_class(name: str) -> type[Task]:
    """The class of `task=<name>`; a name of conf/task is one of this package's modules."""
    task: type[Task] = importlib.import_module(f"pitome.tasks.{name}.task").TASK
    return task


def patch_model(
    model: nn.Module, config: Config, amount: Reduction, input_size: InputSize = None
) -> AnyPatched | None:
    """Merge as the configuration says; None for the unmerged model, which stays untouched."""
    if config.merge.name == UNMERGED:
        return None
    if (tower := config.task.tower) is not None:
        pitome.patch(model, tower, ratio=config.task.tower_ratio, dense=True)
    handle: AnyPatched = pitome.patch(
        model,
        config.merge.name,
        **vars(amount),
        input_size=input_size,
        positions=config.task.positions,
        **config.merge.options,
    )
    return handle
