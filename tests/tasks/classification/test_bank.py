"""The training images that vote: which ones they are, and that they are prepared as for testing."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from pitome.tasks.classification.fashion_mnist import FashionMNIST
from pitome.tasks.classification.imagenet import ImageNet
from pitome.tasks.data import Preprocess
from pitome.tasks.selection import stratified_selection
from tests.configs import data_in

CLASSES = ("n01440764", "n01443537", "n15075141")  # labels 0, 1, 999


def read(loader):
    parts = list(loader)
    return [torch.cat([part[i] for part in parts]) for i in range(3)]


@pytest.mark.parametrize("limit", [1, 7, 50, 333, 1000])
def test_every_class_has_its_share(limit):
    labels = np.repeat([3, 1, -1, 8], [500, 250, 150, 100])
    ids = stratified_selection("a name", labels, limit)
    assert ids.tolist() == sorted(set(ids.tolist())) and len(ids) == limit
    counts = np.array([(labels[ids] == label).sum() for label in (3, 1, -1, 8)])
    assert (np.abs(counts - limit * np.array([0.5, 0.25, 0.15, 0.1])) <= 1).all()


def test_the_selection_is_the_same_everywhere_and_nested():
    labels = np.arange(1000) % 10
    ids = [set(stratified_selection("fashion_mnist", labels, n).tolist()) for n in (5, 10, 100, 999)]
    assert ids[0] < ids[1] < ids[2] < ids[3]
    # Frozen: another choice gives other results.
    assert sorted(ids[1]) == [39, 132, 268, 387, 411, 656, 665, 854, 920, 983]
    assert ids[1] != set(stratified_selection("imagenet", labels, 10).tolist())


def test_fashion_mnist(idx_folder, grey, arrays):
    images, labels = arrays["train"]
    whole = FashionMNIST(data_in(idx_folder), grey, 1000)
    found, own, ids = read(whole.bank_dataloader())
    assert ids.tolist() == list(range(5_030)) and own.tolist() == labels.tolist()  # validation as well
    expected = (torch.from_numpy(images[:, None]) / 255 - 0.286) / 0.353  # neither shifted nor mirrored
    torch.testing.assert_close(found, expected)
    info = whole.bank_info
    assert (info.split, info.n_selected, info.limit, info.selection) == ("train", 5_030, None, "all")
    assert info.revision == whole.train_info.revision != whole.info.revision
    some = FashionMNIST(data_in(idx_folder), grey, 16, bank=40)
    found, own, ids = read(some.bank_dataloader())
    torch.testing.assert_close(found, expected[ids])
    assert own.tolist() == labels[ids].tolist() and len(ids) == 40
    assert (some.bank_info.n_selected, some.bank_info.limit) == (40, 40)
    assert FashionMNIST(data_in(idx_folder), grey, 16, bank=9_999).bank_info.limit is None


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["folder", "parquet"])
def imagenet(request, tmp_path):
    """12 training images of three classes, the same in `val`; the second one cannot be read."""
    for split in ("train", "val"):
        encoded = [picture(n) if n != 1 else b"no image" for n in range(12)]
        if request.param == "folder":
            for n, data in enumerate(encoded):
                place = tmp_path / split / CLASSES[n // 4]
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{n:02}.JPEG").write_bytes(data)
        else:
            rows = [{"bytes": data, "path": None} for data in encoded]
            labels = [[0, 1, 999][n // 4] for n in range(12)]
            table = pyarrow.table({"image": rows, "label": labels})
            pyarrow.parquet.write_table(table, tmp_path / f"{split}-00000.parquet")
    return tmp_path


def test_imagenet(imagenet):
    colour = Preprocess(32)
    data = ImageNet(data_in(imagenet), colour, 5, workers=0)
    found, own, ids = read(data.bank_dataloader())
    tested, *_ = read(data.test_dataloader())
    torch.testing.assert_close(found, tested)  # no augmentation
    assert ids.tolist() == [0, *range(2, 12)] and set(own.tolist()) == {0, 1, 999}
    assert (data.bank_info.split, data.bank_info.n_samples, data.bank_info.n_skipped) == ("train", 11, 1)
    assert data.bank_info.skipped.keys() == {1} and data.train_info.n_skipped == 0
    some = ImageNet(data_in(imagenet), colour, 5, workers=0, bank=6)
    _, own, ids = read(some.bank_dataloader())
    assert (some.bank_info.n_selected, some.bank_info.limit) == (6, 6)
    assert len(ids) + some.bank_info.n_skipped == 6
    assert sorted({*ids.tolist(), *some.bank_info.skipped}) == [0, 3, 4, 6, 9, 10]  # two of each class
