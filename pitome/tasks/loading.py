"""Loaders that leave unreadable samples out, and say which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pitome.errors import DataError, Unreadable
from pitome.tasks.data import DataInfo
from pitome.tasks.devices import everywhere, world

ImageBatch = tuple[Tensor, Tensor, Tensor]  # images [B, C, H, W], labels [B], sample indices [B]
Sample = tuple[Tensor, int, int]  # image [C, H, W], label, sample index
Lost = tuple[int, str]  # sample index, why it cannot be read

B = TypeVar("B")


class Tolerant(Dataset[Sample | Lost]):
    """Wraps a dataset of (image, label, index): a sample that raises Unreadable becomes its reason.

    before: called by `TolerantLoader` before it reads. A position may be a number of `SampleNumbers`.
    """

    def __init__(
        self,
        samples: Dataset[Sample],
        ids: Sequence[int] | np.ndarray,
        info: DataInfo,
        before: Callable[[], None] | None = None,
        *,
        fill: bool = False,
    ) -> None:
        """fill: as long an epoch where whole batches cannot be read, see `TolerantLoader`."""
        self.samples, self.ids, self.info, self.before, self.fill = samples, ids, info, before, fill

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Sample | Lost:
        try:
            return self.samples[position]
        except Unreadable as problem:
            return int(self.ids[position % len(self.ids)]), str(problem)


def collate_tolerant(items: Sequence[Sample | Lost]) -> tuple[ImageBatch | None, list[Lost]]:
    """Stack what could be read; None if nothing could. Second: (sample id, reason) of the others."""
    good = [item for item in items if len(item) == 3]
    lost = [item for item in items if len(item) == 2]
    if not good:
        return None, lost
    images, labels, ids = zip(*good, strict=True)
    return (torch.stack(images), torch.tensor(labels), torch.tensor(ids)), lost


class TolerantLoader(DataLoader[Sample | Lost]):
    """A DataLoader over a Tolerant dataset; what could not be read is noted in the dataset's info.

    A batch of which nothing could be read is left out or, where the dataset says `fill`, replaced by the next
    one, or the last. Raises DataError at the end of a pass in which no sample could be read.
    """

    def __iter__(self) -> Iterator[ImageBatch]:  # type: ignore[override]
        assert isinstance(self.dataset, Tolerant)
        info = self.dataset.info
        if self.dataset.before is not None:
            self.dataset.before()
        read = missing = 0
        last: ImageBatch | None = None
        for batch, lost in super().__iter__():
            info.skipped.update(lost)
            if batch is None:
                missing += self.dataset.fill
                continue
            read += len(batch[1])
            yield from [batch] * (1 + missing)
            last, missing = batch, 0
        if last is not None:
            yield from [last] * missing
        if world() == 1:  # else the other ranks' images may have been
            _check_any(info, read)


def gather_skipped(info: DataInfo) -> None:
    """Note what all ranks could not read. Raises DataError if that was everything."""
    if world() > 1:
        for skipped in everywhere(info.skipped):
            info.skipped.update(skipped)
        _check_any(info, info.n_samples)


def _check_any(info: DataInfo, read: int) -> None:
    if not read and info.skipped:
        id, reason = next(iter(info.skipped.items()))
        raise DataError(f"none of the {info.n_selected} images of {info.name} can be read: {id}: {reason}")


def is_dead_worker(problem: BaseException) -> bool:
    """Whether a process that loads batches was killed, for want of memory or of room in /dev/shm."""
    return isinstance(problem, RuntimeError) and str(problem).startswith("DataLoader worker (pid")


def identity(batch: Any) -> Any:
    """For datasets that make whole batches themselves."""
    return batch


class TrainingData(lightning.LightningDataModule):
    """A data module whose training batches follow from a seed and their number alone, counted over all
    epochs: a resumed training goes on with the next one, also in the middle of an epoch."""

    _resumed: tuple[int, int] | None = None

    def _begin(self) -> tuple[int, int]:
        """The epoch of the next pass, and the batch in it that it begins with."""
        # After a restart Lightning asks for batches before it counts on, hence the place in its checkpoint.
        resumed, self._resumed = self._resumed, None
        progress: Any = self.trainer.fit_loop.epoch_progress.current if self.trainer else None
        return resumed or (progress.processed if progress else 0, 0)

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints: the epoch, and the batches of it that were seen."""
        assert self.trainer is not None
        loop: Any = self.trainer.fit_loop
        epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        ended = epochs.processed > epochs.completed  # the next one begins with its first batch
        return {"epoch": epochs.processed, "batch": 0 if ended else batches.ready}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = int(state_dict["epoch"]), int(state_dict["batch"])

    def step_loader(self, batches: Dataset[B], workers: int) -> DataLoader[B]:
        """For a dataset that makes whole batches: item n is the n-th."""
        return DataLoader(
            batches,
            batch_size=None,
            sampler=Steps(len(batches), self._begin),  # type: ignore[arg-type]  # torch's Dataset hides it
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),
        )

    def drawn(self, count: int, batch_size: int, seed: int) -> SampleNumbers:
        """Batches of `count` samples in a random order; a last one that is not full is left out, unless it is
        the only one."""

        def batches(epoch: int) -> list[list[int]]:
            order = np.random.RandomState([seed, epoch]).permutation(count).tolist()
            return [order[start : start + batch_size] for start in range(0, count, batch_size)][:steps]

        steps = max(count // batch_size, 1)
        return SampleNumbers(count, steps, batches, self._begin)


class Steps(Sampler[int]):
    """Numbers of batches, counted over all epochs. `begin()` says with which epoch and batch of it a pass
    begins."""

    def __init__(self, per_epoch: int, begin: Callable[[], tuple[int, int]]) -> None:
        self.per_epoch, self.begin = per_epoch, begin

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[int]:
        epoch, batch = self.begin()
        return iter(range(epoch * self.per_epoch + batch, (epoch + 1) * self.per_epoch))


class SampleNumbers(Sampler[list[int]]):
    """Batches of the numbers of samples, counted over all epochs: number n is sample n % size in epoch
    n // size. `begin` as of `Steps`."""

    def __init__(
        self,
        size: int,
        per_epoch: int,
        batches: Callable[[int], list[list[int]]],
        begin: Callable[[], tuple[int, int]],
    ) -> None:
        """batches: the batches of samples of an epoch, always `per_epoch` of them."""
        self.size, self.per_epoch, self.batches, self.begin = size, per_epoch, batches, begin

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = self.begin()
        first = epoch * self.size
        return iter([[first + sample for sample in batch] for batch in self.batches(epoch)[start:]])
