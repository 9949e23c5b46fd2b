"""Images that are tested come out of the cache: the same as from their files, and never out of date."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset

from pitome.tasks.classification.files import Folder, custom_set
from pitome.tasks.classification.images import ImageData, TestImages
from pitome.tasks.data import Preprocess
from pitome.tasks.images import as_tested
from pitome.tasks.subject import from_data
from tests.configs import data_in

PREPROCESS = Preprocess(16, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 0.9)
KIND = custom_set("x", ["cat", "dog"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "arrays"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of two classes, one of them damaged."""
    random = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "x" / "test" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)).save(path)
    (tmp_path / "x" / "test" / "cat" / "2.png").write_bytes(b"no image")
    return tmp_path / "x"


def data_of(
    folder: Path, preprocess: Preprocess = PREPROCESS, limit: int | None = None, **values: object
) -> ImageData:
    return ImageData(data_in(folder, **values), preprocess, 4, limit=limit, workers=0, kind=KIND)


def read(data: ImageData) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True)]


SIZES = [(60, 45), (500, 333), (224, 224), (10, 300), (1, 1), (301, 299)]
TRANSFORMS = [(32, 0.5, "bicubic"), (224, 0.875, "bilinear"), (257, 1.0, "bicubic")]


@pytest.mark.parametrize("wh", SIZES)
@pytest.mark.parametrize(("size", "crop", "how"), TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tested_image_is_bit_for_bit_timms(size, crop, how, wh, channels) -> None:  # type: ignore[no-untyped-def]
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    pixels = np.random.default_rng(0).integers(0, 256, (*wh[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    timms = create_transform(
        (channels, size, size), is_training=False, interpolation=how, mean=mean, std=std, crop_pct=crop
    )
    assert torch.equal(as_tested(image, Preprocess(size, channels, mean, std, crop, how)), timms(image))


@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_the_cache_and_from_the_files_is_the_same(
    workers: int, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of() -> tuple[list[torch.Tensor], dict[int, str], torch.Tensor]:
        torch.manual_seed(1)
        data = data_of(folder)
        data.workers = workers
        return read(data), data.info.skipped, torch.rand(1)

    monkeypatch.setenv("PITOME_CACHE_GB", "0")
    direct, skipped, after = all_of()
    assert not cache.exists() and skipped == {1: "cat/2.png: no image that can be read"}
    monkeypatch.setenv("PITOME_CACHE_GB", "1")
    filled, *same = all_of()
    assert len(list(cache.glob("images-*"))) == 1 and same == [skipped, after]
    monkeypatch.setattr(Folder, "__getitem__", None)  # nothing is read any more
    again, *same = all_of()
    assert same == [skipped, after], "the seed of a run is left alone"
    for images in (filled, again):
        assert all(torch.equal(a, b) for a, b in zip(direct, images, strict=True))


def changed_file(folder: Path) -> ImageData:
    Image.new("RGB", (20, 30), "red").save(folder / "test" / "cat" / "0.png")
    return data_of(folder)


def repaired_file(folder: Path) -> ImageData:
    Image.new("RGB", (20, 30), "red").save(folder / "test" / "cat" / "2.png")
    return data_of(folder)


OTHER = {
    "a changed file": changed_file,
    "a repaired file": repaired_file,
    "another size": lambda folder: data_of(folder, Preprocess(8)),
    "another view": lambda folder: data_of(folder, Preprocess(16, shape=(8, 12))),
    "one channel": lambda folder: data_of(folder, Preprocess(16, 1, (0.5,), (0.5,))),
    "another selection": lambda folder: data_of(folder, limit=3),
    "other rules": lambda folder: data_of(folder, max_pixels=700),
}


@pytest.mark.parametrize("case", OTHER)
def test_what_is_other_is_another_entry(case: str, folder: Path, cache: Path) -> None:
    read(data_of(folder))
    read(OTHER[case](folder))
    assert len(list(cache.glob("images-*"))) == 2


def test_splits_of_the_hub_have_one_revision_and_two_entries(folder: Path, cache: Path) -> None:
    test = data_of(folder)._test
    for split in ("test", "train"):
        info = replace(test[2], source="hub", revision="0" * 40, split=split)
        TestImages(*test[:2], PREPROCESS, info).fill(0)
    assert len(list(cache.glob("images-*"))) == 2


def test_processes_that_decode_need_not_be_forked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loader(dataset: Dataset, **options: object) -> DataLoader:
        copy = pickle.loads(pickle.dumps(dataset))
        return DataLoader(copy, **options)  # type: ignore[arg-type]

    want = read(data_of(folder))
    monkeypatch.setenv("PITOME_CACHE", str(folder / "cache"))
    monkeypatch.setattr("pitome.tasks.images.DataLoader", loader)
    assert all(map(torch.equal, want, read(data_of(folder))))


def test_a_picture_of_a_few_images_reads_these_alone(folder: Path, cache: Path) -> None:
    data = data_of(folder)
    samples = from_data(data, [0, 2])
    assert not cache.exists() and torch.equal(samples.inputs, read(data)[0][[0, 1]])
