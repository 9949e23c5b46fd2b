import gzip
import struct

import numpy as np
import pytest

from pitome.data.base import Preprocess


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    """Images [N, 28, 28] and labels [N] of two small splits."""
    random = np.random.default_rng(0)
    sizes = {"train": 5_030, "t10k": 40}
    return {
        part: (
            random.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            random.integers(0, 10, n, dtype=np.uint8),
        )
        for part, n in sizes.items()
    }


@pytest.fixture
def idx_folder(tmp_path, arrays):
    """A folder with the four files; the training files gzipped, the test files plain."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, (images, labels) in arrays.items():
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if part == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture
def grey():
    return Preprocess(28, 1, (0.286,), (0.353,))


@pytest.fixture
def colour():
    return Preprocess(32, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9, "bicubic")
