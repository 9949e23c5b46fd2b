"""The package manager is replaced by a script that hands out a package built here."""

import os
import shutil
import subprocess

import pytest

from pitome.errors import DataError
from pitome.sources.debian import fetch_package

INSIDE = "usr/share/datasets/small"

APT = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
  *--print-uris*)
    if [ -n "{lists_needed}" ] && [ ! -e "{log}.updated" ]; then
      echo "E: Unable to locate package" >&2; exit 100
    fi
    echo "'http://example.org/small.deb' small.deb 2500000 SHA256:00" ;;
  *update*) touch "{log}.updated" ;;
  *download*) {download} ;;
esac
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Install a pretended apt-get; returns the file that lists how it was called."""
    bin, log = tmp_path / "bin", tmp_path / "apt.log"
    bin.mkdir()
    log.touch()
    for tool in ("sh", "touch", "cp", "rm", "tar", "dpkg-deb", "gzip", "xz"):
        found = shutil.which(tool)
        if found:
            (bin / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(bin))

    def install(download: str, lists_needed: bool = False) -> os.PathLike:
        script = bin / "apt-get"
        script.write_text(APT.format(log=log, download=download, lists_needed="yes" if lists_needed else ""))
        script.chmod(0o755)
        return log

    return install


@pytest.fixture
def package(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: small\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: small\n"
    )
    (tree / INSIDE).mkdir(parents=True)
    (tree / INSIDE / "file").write_text("content")
    archive = tmp_path / "small.deb"
    subprocess.run(["dpkg-deb", "-b", tree, archive], check=True, capture_output=True)
    return archive


@pytest.mark.parametrize("lists_needed", [False, True])
def test_a_package_is_fetched_once(tmp_path, package, apt, lists_needed, capsys):
    log = apt(f'cp "{package}" .', lists_needed)
    target = tmp_path / "cache" / "small"
    assert fetch_package("small", INSIDE, target, otherwise="or walk") == target
    assert (target / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["small"], "nothing else is left behind"
    assert "fetching the Debian package small, 2.5 MB" in capsys.readouterr().err
    calls = log.read_text()
    assert ("update" in calls) == lists_needed
    assert fetch_package("small", INSIDE, target, otherwise="or walk") == target
    assert log.read_text() == calls, "the second time nothing is asked"


@pytest.mark.parametrize("gone", ["apt-get", "dpkg-deb"])
def test_without_the_tools(tmp_path, apt, gone):
    apt("true")
    (tmp_path / "bin" / gone).unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"needs .*{gone}.*not found here; or walk$") as error:
        fetch_package("small", INSIDE, tmp_path / "cache" / "small", otherwise="or walk")
    assert "\n" not in str(error.value)


def test_what_apt_says_is_passed_on(tmp_path, package, apt):
    apt("echo 'W: hm' >&2; echo 'E: Failed to fetch it' >&2; exit 100")
    with pytest.raises(DataError, match=r"could not be fetched \(Failed to fetch it\); or walk$"):
        fetch_package("small", INSIDE, tmp_path / "cache" / "small", otherwise="or walk")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_or_foreign_package_leaves_nothing(tmp_path, package, apt):
    target = tmp_path / "cache" / "small"
    apt(f'cp "{package}" .')
    with pytest.raises(DataError, match="holds no usr/share/other"):
        fetch_package("small", "usr/share/other", target, otherwise="or walk")
    package.write_bytes(package.read_bytes()[:100])
    with pytest.raises(DataError, match="or walk"):
        fetch_package("small", INSIDE, target, otherwise="or walk")
    apt("true")
    with pytest.raises(DataError, match="was not downloaded"):
        fetch_package("small", INSIDE, target, otherwise="or walk")
    assert list(target.parent.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path, package, apt):
    apt(f'cp "{package}" .')
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="set PITOME_CACHE to a writable folder, or walk"):
        fetch_package("small", INSIDE, tmp_path / "cache" / "small", otherwise="or walk")
