"""Sets of one's own: which files are samples, and what tells two folders apart."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.runs.validate import check_folder
from pitome.tasks.classification.files import Folder, Parquet, check_files, custom_set
from tests.configs import data_of

CLASSES = ("rose", "tulip")
KIND = custom_set("flowers", CLASSES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, kind, number in [(s, k, n) for s in ("train", "test") for k in CLASSES for n in range(2)]:
        path = tmp_path / split / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (10 * number, 0, 0)).save(path)
    return tmp_path


def test_what_changes_a_result_changes_the_revision(root: Path) -> None:
    """Also where names and sizes stay: another picture, or the classes in another order."""
    before = Folder(KIND, root, "test").revision()
    assert before == Folder(custom_set("other name", CLASSES), root, "test").revision()
    swapped = Folder(custom_set("flowers", CLASSES[::-1]), root, "test")
    assert swapped.labels == [1, 1, 0, 0] and swapped.revision() != before
    path = root / "test" / "rose" / "0.png"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    assert Folder(KIND, root, "test").revision() != before
    path.write_bytes(content)
    assert Folder(KIND, root, "test").revision() == before


SAMPLES = [
    *(
        f"rose/{number}.{suffix}"
        for number, suffix in enumerate(
            ["avif", "jfif", "jpe", "ppm", "jp2", "tga", "JPG", "PnG", "webp"], 10
        )
    ),
    "rose/a b.png",
    "rose/damaged.jpg",
    "rose/no suffix",
    "rose/other.suffix",
    "rose/sub/folder/1.png",
    "rose/\u00e4.png",
    "tulip/1/1.png",
]
LEFT_OUT = ["rose/a.heic", "rose/a.svg", "tulip/sub/readme.md"]
IGNORED = [
    "rose/.hidden.png",
    "rose/.ipynb_checkpoints/0-checkpoint.png",
    "rose/Thumbs.db",
    "rose/__MACOSX/0.png",
    "rose/sub/._1.png",
    "tulip/desktop.ini",
    ".ipynb_checkpoints/a.png",
    "__MACOSX/rose/0.png",
]


def test_what_is_a_sample(root: Path) -> None:
    Image.new("L", (4, 4)).save(root / "test" / "rose" / "2.TIF", "tiff")
    (root / "test" / "rose" / "._0.png").write_bytes(b"of another system")
    (root / "test" / "rose" / "notes.txt").touch()
    (root / "test" / ".cache").mkdir()
    for name in (*SAMPLES, *LEFT_OUT, *IGNORED):
        path = root / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in LEFT_OUT or name == "rose/damaged.jpg":
            path.write_bytes(b"no image")
        else:
            Image.new("L", (4, 4), 77).save(path, "png")
    os.mkfifo(root / "test" / "rose" / "pipe.png")
    (root / "test" / "stray.png").write_bytes((root / "test" / "rose" / "0.png").read_bytes())
    (root / "test" / "labels.csv").touch()
    for name, target in (("tulip/loop", root), ("rose/back", root / "test" / "rose"), ("rose/me", "me")):
        (root / "test" / name).symlink_to(target)
    files = Folder(KIND, root, "test")
    of_setup = ["rose/0.png", "rose/1.png", "tulip/0.png", "tulip/1.png"]
    expected = [*SAMPLES, *of_setup, "rose/2.TIF", "rose/pipe.png"]
    assert files.files == sorted(expected, key=lambda name: name.split("/"))
    assert files[files.files.index("rose/2.TIF")][0].size == (4, 4)
    for name in SAMPLES:
        if name != "rose/damaged.jpg":
            image, label = files[files.files.index(name)]
            assert image.getpixel((0, 0)) == (77,) * 3 and label == name.startswith("tulip")
    with pytest.raises(Unreadable, match=r"rose/pipe\.png: is a device or pipe"):
        _ = files[files.files.index("rose/pipe.png")]
    reasons = dict.fromkeys([*LEFT_OUT, "rose/me", "rose/notes.txt"], "no image that can be read")
    assert files.left_out == reasons | {"stray.png": "in no class folder"}


def test_a_link_to_nowhere_is_a_sample_that_cannot_be_read(root: Path) -> None:
    (root / "test" / "rose" / "9.png").symlink_to(root / "gone.png")
    files = Folder(KIND, root, "test")
    assert files.files[2] == "rose/9.png" and files.revision().startswith("sha256:")
    with pytest.raises(Unreadable, match=r"rose/9\.png: no such file"):
        _ = files[2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_closed_class_folder_is_told(root: Path) -> None:
    (root / "test" / "rose").chmod(0)
    with pytest.raises(DataError, match="test/rose cannot be read"):
        check_files(KIND, root, train=False)


def test_an_empty_class_folder_is_told(root: Path) -> None:
    for path in (root / "test" / "tulip").iterdir():
        path.with_suffix(".heic").write_bytes(b"ftypheic")
        path.unlink()
    with pytest.raises(
        DataError, match=r"test/tulip holds no images that can be read \(PNG, .*\); add some, or remove"
    ) as told:
        check_files(KIND, root, train=False)
    assert "\n" not in str(told.value)


def test_parquet_labels_are_numbers_or_names(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    content = {"bytes": (root / "test" / "rose" / "0.png").read_bytes()}
    for name, labels in (("names", ["tulip", "rose", "daisy", None]), ("numbers", [1, 0, 2, None])):
        table = pyarrow.Table.from_pylist([{"image": content, "label": label} for label in labels])
        (tmp_path / name).mkdir()
        pyarrow.parquet.write_table(table, tmp_path / name / "test-0.parquet")
        files = Parquet(KIND, tmp_path / name, "test")
        assert files.labels == [1, 0, -1, -1] and [files[i][1] for i in range(2)] == [1, 0]
        more = Parquet(custom_set("flowers", [*CLASSES, "daisy"]), tmp_path / name, "test")
        assert more.labels == [1, 0, 2, -1] and more.revision() != files.revision()
        with pytest.raises(DataError, match="no parquet files of the split train"):
            check_files(KIND, tmp_path / name, train=True)


def test_numbers_whose_meaning_the_file_says(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another order of the classes than that of the user."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    content = {"bytes": (root / "test" / "rose" / "0.png").read_bytes()}
    for names, want in ((["Tulip", "rose"], [1, 0]), (["a", "b"], [0, 1])):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = [{"image": content, "label": label} for label in (0, 1)]
        (tmp_path / names[0]).mkdir()
        datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / names[0] / "test.parquet")
        assert Parquet(KIND, tmp_path / names[0], "test").labels == want


def test_class_folders_in_any_case_and_folders_of_other_things(root: Path) -> None:
    want = Folder(KIND, root, "test")
    (root / "test" / "rose").rename(root / "test" / "Rose")
    (root / "test").rename(root / "TEST")
    (root / "TEST").rename(root / "Test")
    (root / "Test" / "notes").mkdir()
    (root / "Test" / "notes" / "a.txt").write_text("about")
    files = Folder(KIND, root, "test")
    assert files.labels == want.labels and files.files[0].startswith("Rose/")


def test_one_set_in_two_forms_is_an_error(root: Path) -> None:
    (root / "test.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"test\.parquet and the class folder .*/test/rose may hold the same"):
        check_files(KIND, root, train=False)


def test_a_folder_is_looked_at_without_torch(root: Path) -> None:
    code = f"""
import sys
from pitome.config import DataConfig
from pitome.runs.validate import check_folder
for task, classes in (("classification", ["rose", "tulip"]), ("text", ["bug", "question"])):
    try:
        data = DataConfig(task=task, name="mine", root={str(root)!r}, split=None, classes=classes)
        check_folder(data, train=True)
    except Exception as problem:
        print(problem)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith(f"{root} holds no parquet, jsonl, csv or tsv file")
        and done.stdout.count("\n") == 1
    )


def test_sets_of_the_project_are_not_looked_at() -> None:
    check_folder(data_of({"name": "imagenet", "root": "/no/such/folder"}), train=True)
