import io
import shutil

import datasets
import huggingface_hub.constants
import lightning
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from pitome.config import CONF
from pitome.errors import DataError
from pitome.sources import hub
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.imagenet import ImageNet, synsets
from pitome.tasks.data import Preprocess, permuted_selection
from tests.configs import data_in, data_of

CONFIG = {"name": "imagenet", "root": None, "repository": "a/b", "revision": "main"}
MODES = ["RGB", "L", "CMYK", "RGBA", "P", "LA", "1", "I;16"]


def picture(mode: str, seed: int = 0, size=(60, 45)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if image.mode in ("RGB", "L", "CMYK") else "PNG")
    return buffer.getvalue()


def read(loader):
    parts = list(loader)
    return [torch.cat([part[i] for part in parts]) for i in range(3)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Three classes (labels 0, 1 and 999), 8 images, one of each mode; JPEG where JPEG can."""
    root = tmp_path / "imagenet"
    for number, mode in enumerate(MODES):
        name = ["n01440764", "n01443537", "n15075141"][number % 3]
        (root / "val" / name).mkdir(parents=True, exist_ok=True)
        (root / "val" / name / f"{number}.JPEG").write_bytes(encode(picture(mode, number)))
    return root


def test_synsets_are_sorted_and_complete():
    assert len(synsets()) == 1000
    assert list(synsets()) == sorted(synsets())
    assert synsets()["n01440764"] == 0 and synsets()["n15075141"] == 999


def test_every_image_is_kept_whatever_its_mode(folder, colour):
    data = ImageNet(data_in(folder), colour, batch_size=3, workers=0)
    images, labels, ids = read(data.test_dataloader())
    assert images.shape == (8, 3, 32, 32) and images.isfinite().all()
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 999, 999]
    assert ids.tolist() == list(range(8))
    record = data.info.record()
    assert (record["source"], record["split"], record["n_samples"]) == ("local", "validation", 8)
    assert (record["n_skipped"], record["selection"]) == (0, "all")


def test_the_transform_is_timms(folder):
    preprocess = Preprocess(32, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 0.5, "bicubic")
    images, *_ = read(ImageNet(data_in(folder), preprocess, batch_size=8, workers=0).test_dataloader())
    # crop_pct 0.5 of a 60x45 image: the short side becomes 64, the middle 32x32 is kept
    with Image.open(folder / "val" / "n01440764" / "0.JPEG") as image:
        resized = image.resize((85, 64), Image.Resampling.BICUBIC)
    left, top = round((85 - 32) / 2), 16
    pixels = np.asarray(resized.crop((left, top, left + 32, top + 32)), np.float32) / 255
    expected = (pixels - np.float32(preprocess.mean)) / np.float32(preprocess.std)
    np.testing.assert_allclose(images[0].movedim(0, -1), expected, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_counted_and_the_pass_completes(folder, colour, workers):
    first = folder / "val" / "n01440764" / "0.JPEG"
    first.write_bytes(first.read_bytes()[:-400])
    (folder / "val" / "n01443537" / "4.JPEG").write_bytes(b"not an image")
    (folder / "val" / "n15075141" / "2.JPEG").write_bytes(b"")
    data = ImageNet(data_in(folder), colour, batch_size=1, workers=workers)
    for _ in range(2):  # a second pass does not count twice
        _, labels, ids = read(data.test_dataloader())
        assert ids.tolist() == [1, 2, 3, 5, 7]
        assert labels.tolist() == [0, 0, 1, 1, 999]
        record = data.info.record()
        assert (record["n_samples"], record["n_skipped"]) == (5, 3)
    assert [entry["id"] for entry in record["skipped"]] == ["0", "4", "6"]
    assert "truncated" in record["skipped"][0]["reason"]
    assert all(
        "\n" not in entry["reason"] and str(folder) not in entry["reason"] for entry in record["skipped"]
    )


class Count(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def test_step(self, batch, index):
        self.seen += batch[2].tolist()


@pytest.mark.parametrize("lost", [["0", "3"], ["5"], ["1", "4", "7"]])
def test_an_evaluation_completes_without_the_unreadable(folder, colour, lost):
    for path in folder.rglob("*.JPEG"):
        if path.stem in lost:
            path.write_bytes(path.read_bytes()[:200])
    data = ImageNet(data_in(folder), colour, batch_size=1, workers=0)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    model = Count()
    trainer.test(model, data, verbose=False)
    assert len(model.seen) == 8 - len(lost) == data.info.n_samples
    assert data.info.n_skipped == len(lost)


def test_a_file_that_vanishes_is_skipped(folder, colour):
    data = ImageNet(data_in(folder), colour, batch_size=4, workers=0)
    loader = data.test_dataloader()
    (folder / "val" / "n01440764" / "3.JPEG").unlink()
    assert 1 not in read(loader)[2].tolist()
    assert data.info.skipped == {1: "n01440764/3.JPEG: no such file"}


def test_nothing_readable_is_an_error(folder, colour):
    for path in folder.rglob("*.JPEG"):
        path.write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"none of the 8 images of imagenet can be read: 0: n01440764/0.JPEG: no image that can be read",
    ):
        read(ImageNet(data_in(folder), colour, batch_size=4, workers=0).test_dataloader())


def test_limit_is_a_fixed_choice_over_all_classes(folder, colour):
    data = ImageNet(data_in(folder), colour, batch_size=4, limit=4, workers=0)
    ids = read(data.test_dataloader())[2].tolist()
    assert ids == permuted_selection("imagenet", 8, 4).tolist() and ids != [0, 1, 2, 3]
    assert data.info.record()["selection"] == "the first of a permutation seeded with the name"
    assert data.info.limit == 4 and data.info.n_samples == 4
    more = read(ImageNet(data_in(folder), colour, batch_size=4, limit=6, workers=0).test_dataloader())[
        2
    ].tolist()
    assert set(ids) < set(more)
    assert ImageNet(data_in(folder), colour, batch_size=4, limit=8, workers=0).info.limit is None


def test_the_choice_is_the_same_everywhere():
    assert permuted_selection("imagenet", 50_000, 5).tolist() == [11789, 22134, 35767, 36982, 46933]


def test_other_layouts(folder, colour):
    expected = read(ImageNet(data_in(folder), colour, batch_size=8, workers=0).test_dataloader())
    (folder / "val").rename(folder / "validation")
    for root in (folder, folder / "validation"):
        found = read(ImageNet(data_in(root), colour, batch_size=8, workers=0).test_dataloader())
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_training_images(folder, colour):
    (folder / "val").rename(folder / "train")
    data = ImageNet(data_in(folder), colour, batch_size=1, workers=0)
    images, _, ids = read(data.train_dataloader())
    held_out = read(data.val_dataloader())[2]
    assert images.shape == (7, 3, 32, 32) and len(held_out) == 1
    assert sorted([*ids.tolist(), *held_out.tolist()]) == list(range(8))
    assert data.train_info.split == "train"


def test_validation_images_are_of_every_class(folder, colour):
    """One in ten of the training images; what is tested is not among them."""
    (folder / "val").rename(folder / "train")
    for path in list((folder / "train").glob("*/*")):
        for copy in range(9):
            shutil.copy(path, path.with_name(f"{copy}{path.name}"))
    data = ImageNet(data_in(folder), colour, batch_size=80, workers=0)
    _, labels, ids = read(data.val_dataloader())
    every = data._train[0].labels
    assert len(ids) == 8 and labels.bincount().tolist() == [n // 10 for n in np.bincount(every)]
    assert not set(ids.tolist()) & set(read(data.train_dataloader())[2].tolist())


def test_revision_follows_the_files(folder, colour):
    def revision():
        return ImageNet(data_in(folder), colour, batch_size=4, workers=0).info.revision

    before = revision()
    assert before == revision()
    path = folder / "val" / "n01440764" / "0.JPEG"
    path.write_bytes(path.read_bytes() + b"x")
    assert revision() != before


def test_folders_that_are_not_imagenet(folder, tmp_path, colour):
    (folder / "val" / "cats").mkdir()
    (folder / "val" / "cats" / "0.JPEG").write_bytes((folder / "val" / "n01440764" / "0.JPEG").read_bytes())
    with pytest.raises(DataError, match="val/cats is not named after an ImageNet-1k class; expected"):
        _ = ImageNet(data_in(folder), colour, batch_size=4, workers=0).info
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(DataError, match="holds no images and no parquet files"):
        _ = ImageNet(data_in(tmp_path / "notes"), colour, batch_size=4, workers=0).info
    with pytest.raises(DataError, match="no such folder"):
        _ = ImageNet(data_in(tmp_path / "missing"), colour, batch_size=4, workers=0).info


def write_parquet(path, rows, hub_features=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    if hub_features:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=1000)}
        )
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def rows(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return [
        {"image": {"bytes": encode(picture(mode, n)), "path": f"{n}.JPEG"}, "label": n * 3}
        for n, mode in enumerate(MODES)
    ]


@pytest.mark.parametrize("hub_features", [False, True])
def test_parquet_folder(tmp_path, rows, colour, hub_features):
    root = tmp_path / "parquet"
    rows[2]["image"]["bytes"] = rows[2]["image"]["bytes"][:300]
    write_parquet(root / "data" / "validation-00000-of-00002.parquet", rows[:5], hub_features)
    write_parquet(root / "data" / "validation-00001-of-00002.parquet", rows[5:], hub_features)
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows[:1], hub_features)
    data = ImageNet(data_in(root), colour, batch_size=3, workers=0)
    images, labels, ids = read(data.test_dataloader())
    assert images.shape == (7, 3, 32, 32)
    assert ids.tolist() == [0, 1, 3, 4, 5, 6, 7] and labels.tolist() == [n * 3 for n in ids.tolist()]
    assert (data.info.source, data.info.n_samples, data.info.n_skipped) == ("local", 7, 1)
    assert data.train_info.n_samples == 1


def test_parquet_files_without_a_split_in_their_name_are_the_test_split(tmp_path, rows, colour):
    write_parquet(tmp_path / "p" / "part-0.parquet", rows)
    assert ImageNet(data_in(tmp_path / "p"), colour, batch_size=3, workers=0).info.n_samples == 8
    with pytest.raises(DataError, match="no parquet files of the split train"):
        _ = ImageNet(data_in(tmp_path / "p"), colour, batch_size=3, workers=0).train_info


def test_bad_parquet(tmp_path, rows, colour):
    write_parquet(tmp_path / "p" / "val-0.parquet", [{"picture": 1, "label": 2}])
    with pytest.raises(DataError, match=r"val-0\.parquet has no column image, it has picture, label"):
        _ = ImageNet(data_in(tmp_path / "p"), colour, batch_size=3, workers=0).info
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "val-0.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read") as error:
        _ = ImageNet(data_in(tmp_path / "q"), colour, batch_size=3, workers=0).info
    assert "\n" not in str(error.value)


def test_labels_out_of_range_are_skipped(tmp_path, rows, colour):
    rows[0]["label"], rows[1]["label"] = -1, None
    write_parquet(tmp_path / "p" / "val-0.parquet", rows)
    data = ImageNet(data_in(tmp_path / "p"), colour, batch_size=3, workers=0)
    assert read(data.test_dataloader())[2].tolist() == [2, 3, 4, 5, 6, 7]
    assert data.info.skipped[0] == "label -1 is not one of 1000"


def test_the_hub(tmp_path, rows, colour, monkeypatch):
    snapshot = tmp_path / "0a1b2c"
    write_parquet(snapshot / "data" / "validation-00000-of-00001.parquet", rows, True)
    monkeypatch.setattr(hub, "cached_folder", lambda *a, **k: snapshot)
    data = build_image_data(data_of(CONFIG), colour, batch_size=3)
    assert (data.info.source, data.info.revision, data.info.n_samples) == ("hub", "0a1b2c", 8)


def test_a_hub_out_of_reach_is_one_line_with_ways_out(colour, monkeypatch):
    monkeypatch.setattr(hub, "cached_folder", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        _ = build_image_data(data_of(CONFIG), colour, batch_size=3).info
    message = str(error.value)
    for part in (
        "data/validation-*.parquet of a/b",
        "hf auth login",
        "data.root=FOLDER",
        "data=fashion_mnist",
    ):
        assert part in message
    assert "\n" not in message


def test_what_does_not_fit(colour, grey):
    with pytest.raises(DataError, match="no package holds imagenet"):
        build_image_data(data_of(CONFIG), colour, batch_size=3, source="package")
    with pytest.raises(DataError, match="colour images"):
        build_image_data(data_of(CONFIG), grey, batch_size=3)


def test_a_limit_on_pixels(folder, colour):
    Image.new("RGB", (100, 100)).save(folder / "val" / "n01440764" / "0.JPEG")
    data = build_image_data(
        data_of(CONFIG | {"root": str(folder), "max_pixels": 9_999}), colour, batch_size=3, workers=0
    )
    assert read(data.test_dataloader())[2].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert data.info.skipped == {0: "n01440764/0.JPEG: more than max_pixels=9999 pixels"}


def test_16_bits_keep_their_greys(folder, colour):
    """The same image in 16 and in 8 bits, not a white one."""
    path = folder / "val" / "n01443537" / "7.JPEG"
    with Image.open(path) as image:
        assert image.mode == "I;16" and np.asarray(image).max() > 60_000
    in_16_bits, _, ids = read(ImageNet(data_in(folder), colour, batch_size=8, workers=0).test_dataloader())
    picture("L", 7).save(path, "PNG")
    in_8_bits = read(ImageNet(data_in(folder), colour, batch_size=8, workers=0).test_dataloader())[0]
    assert torch.equal(in_16_bits, in_8_bits) and ids[5] == 5 and in_8_bits[5].std() > 0.1


def test_exif_is_left_alone_as_the_published_accuracies_have_it(folder, colour):
    """And applied where `exif` says so, which is then another run."""
    assert OmegaConf.load(CONF / "data" / "imagenet.yaml").exif is False
    path, exif = folder / "val" / "n01440764" / "0.JPEG", Image.Exif()
    exif[0x0112] = 3
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 64, 32))
    half.save(path, exif=exif)
    for upright, brighter in ((False, 0), (True, 1)):
        config = CONFIG | {"root": str(folder), "exif": upright}
        image = read(build_image_data(data_of(config), colour, batch_size=8, workers=0).test_dataloader())[0][
            0
        ]
        halves = [image[:, :16].mean(), image[:, 16:].mean()]
        assert halves[brighter] > halves[1 - brighter]
