"""pip is replaced by a script that hands out an archive built here."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile

import pytest

from pitome.errors import DataError
from pitome.sources import pypi
from pitome.sources.pypi import Archive, fetch_archive

PIP = """#!/bin/sh
echo "$@" >> "{log}"
while [ "$#" -gt 0 ]; do
  if [ "$1" = "--dest" ]; then dest="$2"; fi
  shift
done
{download}
"""


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "made" / "small-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/file", "content")
    return path


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Install a pretended pip; returns the file that lists how it was called."""
    bin, log = tmp_path / "bin", tmp_path / "pip.log"
    bin.mkdir()
    log.touch()
    for tool in ("sh", "cp"):
        (bin / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(bin))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: [])

    def install(download, name="pip"):
        script = bin / name
        script.write_text(PIP.format(log=log, download=download))
        script.chmod(0o755)
        return log

    return install


def known(wheel, **changes):
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Archive(
        **{"name": "small", "version": "1.0", "sdist": False, "sha256": sha256, "megabytes": 0.1, **changes}
    )


def unpack(file, folder):
    with zipfile.ZipFile(file) as archive:
        (folder / "file").write_bytes(archive.read("small/file"))


def test_an_archive_is_fetched_once(tmp_path, wheel, pip, capsys):
    log = pip(f'cp "{wheel}" "$dest"')
    target = tmp_path / "cache" / "small"
    for _ in range(2):
        assert fetch_archive(known(wheel), unpack, target, otherwise="or walk") == target
    assert (target / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["small"], "nothing else is left behind"
    assert log.read_text().count("small==1.0") == 1, "the second time nothing is asked"
    assert "--no-deps" in log.read_text() and "--no-binary" not in log.read_text()
    assert "fetching the package small 1.0 from PyPI, 0.1 MB" in capsys.readouterr().err


def test_a_source_archive_is_asked_for_as_one(tmp_path, wheel, pip):
    log = pip(f'cp "{wheel}" "$dest"')
    fetch_archive(known(wheel, sdist=True), unpack, tmp_path / "cache" / "small", otherwise="or walk")
    assert "--no-binary small" in log.read_text()


def test_through_uv_where_there_is_no_pip(tmp_path, wheel, pip):
    log = pip(f'cp "{wheel}" "$dest"', name="uv")
    fetch_archive(known(wheel), unpack, tmp_path / "cache" / "small", otherwise="or walk")
    assert log.read_text().startswith("tool run pip download")


@pytest.mark.parametrize(
    ("download", "message"),
    [
        (
            "echo 'ERROR: No matching distribution' >&2; exit 1",
            r"could not be fetched \(No matching distribution\)",
        ),
        ("true", "was not downloaded"),
        ('echo other > "$dest/small.whl"', "is not the file known here"),
    ],
    ids=["refused", "nothing", "other"],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(tmp_path, wheel, pip, download, message):
    pip(download)
    with pytest.raises(DataError, match=f"{message}.*; or walk$") as error:
        fetch_archive(known(wheel), unpack, tmp_path / "cache" / "small", otherwise="or walk")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_pip_and_uv(tmp_path, wheel, pip):
    with pytest.raises(DataError, match=r"needs pip or uv, not found here; or walk$"):
        fetch_archive(known(wheel), unpack, tmp_path / "cache" / "small", otherwise="or walk")


def test_a_cache_that_cannot_be_written(tmp_path, wheel, pip):
    pip(f'cp "{wheel}" "$dest"')
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="set PITOME_CACHE to a writable folder, or walk"):
        fetch_archive(known(wheel), unpack, tmp_path / "cache" / "small", otherwise="or walk")


def test_pip_of_this_environment_comes_first():
    if not any(importlib.metadata.distributions(name="pip")):
        pytest.skip("no pip in this environment")
    assert pypi._pip("small", "or walk")[1:] == ["-m", "pip"]


def test_looking_for_pip_leaves_setuptools_importable():
    code = "from pitome.sources import pypi; pypi._pip('small', 'or walk'); import setuptools"
    subprocess.run([sys.executable, "-c", code], check=True)
