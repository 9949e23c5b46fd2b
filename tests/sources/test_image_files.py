"""Images found by name: which file a name means, which it never means, and what is ambiguous."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.sources.image_files import ImageFiles, short_names
from pitome.sources.images import ImageRules
from tests.sources.image_kinds import RAMP, grey, oriented, save

NFC, NFD = (unicodedata.normalize(form, "M\u00fcnchen/\u00e4.png") for form in ("NFC", "NFD"))


def image(level: int) -> bytes:
    return save(Image.new("L", (4, 4), level), "PNG")


def lay(root: Path, files: list[str]) -> None:
    """The n-th file shows the grey n. `a.zip!b/c.png` is a member of a zip file."""
    for level, name in enumerate(files):
        packed, _, member = name.partition("!")
        path = root / packed
        path.parent.mkdir(parents=True, exist_ok=True)
        if member:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(member, image(level))
        else:
            path.write_bytes(image(level))


# what: (the files, the names, the file that each name means, None for none of them)
FOUND: dict[str, tuple[list[str], list[str], list[int | None]]] = {
    "the same name in three folders": (
        ["a/1.png", "b/1.png", "c/1.png"],
        ["c/1.png", "a/1.png", "b/1.png"],
        [2, 0, 1],
    ),
    "one of several": (["train/1.png", "val/1.png"], ["val/1.png"], [1]),
    "deeper than the name says": (["x/train/1.png", "x/val/1.png"], ["val/1.png"], [1]),
    "folders of another machine": (["x/val/1.png", "x/train/1.png"], ["/home/me/coco/val/1.png"], [0]),
    "a folder of another name": (["images/1.png"], ["flickr30k-images/1.png"], [0]),
    "the name is the whole path": (["1.png", "a/1.png"], ["1.png"], [0]),
    "a name without a folder": (["a/b/1.png"], ["1.png"], [0]),
    "up and here": (["images/1.png"], ["../images/./1.png"], [0]),
    "missing, another has its name": (["a/1.png"], ["a/1.png", "b/1.png"], [0, None]),
    "missing, another split has its path": (["val/3/1.png"], ["test/3/1.png", "test/4/1.png"], [None, None]),
    "missing, another split has it": (["images/train/7.png"], ["images/test/7.png"], [None]),
    "missing, a split with a year": (["train2014/7.png"], ["val2014/7.png"], [None]),
    "the same split by another word": (["dev/7.png"], ["validation/7.png"], [0]),
    "no split": (["latest/7.png"], ["test/7.png"], [0]),
    "a split in its own name": (["test/COCO_val2014_7.png"], ["val2014/COCO_val2014_7.png"], [0]),
    "space around it": (["a/1.png"], [" 1.png\n"], [0]),
    "packed on Windows": (["a.zip!x\\1.png"], ["x/1.png"], [0]),
    "packed from here": (["a.zip!./x/1.png"], ["x/1.png"], [0]),
    "missing, another has its stem": (["a/1.png"], ["1.jpg", "1.png"], [None, 0]),
    "missing, another has its case": (["a/1.png"], ["1.PNG", "1.png"], [None, 0]),
    "missing": (["a/1.png"], ["2.png"], [None]),
    "case": (["images/IMG_1.JPG"], ["images/img_1.jpg"], [0]),
    "case of a folder": (["Val/1.png", "Train/1.png"], ["val/1.png"], [0]),
    "exact before case": (["a/1.PNG", "a/1.png"], ["a/1.png", "a/1.PNG"], [1, 0]),
    "Unicode composed": ([NFD], [NFC], [0]),
    "Unicode decomposed": ([NFC], [NFD], [0]),
    "percent-encoded name": (["a b.png"], ["a%20b.png"], [0]),
    "percent-encoded file": (["a%20b.png"], ["a b.png"], [0]),
    "a percent sign": (["100%.png"], ["100%.png"], [0]),
    "spaces, umlauts, brackets": (["my images/\u00e4 [1], {2}'s.png"], ["\u00e4 [1], {2}'s.png"], [0]),
    "another suffix": (["1.png"], ["1.jpg"], [0]),
    "jpeg and jpg": (["1.jpeg"], ["1.jpg"], [0]),
    "no suffix in the name": (["1.png"], ["1"], [0]),
    "no suffix in the folder": (["1"], ["1.jpg"], [0]),
    "exact before another suffix": (["1.png", "1.jpg"], ["1.jpg"], [1]),
    "a text of the same stem": (["1.txt", "1.png"], ["1.jpg"], [1]),
    "dots in the name": (["a.b.c.png", "a.b.png"], ["a.b.png"], [1]),
    "a zip file": (["x.zip!images/1.png"], ["1.png"], [0]),
    "folders in a zip file": (["x.zip!a/1.png", "x.zip!b/1.png"], ["b/1.png"], [1]),
    "zip files as folders": (["val.zip!1.png", "train.zip!1.png"], ["val/1.png"], [0]),
    "a zip file beside its content": (["val.zip!1.png", "val/1.png"], ["val/1.png"], [1]),
    "case in a zip file": (["x.zip!A.PNG"], ["a.png"], [0]),
    "hidden": ([".thumbnails/1.png", "__MACOSX/1.png", "a/1.png", "a/._1.png"], ["1.png"], [2]),
    "hidden in a zip file": (["x.zip!__MACOSX/a/._1.png", "x.zip!a/1.png"], ["1.png"], [1]),
}

# what: (the files, the names, two of which the error has to name)
AMBIGUOUS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "one name, two folders": (["a/1.png", "b/1.png"], ["1.png"], ["a/1.png", "b/1.png"]),
    "a third folder": (["a/1.png", "b/1.png"], ["c/1.png"], ["a/1.png", "b/1.png"]),
    "equal ends": (["x/val/1.png", "y/val/1.png"], ["val/1.png"], ["x/val/1.png", "y/val/1.png"]),
    "two zip files": (["a.zip!1.png", "b.zip!1.png"], ["1.png"], ["a/1.png", "b/1.png"]),
    "case": (["A.png", "a.PNG"], ["a.png"], ["A.png", "a.PNG"]),
    "suffixes": (["1.png", "1.webp"], ["1.jpg"], ["1.png", "1.webp"]),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_file_that_a_name_means(case: str, tmp_path: Path) -> None:
    files, names, expected = FOUND[case]
    lay(tmp_path, files)
    found = ImageFiles(tmp_path, names)
    for name, level in zip(names, expected, strict=True):
        if level is None:
            with pytest.raises(Unreadable, match="no such file"):
                found.read(name)
            assert found.size(name) == found.stamp(name) == ""
        else:
            assert found.read(name).getpixel((0, 0)) == (level,) * 3
            assert int(found.size(name)) == len(image(level)) and found.stamp(name)


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_two_files_for_one_name_are_an_error_that_names_both(case: str, tmp_path: Path) -> None:
    files, names, both = AMBIGUOUS[case]
    lay(tmp_path, files)
    with pytest.raises(DataError) as caught:
        ImageFiles(tmp_path, names)
    assert all(name in str(caught.value) for name in [*both, names[0]]) and "\n" not in str(caught.value)


def test_one_file_by_two_ways_is_one_image(tmp_path: Path) -> None:
    """Links to files and folders, and loops of them."""
    lay(tmp_path, ["a/1.png"])
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").symlink_to(tmp_path / "a" / "1.png")
    os.link(tmp_path / "a" / "1.png", tmp_path / "c" / "1.jpg")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    found = ImageFiles(tmp_path, ["1.png"])
    assert found.read("1.png").getpixel((0, 0)) == (0, 0, 0)


def test_what_cannot_be_read_is_named_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "pipe.png")
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "images" / "empty.png").touch()
    (tmp_path / "images" / "folder.png").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("packed.png", image(0))
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(image(0)[:20], b"x" * 20))
    cases = {
        "pipe.png": "is a device or pipe",
        "gone.png": "no such file",
        "empty.png": "no image",
        "folder.png": "no such file",
        "packed.png": "Bad CRC-32",
    }
    found = ImageFiles(tmp_path, [*cases])
    for name, reason in cases.items():
        with pytest.raises(Unreadable) as caught:
            found.read(name)
        assert str(caught.value).startswith(f"{name}: ") and reason in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    assert found.size("gone.png") == "" and found.size("empty.png") == "0"


def test_names_are_short_where_that_is_enough() -> None:
    names = ["a/1.png", "b/1.png", "c/2.png", "3.png"]
    assert [*short_names(names).values()] == ["a/1.png", "b/1.png", "2.png", "3.png"]
    assert short_names(["x/1.png"] * 2) == {"x/1.png": "1.png"}


def test_the_rules_hold_in_folders_and_zip_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(oriented("PNG"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("2.png", oriented("PNG"))
    as_stored = ImageFiles(tmp_path, ["1.png", "2.png"], ImageRules(exif=False))
    upright = ImageFiles(tmp_path, ["1.png", "2.png"])
    for name in ("1.png", "2.png"):
        assert np.array_equal(np.asarray(as_stored.read(name))[..., 0], RAMP)
        assert not np.array_equal(np.asarray(upright.read(name))[..., 0], RAMP)
    small = ImageFiles(tmp_path, ["1.png", "2.png"], ImageRules(max_pixels=255))
    with pytest.raises(Unreadable, match=r"2\.png: more than max_pixels=255 pixels"):
        small.read("2.png")


def test_a_zip_file_is_read_by_several_processes_at_once(tmp_path: Path) -> None:
    """Each has the file open on its own: with one open file they would move each other's place in it."""
    random = np.random.default_rng(0)
    pixels = {f"{n}.png": random.integers(0, 256, (200, 200), dtype=np.uint8) for n in range(20)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, values in pixels.items():
            archive.writestr(name, grey(values, "PNG"))
    found = ImageFiles(tmp_path, [*pixels])
    found.read("0.png")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(10):
                    for name, values in pixels.items():
                        assert np.array_equal(np.asarray(found.read(name))[..., 0], values)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
