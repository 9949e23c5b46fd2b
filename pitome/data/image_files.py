"""Files of classified images: folders of encoded images, or parquet files, opened one sample at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from pitome.data.loading import Unreadable
from pitome.errors import DataError

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class ImageSet:
    """A classified set of images.

    labels: label by name of a class folder; splits: of `test` and `train`, what a folder or a file of
    them is called or begins with, the hub's word last; pattern: of the hub's parquet files of a split,
    {} its word; named, example: a class folder's name and files, for messages.
    """

    name: str
    labels: Mapping[str, int]
    splits: Mapping[str, tuple[str, ...]]
    pattern: str
    named: str
    example: str


def own_set(name: str, classes: Sequence[str], split: str | None = None) -> ImageSet:
    """A set of one's own, whose class folders bear the names of its classes, given in the order of the
    labels. split: what is tested on, test (None) or validation."""
    tested = ("val", "validation") if split == "validation" else ("test",)
    return ImageSet(
        name=name,
        labels={one: label for label, one in enumerate(classes)},
        splits={"test": tested, "train": ("train",)},
        pattern="*{}-*.parquet",
        named=f"a class of data={name}",
        example=f"<class>/*.jpg ({', '.join(classes[:2])}{' ...' if len(classes) > 2 else ''})",
    )


def decode(encoded: Path | bytes, mode: str = "RGB") -> Image.Image:
    """Read an image whole, as `mode`: RGB or, grey, L. Raises Unreadable when it is missing, truncated
    or no image."""
    try:
        with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
            return image.convert(mode)
    except UnidentifiedImageError:
        raise Unreadable("not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise Unreadable(reason.splitlines()[0]) from None


class Folder:
    """Samples of a folder of class folders, sorted by class and name.

    The name of a class folder decides the label, so a folder with some of the classes works. Without
    a folder of the split, `root` itself is what is tested on. Raises DataError for folders of other
    names and when there are no images.
    """

    def __init__(self, kind: ImageSet, root: Path, split: str, mode: str = "RGB") -> None:
        self.mode, known, names = mode, kind.labels, kind.splits[split]
        found = next((root / name for name in names if (root / name).is_dir()), None)
        wanted = f"{'|'.join(names)}/{kind.example}"
        if found is None and split == "train":
            raise DataError(f"{root} holds no training images; expected {wanted} in data.root")
        self.base = found or root
        classes = sorted(entry.name for entry in self.base.iterdir() if entry.is_dir())
        strange = [name for name in classes if name not in known]
        if strange:
            raise DataError(
                f"{self.base}/{strange[0]} is not named after {kind.named}"
                f"{f' ({len(strange) - 1} more)' if len(strange) > 1 else ''}; expected {wanted} in data.root"
            )
        files = [
            (path, known[name])
            for name in classes
            for path in sorted((self.base / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        if not files:
            raise DataError(
                f"{self.base} holds no images and no parquet files; expected {wanted} in data.root"
            )
        self.files = [str(path.relative_to(self.base)) for path, _ in files]
        self.labels = [label for _, label in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        try:
            return decode(self.base / self.files[index], self.mode), self.labels[index]
        except Unreadable as problem:
            raise Unreadable(f"{self.files[index]}: {problem}") from None

    def revision(self) -> str:
        """sha256 of names and sizes; the contents of 50,000 files would take minutes."""
        return _listing((name, (self.base / name).stat().st_size) for name in self.files)


def parquet_files(root: Path) -> list[Path]:
    """Parquet files in `root` and its folders, sorted; not deeper, where a million images may lie."""
    return sorted([*root.glob("*.parquet"), *root.glob("*/*.parquet")])


class Parquet:
    """Samples of parquet files with a column `image` (struct with `bytes`) and a column `label`.

    Files are those whose names begin with the split's (train; val, validation or test); for testing,
    all of them if none bears the name of a split. Raises DataError for no files, damaged files and
    other columns.
    """

    def __init__(self, kind: ImageSet, root: Path, split: str, mode: str = "RGB") -> None:
        self.mode, self.classes, names = mode, len(kind.labels), kind.splits[split]
        found = parquet_files(root)
        of_split = [path for path in found if path.name.startswith(names)]
        others = [path for path in found if path.name.startswith(("train", "test", "val"))]
        self.paths = of_split or ([] if others or split == "train" else found)
        if not self.paths:
            raise DataError(
                f"{root} holds no parquet files of the split {split}; expected {names[0]}*.parquet"
            )
        import datasets

        try:
            table = datasets.load_dataset(
                "parquet", data_files=[str(path) for path in self.paths], split="train"
            )
        except Exception as problem:  # its errors wrap those of pyarrow and of its own cache
            reason = str(problem.__cause__ or problem).splitlines()[0]
            raise DataError(
                f"the parquet files of {root} cannot be read ({reason}); fetch them again"
            ) from None
        if not {"image", "label"} <= set(table.column_names):
            raise DataError(
                f"the parquet files of {root} hold {', '.join(table.column_names)}; "
                "expected the columns image and label"
            )
        self.table = table.select_columns(["image", "label"]).cast_column(
            "image", datasets.Image(decode=False)
        )

    @property
    def labels(self) -> list[int]:
        """Of every sample; -1 where there is none."""
        return [-1 if label is None else label for label in self.table["label"]]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.table[index]
        if row["image"] is None or not row["image"]["bytes"]:
            raise Unreadable("no bytes")
        label = row["label"]
        if label is None or not 0 <= label < self.classes:
            raise Unreadable(f"label {label} is not one of {self.classes}")
        return decode(row["image"]["bytes"], self.mode), label

    def revision(self) -> str:
        """sha256 of names and sizes."""
        return _listing((path.name, path.stat().st_size) for path in self.paths)


def _listing(entries: Any) -> str:
    text = "\n".join(f"{name} {size}" for name, size in entries)
    return f"listing-sha256:{hashlib.sha256(text.encode()).hexdigest()}"
