"""A small Fashion-MNIST of noise, and run.py called in this process."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pitome.cli.main import main
from pitome.records.schema import Record
from pitome.records.store import Store


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 test and 5,120 training images; the mean of an image gives its class away."""
    folder = tmp_path_factory.mktemp("fashion")
    random = np.random.default_rng(0)
    for part, count in (("t10k", 40), ("train", 5_120)):
        labels = random.integers(0, 10, count)
        pixels = random.integers(0, 25, (count, 28, 28)) + 25 * labels[:, None, None]
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


SMALL = ("model.args.depth=4", "model.args.embed_dim=16")


@pytest.fixture
def run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """run(words) -> exit code of run.py on the small data, with a model of four blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])

    def call(*words: str, small: tuple[str, ...] = SMALL) -> int:
        return main(
            [
                *(word for word in words if word.startswith("-")),
                *small,
                f"data.root={images}",
                "weights=random",
                "logger=none",
                f"results={tmp_path}/results/runs",
                *(word for word in words if not word.startswith("-")),
            ]
        )

    return call


@pytest.fixture
def records(tmp_path: Path) -> Callable[[], dict[str, Record]]:
    """The records written so far, by method and ratio."""

    def read() -> dict[str, Record]:
        return {
            f"{record.method.name} {record.method.asked.get('ratio', '')}".strip(): record
            for record in Store(tmp_path / "results" / "runs").all()
        }

    return read


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """What runs with logger=wandb hand to it as their picture; nothing is logged."""
    from pitome.tasks import job

    seen: list[bytes | None] = []
    monkeypatch.setattr(job, "close_logger", lambda logger, numbers, picture=None, **_: seen.append(picture))
    monkeypatch.setattr(job, "open_logger", lambda *_: None)
    return seen
