"""One run on several devices: a process, called a rank, for each, all with the same model and data.

Testing, the ranks take whole batches in turn, and what they found is gathered in the order of one process:
every batch, and with it every result, is that of one device. Training, each takes a part of every batch, and
losses are means over the whole batch, so that a step is that of one device; what a model or a loss draws
(dropout, drop path, mixup) each draws for itself. Validation, which is short, each does alone.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pitome.config import Config

Item = TypeVar("Item")

_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
_ROUND = 64  # batches of a rank that are gathered at once, so that little is held twice


def world() -> int:
    """Ranks of this run; 1 where there is but this process."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if world() > 1 else 0


def make_trainer(device: torch.device, **settings: Any) -> lightning.Trainer:
    """Lightning's trainer on `device`, or on those of all ranks; `settings` are its own. A log file gets no
    bar."""
    if not sys.stdout.isatty():
        bars = [callback for callback in settings.get("callbacks", ()) if isinstance(callback, ProgressBar)]
        kept = [callback for callback in settings.get("callbacks", ()) if callback not in bars]
        settings |= {"callbacks": kept, "enable_progress_bar": False}
    if world() == 1:
        devices = [device.index or 0] if device.type == "cuda" else 1
        return lightning.Trainer(accelerator=device.type, devices=devices, **settings)
    return lightning.Trainer(
        accelerator=device.type,
        devices=world(),
        # Weights that no loss depends on, such as those of a layer after the one that is read.
        strategy=Ranks(cluster_environment=LightningEnvironment(), find_unused_parameters=True),
        use_distributed_sampler=False,
        **settings,
    )


def flags(config: Config) -> dict[str, Any]:
    """The flags that a run passes on to Lightning's trainer."""
    trainer, profiler = config.trainer, None
    if trainer.profiler is not None:
        name = f"{config.mode}-{config.task.name}-{config.model.name}-{config.merge.name}"
        folder = Path(config.results).parent / "profiles"
        profiler = _PROFILERS[trainer.profiler](dirpath=folder, filename=name)
    return {
        "profiler": profiler,
        "detect_anomaly": trainer.detect_anomaly,
        "deterministic": trainer.deterministic,
    }


class Ranks(DDPStrategy):
    """Lightning's strategy for processes that were started before, with this module's shares of the data."""

    def setup_distributed(self) -> None:
        with isolate_rng():  # else the numbers drawn so far are drawn again
            super().setup_distributed()

    def process_dataloader(self, dataloader: object) -> object:
        module = self.lightning_module
        assert module is not None and isinstance(dataloader, DataLoader)
        # Of few batches none may be left for the last ranks.
        module.allow_zero_length_dataloader_with_multiple_devices = True
        test = module.trainer.testing or module.trainer.predicting
        return _with_batches(dataloader, Turns) if test else dataloader


class Turns(Sampler[Item]):
    """Of the batches of a sampler every `world()`-th, from number `rank()` on."""

    def __init__(self, batches: Iterable[Item]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Item]:
        return itertools.islice(self.batches, rank(), None, world())

    def __len__(self) -> int:
        return len(range(rank(), len(self.batches), world()))  # type: ignore[arg-type]


class Shares(Sampler[list[int]]):
    """Of every batch of a sampler, which is the same on all ranks, the samples of this one."""

    def __init__(self, batches: Iterable[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[own_rows(len(batch))]

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def share_training(data: lightning.LightningDataModule) -> None:
    """Let every rank train on its share of a batch; of batches that a dataset makes as a whole, the module
    takes `own_rows`."""
    whole = data.train_dataloader

    def shared() -> object:
        loader = whole()
        return loader if loader.batch_sampler is None else _with_batches(loader, Shares)

    if world() > 1:
        data.train_dataloader = shared  # type: ignore[method-assign]


def own_rows(count: int, of_rank: int | None = None) -> slice:
    """The samples of this rank in a training batch of `count`, or of another one; all where they are fewer
    than ranks, which then do the same."""
    if count < world():
        return slice(None)
    return slice(rank() if of_rank is None else of_rank, None, world())


def of_whole_batch(loss: Tensor, count: int | Tensor) -> Tensor:
    """A loss whose mean over the ranks, which DDP takes, is that over the whole batch. loss: mean over the
    `count` values of this rank."""
    if world() == 1:
        return loss
    own = torch.as_tensor(count, dtype=torch.float64, device=loss.device)
    total = own.clone()
    dist.all_reduce(total)
    weight = own * world() / total.clamp_min(1)
    return torch.where(own > 0, loss, 0.0) * weight.to(loss.dtype)  # the mean of no value is none


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """The rows of all ranks, [R, D] -> [count, D], in the order of `row_order`; gradients flow back."""
    if world() == 1 or count < world():
        return rows
    gathered: Tensor = _Gathered.apply(rows, count)
    return gathered


def row_order(count: int) -> Tensor:
    """Which samples of a batch of `count` the rows of `gather_rows` are of: [count]."""
    order = torch.arange(count)
    return order if count < world() else torch.cat([order[own_rows(count, of)] for of in range(world())])


class _Gathered(torch.autograd.Function):
    """Every rank computes the same loss of all rows, so that the gradient of its own is in its copy; times
    their number, since DDP takes the mean."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        sizes = [len(range(count)[own_rows(count, of)]) for of in range(world())]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(every, padded)
        start = sum(sizes[: rank()])
        ctx.own = slice(start, start + len(rows))
        return torch.cat([part[:size] for part, size in zip(every, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own] * world(), None


def everywhere(value: Item) -> list[Item]:
    """`value` of every rank, by rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def gather(batches: Sequence[Item]) -> Iterator[Item]:
    """What the ranks made of the batches that `Turns` gave them, in the order of one process."""
    if world() == 1:
        yield from batches
        return
    for start in range(0, max(everywhere(len(batches))), _ROUND):
        parts = everywhere([_on_cpu(batch) for batch in batches[start : start + _ROUND]])
        for number in range(sum(map(len, parts))):
            yield parts[number % world()][number // world()]


def _on_cpu(batch: Any) -> Any:
    """A tensor that was sent from a device would come back on that device."""
    if isinstance(batch, Tensor):
        return batch.cpu()
    return {key: _on_cpu(value) for key, value in batch.items()} if isinstance(batch, dict) else batch


def fewest(size: int | None) -> int | None:
    """The smallest of the numbers of all ranks, of those that have one."""
    return min((value for value in everywhere(size) if value is not None), default=None)


def barrier() -> None:
    """Wait for all ranks."""
    everywhere(None)


def seed_apart(seed: int) -> None:
    """Let every rank but the first, which goes on as one process would, draw random numbers of its own."""
    if rank():
        torch.manual_seed(seed + rank())
        random.seed(seed + rank())


def _with_batches(loader: DataLoader[Any], wrap: Callable[[Any], Sampler[Any]]) -> DataLoader[Any]:
    """A loader of the same kind over other batches."""
    batches: dict[str, Any] = {"batch_sampler": wrap(loader.batch_sampler)}
    if loader.batch_sampler is None:  # its dataset makes them
        batches = {"batch_size": None, "sampler": wrap(loader.sampler)}
    return type(loader)(
        loader.dataset,
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        collate_fn=loader.collate_fn,
        generator=loader.generator,
        **batches,
    )
