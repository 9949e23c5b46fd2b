"""Flickr30k and COCO from folders and from a fake hub; files as users have them."""

from __future__ import annotations

import csv
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pitome.errors import DataError, UsageError
from pitome.tasks.data import Preprocess
from pitome.tasks.images import prepare
from pitome.tasks.retrieval import files as retrieval_files
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.files import read_annotations
from pitome.tasks.retrieval.sets import SETS
from tests.configs import after, data_of

SIZE = 16
Make = Callable[..., RetrievalData]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


def bytes_of(image: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def entry(name: str, split: str, captions: list[str]) -> dict[str, Any]:
    return {
        "filename": name,
        "filepath": "val2014",
        "split": split,
        "sentences": [{"raw": c} for c in captions],
    }


def captions_of(number: int) -> list[str]:
    return [f"picture {number}, said in way {way}" for way in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 test images, 3 for validation, 4 for training, in Karpathy's form."""
    root = tmp_path / "flickr"
    (root / "images").mkdir(parents=True)
    splits = ["test"] * 12 + ["val"] * 3 + ["train"] * 4
    for number in range(len(splits)):
        (root / "images" / f"{number}.jpg").write_bytes(bytes_of(picture(number)))
    entries = [entry(f"{number}.jpg", split, captions_of(number)) for number, split in enumerate(splits)]
    write(root, entries)
    return root


def write(root: Path, entries: object, name: str = "dataset_flickr30k.json") -> None:
    (root / name).write_text(json.dumps({"images": entries} if name.startswith("dataset") else entries))


@pytest.fixture
def make(folder: Path) -> Make:
    preprocess = Preprocess(SIZE, 3, (0.5,) * 3, (0.25,) * 3)

    def call(root: Path | None = folder, name: str = "flickr30k", **given: Any) -> RetrievalData:
        place = {
            key: given.pop(key) for key in ("repository", "revision", "max_pixels", "exif") if key in given
        }
        config = data_of({"name": name, "root": None if root is None else str(root), **place})
        return RetrievalData(config, given.pop("preprocess", preprocess), given.pop("batch_size", 5), **given)

    return call


def test_karpathys_split(make: Make) -> None:
    data = make()
    assert data.test.captions == [text for n in range(12) for text in captions_of(n)]
    assert data.test.owner.tolist() == [n for n in range(12) for _ in range(5)]
    assert len(data.validation.ids) == 3 and data.validation.captions[0] == captions_of(12)[0]
    record = data.info.record()
    assert (record["source"], record["n_samples"], record["n_skipped"]) == ("local", 12, 0)
    assert record["revision"].startswith("sha256:")
    batches = list(data.test_dataloader())
    assert [len(images) for images, _ in batches] == [5, 5, 2]


def test_the_input_is_that_of_open_clip(folder: Path, make: Make) -> None:
    """Resize, centre crop, scale and normalise, as open_clip's own transform."""
    expected = v2.Compose(
        [
            v2.Resize(SIZE, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIZE),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    images, _ = next(iter(make().test_dataloader()))
    with Image.open(folder / "images" / "3.jpg") as image:
        torch.testing.assert_close(images[3], expected(image), rtol=0, atol=1e-6)


def test_squashed_images_lose_nothing() -> None:
    stripes = Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[None] * 6, 20, axis=0)).convert("RGB")
    whole = prepare(stripes, Preprocess(20, 3, squash=True))
    middle = prepare(stripes, Preprocess(20, 3))
    assert whole.shape == middle.shape == (3, 20, 20)
    assert whole[0, 0, 0] < 12 and whole[0, 0, -1] > 220 and middle[0, 0, 0] > 50


def test_blips_lists(folder: Path, make: Make) -> None:
    expected = make().test
    (folder / "dataset_flickr30k.json").unlink()
    write(
        folder,
        [{"image": f"flickr30k-images/{n}.jpg", "caption": captions_of(n)} for n in range(12)],
        "flickr30k_test.json",
    )
    assert make().test.captions == expected.captions
    # Training lists hold one caption at a time.
    rows = [{"image": f"x/{n}.jpg", "caption": text} for n in (15, 16) for text in captions_of(n)]
    write(folder, rows, "flickr30k_train.json")
    assert set(next(iter(make().train_dataloader()))[2].tolist()) <= {0, 1}


@pytest.mark.parametrize("form", ["list", "list of single captions", "Karpathy"])
def test_images_of_one_name_in_several_folders(form: str, folder: Path, make: Make) -> None:
    """Each is an image of its own, with its own captions."""
    for number, part in enumerate("abc"):
        (folder / part).mkdir()
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(folder / part / "0001.png")
    (folder / "dataset_flickr30k.json").unlink()
    captions = {part: [f"scene {part} {n}" for n in range(5)] for part in "abc"}
    if form == "Karpathy":
        entries = [entry("0001.png", "test", captions[part]) | {"filepath": part} for part in "abc"]
        write(folder, entries)
    elif form == "list":
        rows = [{"image": f"{part}/0001.png", "caption": captions[part]} for part in "abc"]
        write(folder, rows, "flickr30k_test.json")
    else:
        rows = [
            {"image": f"{part}/0001.png", "caption": captions[part][n]} for n in range(5) for part in "abc"
        ]
        write(folder, rows, "flickr30k_test.json")
    test = make(preprocess=Preprocess(SIZE, 3)).test
    assert test.images[:, 0].max(axis=(1, 2)).tolist() == [0, 80, 160]
    assert test.captions == [text for part in "abc" for text in captions[part]]
    (folder / "b" / "0001.png").unlink()
    split = make().test
    assert split.ids == [0, 2] and split.info.skipped[1].startswith("b/0001.png: no such file")


def test_a_name_for_two_images_ends_the_run(folder: Path, make: Make) -> None:
    (folder / "thumbnails").mkdir()
    (folder / "thumbnails" / "3.jpg").write_bytes(bytes_of(picture(3, size=(8, 8))))
    with pytest.raises(DataError, match=r"3\.jpg may be images/3\.jpg or thumbnails/3\.jpg"):
        make().test.ids  # noqa: B018


def test_a_revision_says_nothing_of_folders_where_file_names_are_enough(folder: Path, make: Make) -> None:
    """So that records of before keep theirs."""
    before = make().info.revision
    entries = [entry(f"{n}.jpg", "test", captions_of(n)) | {"filepath": "images"} for n in range(12)]
    write(folder, entries)
    assert make().info.revision == before
    (folder / "dataset_flickr30k.json").unlink()
    rows = [{"image": f"x/{n}.jpg", "caption": captions_of(n)} for n in range(12)]
    write(folder, rows, "flickr30k_test.json")
    assert make().info.revision == before


def test_the_rules_make_another_entry_of_the_cache(folder: Path, make: Make) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(0).save(folder / "images" / "0.jpg", exif=exif)
    upright, stored = make().test.images[0], make(exif=False).test.images[0]
    assert (
        not np.array_equal(upright, stored) and np.abs(upright.astype(int) - stored[:, ::-1, ::-1]).max() < 3
    )


def test_a_folder_inside_and_a_zip(folder: Path, make: Make) -> None:
    expected = make().test
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in sorted((folder / "images").iterdir()):
            archive.write(path, f"images/{path.name}")
            archive.writestr(f"__MACOSX/._{path.name}", b"not an image")
            path.unlink()
    (folder / "dataset_flickr30k.json").rename(folder / "images" / "dataset_flickr30k.json")
    zipped = make().test
    assert np.array_equal(zipped.images, expected.images) and zipped.captions == expected.captions


def test_processes_that_load_batches_need_not_be_forked(folder: Path, make: Make) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in sorted((folder / "images").iterdir()):
            archive.write(path, f"images/{path.name}")
            path.unlink()
    batches = make().train_dataloader().dataset
    expected = batches[0][0]  # the zip file is open by now
    assert torch.equal(pickle.loads(pickle.dumps(batches))[0][0], expected)


def test_the_hub(folder: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its repository holds a table with JSON in a column, and a zip file."""
    snapshot = tmp_path / "c4a4cdc67b"
    snapshot.mkdir()
    with (snapshot / "test_1k_flickr.csv").open("w", newline="") as file:
        rows = [(json.dumps(captions_of(n)), f"{n}.jpg") for n in range(12)]
        csv.writer(file).writerows([("raw", "filename"), *rows])
    with zipfile.ZipFile(snapshot / "images_flickr_1k_test.zip", "w") as archive:
        for n in range(12):
            archive.write(folder / "images" / f"{n}.jpg", f"images_flickr_1k_test/{n}.jpg")
    asked = []

    def fetch(repository: str, *wanted: str, **_: object) -> Path:
        asked.append((repository, *wanted))
        return snapshot

    monkeypatch.setattr(retrieval_files, "fetch_folder", fetch)
    data = make(None, repository="a/b")
    assert np.array_equal(data.test.images, make().test.images)
    assert data.info.source == "hub" and data.info.revision == "c4a4cdc67b"
    assert asked == [("a/b", "test_1k_flickr.csv", "images_flickr_1k_test.zip")]
    with pytest.raises(DataError, match="holds the test split alone: give a folder"):
        data.train_dataloader()


def test_restval_is_trained_on(folder: Path, make: Make) -> None:
    entries = [
        entry("1.jpg", "train", ["a"]),
        entry("2.jpg", "restval", ["b"]),
        entry("3.jpg", "test", ["c"]),
    ]
    write(folder, entries, "dataset_coco.json")
    _, captions, ids = next(iter(make(name="coco").train_dataloader()))
    assert sorted(zip(captions, ids.tolist(), strict=True)) == [("a", 0), ("b", 1)]


def test_an_epoch_has_every_caption_once(folder: Path, make: Make) -> None:
    """Images with 1, 5 and 7 captions, and one with none."""
    counts = {"1.jpg": 1, "2.jpg": 5, "3.jpg": 7, "4.jpg": 0}
    entries = [entry(name, "train", [f"{name} {n}" for n in range(many)]) for name, many in counts.items()]
    write(folder, [*entries, entry("5.jpg", "test", ["c"])])
    batches = list(make(batch_size=1).train_dataloader())
    assert sorted(text for _, texts, _ in batches for text in texts) == sorted(
        f"{name} {n}" for name, many in counts.items() for n in range(many)
    )
    assert all(texts == [f"{ids.item() + 1}.jpg {texts[0][-1]}"] for _, texts, ids in batches)


def test_training_batches_follow_from_the_seed(make: Make) -> None:
    def batch(seed: int, epoch: int) -> Any:
        data = make(seed=seed)
        data.trainer = after(epoch)  # type: ignore[assignment]
        return next(iter(data.train_dataloader()))

    images, captions, ids = batch(0, 0)
    assert images.shape == (5, 3, SIZE, SIZE) and set(ids.tolist()) <= {0, 1, 2, 3}
    for index, text in zip(ids.tolist(), captions, strict=True):
        assert text in captions_of(15 + index)
    again = batch(0, 0)
    assert torch.equal(images, again[0]) and captions == again[1]
    assert not torch.equal(images, batch(0, 1)[0]) and not torch.equal(images, batch(1, 0)[0])


def test_images_that_cannot_be_read_are_left_out_with_their_captions(folder: Path, make: Make) -> None:
    images = folder / "images"
    (images / "0.jpg").write_bytes(bytes_of(picture(0))[:200])
    (images / "1.jpg").unlink()
    (images / "2.jpg").write_bytes(bytes_of(picture(2, size=(20_000, 20)), "PNG"))
    (images / "3.jpg").write_bytes(b"")
    split = make().test
    assert split.ids == list(range(4, 12)) and len(split.captions) == 40 and split.owner.max() == 7
    assert split.captions[0] == captions_of(4)[0] and len(split.images) == 8
    record = split.info.record()
    assert (record["n_samples"], record["n_skipped"]) == (8, 4)
    reasons = {row["id"]: row["reason"] for row in record["skipped"]}
    assert "Truncated" in reasons["0"] and "no such file" in reasons["1"]
    assert "20000x20" in reasons["2"] and reasons["3"].startswith("3.jpg")
    assert all(reason.endswith("left out with its 5 captions") for reason in reasons.values())
    assert not any(str(folder) in reason for reason in reasons.values()), "no paths in records"
    again = make().test  # from the cache
    assert again.ids == split.ids and again.info.skipped == split.info.skipped


def test_unusual_images_are_read(folder: Path, make: Make) -> None:
    images = folder / "images"
    (images / "0.jpg").write_bytes(bytes_of(picture(0, "CMYK")))
    deep = Image.fromarray(np.full((30, 30), 65535, np.uint16))
    (images / "1.jpg").write_bytes(bytes_of(deep, "PNG"))
    (images / "2.jpg").write_bytes(bytes_of(Image.new("RGB", (1, 1), (255, 0, 0)), "PNG"))
    (images / "3.jpg").write_bytes(bytes_of(picture(3, "L")))
    split = make().test
    assert split.info.n_skipped == 0 and len(split.ids) == 12
    assert split.images[1].min() == 255, "white in 16 bits is white"
    assert split.images[2][0].min() == 255 and split.images[2][1:].max() == 0


def test_no_image_left(folder: Path, make: Make) -> None:
    for path in (folder / "images").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the 12 images of flickr30k can be used: 0\.jpg"):
        make().test.ids  # noqa: B018


def test_an_image_without_captions_is_left_out(folder: Path, make: Make) -> None:
    entries = [entry("0.jpg", "test", []), entry("1.jpg", "test", ["  "]), entry("2.jpg", "test", ["two"])]
    write(folder, entries)
    split = make().test
    assert split.ids == [2] and split.captions == ["two"]
    assert split.info.skipped == {0: "0.jpg: no caption", 1: "1.jpg: no caption"}


def test_five_captions_count(folder: Path, make: Make) -> None:
    write(folder, [entry("0.jpg", "test", list("abcdefg")), entry("1.jpg", "test", ["x", "x"])])
    assert make().test.captions == [*"abcde", "x", "x"]


def test_a_changed_image_is_read_again(folder: Path, make: Make) -> None:
    before = make().test
    path = folder / "images" / "0.jpg"
    path.write_bytes(bytes_of(picture(99)))
    after = make().test
    assert not np.array_equal(after.images[0], before.images[0])
    assert np.array_equal(after.images[1:], before.images[1:])


CAPTIONS = {f"{number}.jpg": captions_of(number) for number in range(12)}
LINES = [(name, at, text) for name, own in CAPTIONS.items() for at, text in enumerate(own)]
COCO = {
    "images": [{"id": n, "file_name": name} for n, name in enumerate(CAPTIONS)],
    "annotations": [{"image_id": n, "caption": c} for n, own in enumerate(CAPTIONS.values()) for c in own],
}
# name -> file, its content, a list of the split's images; the captions are those of the folder in all forms
PUBLISHED = {
    "results.csv": (
        "results.csv",
        "image_name| comment_number| comment\n" + "".join(f"{n}| {at}| {text}\n" for n, at, text in LINES),
        list(CAPTIONS),
    ),
    "results.csv without one mark": (
        "results.csv",
        "image_name| comment_number| comment\n"
        + "".join(f"{n}| {at}{'|' if at < 4 else '  '} {text}\n" for n, at, text in LINES),
        list(CAPTIONS),
    ),
    "token": (
        "results_20130124.token",
        "".join(f"{n}#{at}\t{text}\r\n" for n, at, text in [*LINES, ("99.jpg", 0, "of another split")]),
        [name.removesuffix(".jpg") for name in CAPTIONS],
    ),
    "CLIP_benchmark, Flickr30k": (
        "flickr30k_test_karpathy.txt",
        "image,caption\n" + "".join(f"{n},{text}\n" for n, _, text in LINES),
        None,
    ),
    "Flickr8k": (
        "Flickr8k.token.txt",
        "".join(f"{n}#{at}\t{text}\n" for n, at, text in [*LINES, ("99.jpg.1", 0, "of another split")]),
        list(CAPTIONS),
    ),
    "Flickr8k as on Kaggle": (  # quotation marks where a caption has commas
        "captions.txt",
        "image,caption\n" + "".join(f'{n},"{text}"\n' for n, _, text in LINES),
        list(CAPTIONS),
    ),
    "Flickr30k with numbers": (
        "captions.txt",
        "image_name,comment_number,comment\n" + "".join(f'{n},{at}, "{t}"\n' for n, at, t in LINES),
        list(CAPTIONS),
    ),
    "a list with folders": (
        "captions.txt",
        "image,caption\n" + "".join(f"{n},{text}\n" for n, _, text in LINES),
        [f"Images/{name}" for name in CAPTIONS],
    ),
    "pipes without numbers": (
        "captions.txt",
        "image_name|comment\n" + "".join(f"{n}|{text}\n" for n, _, text in LINES),
        list(CAPTIONS),
    ),
    "results.csv without a header": (
        "results.csv",
        "".join(f"{n}| {at}| {text}\n" for n, at, text in LINES),
        list(CAPTIONS),
    ),
    "CLIP_benchmark, COCO": ("coco_test_karpathy.json", json.dumps(COCO), None),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_captions_as_they_are_published(case: str, folder: Path) -> None:
    name, content, names = PUBLISHED[case]
    data = SETS["coco" if "coco" in name else "flickr8k" if "8k" in case else "flickr30k"]
    (folder / "dataset_flickr30k.json").unlink()
    (folder / name).write_text(content)
    if names is not None:
        with pytest.raises(DataError, match="does not say which images the split test has"):
            read_annotations(folder, data, "test")
        (folder / ("Flickr_8k.testImages.txt" if "8k" in case else "test.txt")).write_text("\n".join(names))
    rows = read_annotations(folder, data, "test")
    assert rows == list(CAPTIONS.items())


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ("0.jpg,2 , 3 dogs , running .", "2 , 3 dogs , running ."),
        ('0.jpg,"2 , 3 dogs"', "2 , 3 dogs"),
        ('0.jpg,"A ""big"" dog , red"', 'A "big" dog , red'),
        ('0.jpg,"Stop" says "no"', '"Stop" says "no"'),
        ('"0.jpg","one , two"', "one , two"),
        ("0.jpg, one # two | three", "one # two | three"),
    ],
)
def test_commas_and_marks_of_a_caption_stay(line: str, caption: str, folder: Path) -> None:
    (folder / "dataset_flickr30k.json").unlink()
    (folder / "flickr30k_test_karpathy.txt").write_text(f"image,caption\n{line}\n")
    assert read_annotations(folder, SETS["flickr30k"], "test") == [("0.jpg", [caption])]


# where the annotations are -> what writes them there
PLACES: dict[str, Callable[[Path, str], object]] = {
    "a folder": lambda root, text: put(root / "caption_datasets" / "dataset_flickr30k.json", text),
    "three folders down": lambda root, text: put(root / "a" / "b" / "c" / "dataset_flickr30k.json", text),
    "his archive": lambda root, text: zipped(
        root / "caption_datasets.zip",
        {"dataset_flickr30k.json": text, "__MACOSX/dataset_flickr30k.json": "no"},
    ),
    "his archive of one set": lambda root, text: zipped(
        root / "flickr30k.zip", {"flickr30k/dataset.json": text, "flickr30k/readme.txt": "x"}
    ),
    "a copy": lambda root, text: [put(root / n / "dataset_flickr30k.json", text) for n in "ab"],
}


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def zipped(path: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)


@pytest.mark.parametrize("case", PLACES)
def test_annotations_are_found(case: str, folder: Path) -> None:
    path = folder / "dataset_flickr30k.json"
    text = json.dumps(json.loads(path.read_text()) | {"dataset": "flickr30k"})
    expected = read_annotations(folder, SETS["flickr30k"], "test")
    path.unlink()
    PLACES[case](folder, text)
    assert read_annotations(folder, SETS["flickr30k"], "test") == expected


def test_annotations_that_may_be_two_files_are_named(folder: Path) -> None:
    (folder / "dataset_flickr30k.json").unlink()
    for name in "ab":
        put(folder / name / "dataset_flickr30k.json", f'{{"images": [], "of": "{name}"}}')
    with pytest.raises(DataError, match=r"may be .*/a/dataset\S+ or .*/b/dataset\S+, which differ"):
        read_annotations(folder, SETS["flickr30k"], "test")
    put(folder / "dataset.json", '{"images": [], "dataset": "coco"}')
    (folder / "a" / "dataset_flickr30k.json").unlink()
    (folder / "b" / "dataset_flickr30k.json").unlink()
    with pytest.raises(DataError, match="its dataset is 'coco', expected dataset_flickr30k"):
        read_annotations(folder, SETS["flickr30k"], "test")


def test_images_of_a_list_without_captions_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dataset_flickr30k.json").unlink()
    (folder / "results.csv").write_text("image_name| comment_number| comment\n0.jpg| 0| a\n")
    (folder / "test.txt").write_text("0.jpg\n7.jpg\n\n")
    assert read_annotations(folder, SETS["flickr30k"], "test") == [("0.jpg", ["a"])]
    assert (
        "test.txt: 1 of 2 images have no captions in" in (said := capsys.readouterr().err) and "7.jpg" in said
    )


def test_a_line_that_is_no_caption_is_named(folder: Path) -> None:
    (folder / "dataset_flickr30k.json").unlink()
    (folder / "flickr30k_test_karpathy.txt").write_text("image,caption\n0.jpg,a\nno caption\n")
    with pytest.raises(DataError, match="line 3 is not an image and its caption"):
        read_annotations(folder, SETS["flickr30k"], "test")


BROKEN = {
    "latin": ('[{"image": "0.jpg", "caption": "caf\u00e9"}]'.encode("latin-1"), "is not in UTF-8"),
    "half": (b'[{"image": "0.jpg", "cap', "not valid JSON"),
    "object": (b'{"images": []}', "expected a list of objects"),
    "no caption": (b'[{"image": "0.jpg"}]', "entry 0 lacks 'caption'"),
    "no image": (b'[{"caption": "a"}]', "entry 0 lacks 'image'"),
    "number": (b'[{"image": "0.jpg", "caption": [1]}]', "the captions of 0.jpg are not texts"),
    "no name": (b'[{"image": 3, "caption": "a"}]', "the image of entry 0 has no file name"),
    "empty": (b"[]", "holds no image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_annotation_is_one_line(case: str, folder: Path, make: Make) -> None:
    content, reason = BROKEN[case]
    (folder / "dataset_flickr30k.json").unlink()
    (folder / "flickr30k_test.json").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        make().test.ids  # noqa: B018
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_text(folder: Path, make: Make) -> None:
    content = (folder / "dataset_flickr30k.json").read_bytes()
    expected = make().test.captions
    (folder / "dataset_flickr30k.json").write_bytes(b"\xef\xbb\xbf" + content)
    assert make().test.captions == expected


def test_what_is_missing_is_said(folder: Path, make: Make) -> None:
    (folder / "dataset_flickr30k.json").unlink()
    with pytest.raises(DataError, match=r"none of dataset_flickr30k\.json, dataset\.json, flickr30k_test"):
        make().test.ids  # noqa: B018
    with pytest.raises(DataError, match="no package holds flickr30k; use source=hub, or give a folder"):
        make(None, source="package").test.ids  # noqa: B018
    with pytest.raises(UsageError, match="did you mean flickr30k"):
        make(None, name="flickr3k")


def test_a_damaged_zip_is_one_line(folder: Path, make: Make) -> None:
    (folder / "images.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"images\.zip cannot be read"):
        make().test.ids  # noqa: B018
