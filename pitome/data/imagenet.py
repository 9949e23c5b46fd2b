"""ImageNet-1k (Russakovsky et al., 2015): folders of JPEG files or parquet files, every image kept.

Grey, CMYK and palette images are converted to RGB. (The authors' evaluation leaves images without
three channels out: 49,101 of 50,000 remain.) Images that cannot be decoded are skipped and named.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from pitome.data.base import DataInfo, Preprocess, permuted_selection
from pitome.data.loading import Tolerant, TolerantLoader, Unreadable, collate_tolerant
from pitome.data.roots import check_source
from pitome.errors import DataError
from pitome.hub import fetch_folder

CLASSES = 1000
SUFFIXES = {".jpeg", ".jpg", ".png"}
_FOLDERS = {"test": ("val", "validation"), "train": ("train",)}
_ELSE = "give a folder with data.root=FOLDER, or use data=fashion_mnist, which needs no hub"


@lru_cache
def synsets() -> dict[str, int]:
    """WordNet ids of the 1,000 classes, sorted, which is their label: n01440764 is 0."""
    from timm.data import ImageNetInfo

    return {name: label for label, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def decode(encoded: Path | bytes) -> Image.Image:
    """Read an image whole, as RGB. Raises Unreadable when it is missing, truncated or no image."""
    try:
        with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise Unreadable("not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise Unreadable(reason.splitlines()[0]) from None


class Folder:
    """Samples of a folder of class folders, sorted by class and name.

    The name of a class folder is its WordNet id, and decides the label, so a folder with some of
    the classes works. Raises DataError for folders of other names and when there are no images.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.base = next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), root)
        known = synsets()
        classes = sorted(entry.name for entry in self.base.iterdir() if entry.is_dir())
        strange = [name for name in classes if name not in known]
        wanted = f"{'|'.join(_FOLDERS[split])}/<WordNet id>/*.JPEG (n01440764 ...)"
        if strange:
            raise DataError(
                f"{self.base}/{strange[0]} is not named after an ImageNet-1k class"
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
        return decode(self.base / self.files[index]), self.labels[index]

    def revision(self) -> str:
        """sha256 of names and sizes; the contents of 50,000 files would take minutes."""
        return _listing((name, (self.base / name).stat().st_size) for name in self.files)


def parquet_files(root: Path) -> list[Path]:
    """Parquet files in `root` and its folders, sorted; not deeper, where a million images may lie."""
    return sorted([*root.glob("*.parquet"), *root.glob("*/*.parquet")])


class Parquet:
    """Samples of parquet files with a column `image` (struct with `bytes`) and a column `label`.

    Files are those whose names begin with the split's (val, validation; train); for testing, all
    of them if none does. Raises DataError for no files, damaged files and other columns.
    """

    def __init__(self, root: Path, split: str) -> None:
        found = parquet_files(root)
        of_split = [path for path in found if path.name.startswith(_FOLDERS[split])]
        others = [path for path in found if path.name.startswith(("train", "test", "val"))]
        self.paths = of_split or ([] if others or split == "train" else found)
        if not self.paths:
            raise DataError(
                f"{root} holds no parquet files of the split {split}; expected {_FOLDERS[split][0]}*.parquet"
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

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.table[index]
        if row["image"] is None or not row["image"]["bytes"]:
            raise Unreadable("no bytes")
        label = row["label"]
        if label is None or not 0 <= label < CLASSES:
            raise Unreadable(f"label {label} is not one of {CLASSES}")
        return decode(row["image"]["bytes"]), label

    def revision(self) -> str:
        """sha256 of names and sizes."""
        return _listing((path.name, path.stat().st_size) for path in self.paths)


def _listing(entries: Any) -> str:
    text = "\n".join(f"{name} {size}" for name, size in entries)
    return f"listing-sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Samples(Dataset):
    """Items: image [C, H, W], label, sample index; `ids` are the samples of `files` to give."""

    def __init__(
        self,
        files: Folder | Parquet,
        ids: Sequence[int] | np.ndarray,
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.files, self.ids, self.transform = files, ids, transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        index = int(self.ids[position])
        image, label = self.files[index]
        return self.transform(image), label, index


def make_transform(preprocess: Preprocess, *, train: bool) -> Callable[[Image.Image], Tensor]:
    """timm's transform for the model: resize and centre crop, or random crop, flip and RandAugment."""
    from timm.data import create_transform

    common: dict[str, Any] = {
        "input_size": (preprocess.channels, preprocess.size, preprocess.size),
        "interpolation": preprocess.interpolation,
        "mean": preprocess.mean,
        "std": preprocess.std,
    }
    if train:
        return create_transform(**common, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")
    return create_transform(**common, is_training=False, crop_pct=preprocess.crop_pct)


class ImageNet(lightning.LightningDataModule):
    """Batches: images [B, 3, H, W] as the model's `preprocess` asks, labels [B], sample indices [B].

    The split is the validation set, 50,000 images. source: local (data.root with class folders or
    parquet files), hub (gated), or auto: data.root if given, else the hub's cache, else the hub.
    limit: a permutation seeded with the data set's name chooses, because folders are sorted by
    class; sample indices are positions in file order. Raises DataError, when first used.
    """

    def __init__(
        self,
        root: str | None,
        preprocess: Preprocess,
        batch_size: int,
        limit: int | None = None,
        workers: int = 0,
        *,
        source: str = "auto",
        repository: str = "ILSVRC/imagenet-1k",
        revision: str = "main",
    ) -> None:
        super().__init__()
        if source == "package":
            raise DataError(f"imagenet is in no package; log in to the hub (`hf auth login`), {_ELSE}")
        if preprocess.channels != 3:
            raise DataError(
                f"imagenet has colour images, the model expects {preprocess.channels} channel; choose another"
            )
        self.root, self.source, self.repository, self.revision = root, source, repository, revision
        self.preprocess, self.batch_size, self.limit, self.workers = preprocess, batch_size, limit, workers

    def _open(self, split: str) -> tuple[Folder | Parquet, str, str]:
        """The files of a split, where they were taken from, and their revision."""
        root = check_source(self.source, self.root)
        if root is not None:
            files = (Parquet if parquet_files(root) else Folder)(root, split)
            return files, "local", files.revision()
        pattern = f"data/{_FOLDERS[split][-1]}-*.parquet"
        folder = fetch_folder(
            self.repository, pattern, kind="dataset", revision=self.revision, error=DataError, otherwise=_ELSE
        )
        return Parquet(folder, split), "hub", folder.name

    def _samples(self, split: str, limit: int | None) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        files, source, revision = self._open(split)
        limited = limit is not None and limit < len(files)
        ids = permuted_selection("imagenet", len(files), limit) if limit else np.arange(len(files))
        info = DataInfo(
            name="imagenet",
            revision=revision,
            split="validation" if split == "test" else split,
            source=source,
            classes=CLASSES,
            n_selected=len(ids),
            limit=len(ids) if limited else None,
            selection="the first of a permutation seeded with the name" if limited else "all",
        )
        return files, ids, info

    @cached_property
    def _test(self) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        return self._samples("test", self.limit)

    @cached_property
    def _train(self) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        return self._samples("train", None)

    @property
    def info(self) -> DataInfo:
        """Of the validation set; its skipped samples are known once it has been read."""
        return self._test[2]

    @property
    def train_info(self) -> DataInfo:
        """Of the training split."""
        return self._train[2]

    def _loader(self, data: tuple[Folder | Parquet, np.ndarray, DataInfo], *, train: bool) -> TolerantLoader:
        files, ids, info = data
        samples = Samples(files, ids, make_transform(self.preprocess, train=train))
        return TolerantLoader(
            Tolerant(samples, ids, info),
            self.batch_size,
            shuffle=train,
            drop_last=train,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate_tolerant,
        )

    def train_dataloader(self) -> TolerantLoader:
        return self._loader(self._train, train=True)

    def val_dataloader(self) -> TolerantLoader:
        return self._loader(self._test, train=False)

    def test_dataloader(self) -> TolerantLoader:
        return self._loader(self._test, train=False)
