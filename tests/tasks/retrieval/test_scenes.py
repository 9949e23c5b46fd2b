"""Scenes: deterministic, captions that determine the scene, splits of different items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pitome.errors import DataError
from pitome.tasks.data import Preprocess
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.scenes import TrainingScenes, scenes_pairs
from pitome.tasks.retrieval.scenes_make import EMPTY, describe, draw, layouts, neighbours
from tests.configs import after, data_in

PLACE: dict[str, Any] = {"source": "auto", "repository": "a/b", "revision": "main"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of two small splits with every kind."""
    random = np.random.default_rng(0)
    sizes = {"train": 5_030, "t10k": 40}
    return {
        part: (random.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10)
        for part, n in sizes.items()
    }


def test_a_kind_that_is_missing_is_said(idx_folder: Path) -> None:
    file = idx_folder / "t10k-labels-idx1-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:8] + bytes(value % 9 for value in content[8:]))
    with pytest.raises(DataError, match="holds no ankle boot to make test scenes of"):
        scenes_pairs("test", root=str(idx_folder), **PLACE)


def test_five_captions_determine_the_scene() -> None:
    kinds = layouts(300, np.random.RandomState(3), distinct=True)
    for number in range(5):
        assert len({describe(row)[number] for row in kinds}) == 300
    row = np.array([6, EMPTY, 6, 9])
    assert describe(row) == [
        "a shirt at the top left, a shirt at the bottom left and an ankle boot at the bottom right",
        "two shirts and an ankle boot: the shirts at the top left and bottom left and "
        "the ankle boot at the bottom right",
        "in the top row a shirt on the left, "
        "in the bottom row a shirt on the left and an ankle boot on the right",
        "lower right an ankle boot, lower left a shirt, upper left a shirt",
        "three items: shirt upper left, shirt lower left, ankle boot lower right",
    ]


def test_items_stand_in_their_quarters() -> None:
    items = np.full((1, 28, 28), 255, np.uint8)
    kinds, chosen = np.array([[0, EMPTY, EMPTY, 0]]), np.zeros((1, 4), int)
    still = draw(items, kinds, chosen, np.zeros((1, 4, 2), int))[0]
    assert still[:28, :28].min() == 255 and still[28:, 28:].min() == 255 and still[:28, 28:].max() == 0
    moved = draw(items, kinds, chosen, np.full((1, 4, 2), 3))[0]
    assert moved[3:31, 3:31].min() == 255 and moved[:3, :3].max() == 0
    assert moved[28:, 31:].min() == 255, "what would cross the border stays inside"


def test_a_neighbour_differs_in_one_item() -> None:
    kinds = layouts(200, np.random.RandomState(0), distinct=False)
    other = neighbours(kinds, np.random.RandomState(1))
    changed = (kinds != other).sum(axis=1)
    assert set(changed) == {1, 2}
    moved = changed == 2
    assert (np.sort(kinds[moved], axis=1) == np.sort(other[moved], axis=1)).all(), "the same items"
    assert ((kinds == EMPTY).sum(axis=1) == (other == EMPTY).sum(axis=1)).all()


def test_test_scenes_are_deterministic_and_distinct(idx_folder: Path) -> None:
    first = scenes_pairs("test", root=str(idx_folder), **PLACE)
    again = scenes_pairs("test", root=str(idx_folder), **PLACE)  # from the cache
    assert first.revision == again.revision and first.captions == again.captions
    assert len(first.captions) == 1000 and {len(own) for own in first.captions} == {5}
    assert len({own[0] for own in first.captions}) == 1000
    assert np.array_equal(np.asarray(first.read(7)), np.asarray(again.read(7)))
    assert scenes_pairs("validation", root=str(idx_folder), **PLACE).revision != first.revision


def test_the_revision_follows_the_items(idx_folder: Path, tmp_path: Path) -> None:
    before = scenes_pairs("test", root=str(idx_folder), **PLACE).revision
    file = idx_folder / "t10k-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[16:] = bytes(255 - value for value in content[16:])
    file.write_bytes(bytes(content))
    assert scenes_pairs("test", root=str(idx_folder), **PLACE).revision != before


def test_training_batches_follow_from_seed_and_number(idx_folder: Path) -> None:
    def batch(seed: int, number: int) -> tuple[np.ndarray, list[str], np.ndarray]:
        return TrainingScenes(16, seed, root=str(idx_folder), **PLACE)[number]

    images, captions, same = batch(0, 3)
    assert images.shape == (16, 56, 56) and len(captions) == len(same) == 16
    again = batch(0, 3)
    assert np.array_equal(images, again[0]) and captions == again[1]
    assert captions != batch(0, 4)[1] and captions != batch(1, 3)[1]


def test_equal_scenes_of_a_batch_are_known(idx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.array([[1, EMPTY, EMPTY, EMPTY]])
    monkeypatch.setattr(
        "pitome.tasks.retrieval.scenes.layouts", lambda count, *_, **__: np.repeat(row, count, axis=0)
    )
    monkeypatch.setattr(
        "pitome.tasks.retrieval.scenes.neighbours", lambda kinds, _: kinds + np.array([0, 0, 0, 3])
    )
    *_, same = TrainingScenes(6, 0, root=str(idx_folder), **PLACE)[0]
    assert len(set(same[:3])) == 1 and len(set(same[3:])) == 1 and same[0] != same[3]


def test_a_resumed_epoch_sees_its_own_scenes(idx_folder: Path, grey: Preprocess) -> None:
    def loader(epoch: int) -> list[str]:
        data = RetrievalData(data_in(idx_folder, "scenes"), grey, 6400)
        data.trainer = after(epoch)
        loader = data.train_dataloader()
        assert len(loader) == 4
        return next(iter(loader))[1]

    assert loader(1) == loader(1) != loader(0)


def test_batches_are_the_models_input(idx_folder: Path, grey: Preprocess, colour: Preprocess) -> None:
    data = RetrievalData(data_in(idx_folder, "scenes"), colour, 400)
    images, places = next(iter(data.test_dataloader()))
    assert images.shape == (400, 3, 32, 32) and images.dtype == torch.float32
    assert places.tolist() == list(range(400))
    assert data.info.record()["n_samples"] == 1000 and len(data.test.captions) == 5000
    assert data.test.owner.tolist() == [i for i in range(1000) for _ in range(5)]
    images, *_ = next(iter(RetrievalData(data_in(idx_folder, "scenes"), grey, 4).test_dataloader()))
    assert images.shape == (4, 1, 28, 28)


def test_limit_draws_by_name(idx_folder: Path, grey: Preprocess) -> None:
    few = RetrievalData(data_in(idx_folder, "scenes"), grey, 4, limit=20).test
    more = RetrievalData(data_in(idx_folder, "scenes"), grey, 4, limit=50).test
    assert len(few.ids) == 20 and set(few.ids) <= set(more.ids) and few.ids != list(range(20))
    assert few.info.limit == 20 and few.owner.max() == 19
