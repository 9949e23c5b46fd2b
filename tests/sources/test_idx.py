import gzip
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitome.errors import DataError
from pitome.sources.idx import find_idx, read_idx
from tests.conftest import idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_plain_and_gzip(tmp_path, pack):
    path = tmp_path / "a"
    path.write_bytes(pack(idx(IMAGES)))
    assert np.array_equal(read_idx(path, dims=3), IMAGES)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "begins with nothing"),
        (b"\0\0", "not an IDX file of bytes in 3 dimensions"),
        (b"\0\0\x08\x03\0\0", "header is incomplete"),
        (idx(IMAGES)[:-1], r"truncated: 23 bytes of data, 24 announced"),
        (idx(IMAGES) + b"x", r"damaged: 25 bytes of data, 24 announced"),
        (idx(IMAGES[0]), "begins with 00000802"),
        (b"\0\0\x0d\x03" + idx(IMAGES)[4:], "begins with 00000d03"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "begins with 89504e47"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-9], "is truncated"),
        (gzip.compress(idx(IMAGES), mtime=0)[:5], "is truncated"),
        (b"\x1f\x8b\x08" + bytes(30), "cannot be read"),
    ],
)
def test_damaged_files(tmp_path, raw, says):
    path = tmp_path / "broken"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=says) as error:
        read_idx(path, dims=3)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_raise_anything_else(tmp_path_factory, raw, pack):
    path = tmp_path_factory.getbasetemp() / "random.idx"
    path.write_bytes(gzip.compress(raw) if pack else raw)
    try:
        read_idx(path, dims=1)
    except DataError:
        assert raw[:4] != b"\0\0\x08\x01" or len(raw) < 8 or len(raw) - 8 != int.from_bytes(raw[4:8], "big")


def test_files_are_found_with_and_without_gz(tmp_path):
    (tmp_path / "a.gz").touch()
    (tmp_path / "b").touch()
    assert find_idx(tmp_path, "a") == tmp_path / "a.gz"
    assert find_idx(tmp_path, "b") == tmp_path / "b"
    with pytest.raises(DataError, match=re.escape("has no c or c.gz")):
        find_idx(tmp_path, "c")
