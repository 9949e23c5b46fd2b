import errno
import os
import socket
import threading
import time

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from pitome.errors import DataError
from pitome.sources import hub as hub_files
from pitome.sources.parquet import load_parquet
from tests.hub_double import point_to
from tests.hub_repos import texts

OUT = (
    r"x\.bin of a/b \(revision main\) is not in the hub's cache and the hub is out of reach \(.+\): go online"
)
CONTENT = bytes(range(256)) * 256


@pytest.fixture
def endpoint(hub, monkeypatch):
    """Point the hub client to an address, with less patience."""
    monkeypatch.setattr(hub_files, "PATIENCE", 0.5)
    return lambda address: point_to(address, monkeypatch)


@pytest.fixture
def server():
    listening = socket.create_server(("127.0.0.1", 0))
    yield listening
    listening.close()


def fetch(*wanted):
    return hub_files.fetch_folder("a/b", *wanted or ("x.bin",), error=DataError, otherwise="or walk")


def expect_out_of_reach():
    started = time.monotonic()
    with pytest.raises(DataError, match=OUT) as error:
        fetch()
    assert time.monotonic() - started < 2
    assert "\n" not in str(error.value) and str(error.value).endswith("or walk")


def test_a_silent_hub_is_given_up_in_time(endpoint, server):
    endpoint(f"http://127.0.0.1:{server.getsockname()[1]}")  # accepts connections, never answers
    expect_out_of_reach()


def test_a_slow_name_lookup_is_given_up_in_time(endpoint, monkeypatch):
    endpoint("http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(3) or [])
    expect_out_of_reach()


def test_a_refused_connection_is_out_of_reach(endpoint, server):
    port = server.getsockname()[1]
    server.close()
    endpoint(f"http://127.0.0.1:{port}")
    expect_out_of_reach()


def test_offline_mode_asks_nobody(endpoint, server, monkeypatch):
    endpoint(f"http://127.0.0.1:{server.getsockname()[1]}")
    server.setblocking(False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expect_out_of_reach()
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.parametrize("status", ["404 Not Found", "503 Busy"])
def test_a_refusal_is_no_silence(endpoint, server, status):
    endpoint(f"http://127.0.0.1:{server.getsockname()[1]}")

    def answer():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with pytest.raises(DataError, match=rf"was refused by the hub \(.*{status[:3]}.*\): try again, or walk$"):
        fetch()
    thread.join()


def test_within_passes_on_results_and_errors():
    assert hub_files.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        hub_files.within(5, lambda: 1 // 0)


def test_what_is_wanted_is_fetched_once(hub, capsys):
    repository = hub.add("model", "a/b", {"x-1.bin": b"1", "x-2.bin": b"23", "a.json": b"{}", "y.bin": b"4"})
    folder = fetch("x-*.bin", "*.json", ("z.bin", "y.bin"))
    assert folder.name == repository.commit
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "x-1.bin", "x-2.bin", "y.bin"]
    says = "fetching x-*.bin, *.json, y.bin of a/b (revision main) from the hub, 0.0 MB"
    assert says in capsys.readouterr().err
    hub.asked.clear()
    assert fetch("x-*.bin", ("z.bin", "y.bin")) == folder and hub.asked == []
    hub_files.check_reach("a/b", error=DataError, otherwise="")
    assert hub.asked == [], "a part of a repository is enough to go on"
    with pytest.raises(DataError, match=r"^z\.bin or w\.bin of a/b \(revision main\) is not on the hub"):
        fetch("y.bin", ("z.bin", "w.bin"))


def test_the_first_of_several_names_that_is_there(hub):
    hub.add("model", "a/b", {"old.bin": b"old", "new.bin": b"new"})
    assert [path.name for path in fetch(("none.bin", "new.bin", "old.bin")).iterdir()] == ["new.bin"]


@pytest.mark.parametrize("missing", ["x-00002-of-00002.bin", "tokenizer.json"])
def test_an_interrupted_download_is_completed(hub, missing):
    """What was fetched before stays; the rest counts as missing until it is there."""
    files = {"x-00001-of-00002.bin": b"1", "x-00002-of-00002.bin": b"2", "config.json": b"{}"}
    hub.add("model", "a/b", files | {"tokenizer.json": b"[]"})
    hub.trouble.status[missing] = 403
    with pytest.raises(DataError):
        fetch("x-*.bin", "*.json")
    assert hub_files.cached_folder("a/b", "x-*.bin", "*.json") is None
    hub.trouble.status.clear()
    hub.asked.clear()
    assert len(list(fetch("x-*.bin", "*.json").iterdir())) == 4
    assert missing in hub.downloads() and len(hub.downloads()) < 4


def test_a_cut_transfer_goes_on_where_it_was_cut(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is written at once
    hub.add("model", "a/b", {"x.bin": CONTENT})
    hub.trouble.cut["x.bin"] = 3
    assert (fetch() / "x.bin").read_bytes() == CONTENT
    assert [range for *_, range in hub.asked if range] == ["bytes=32768-", "bytes=49152-", "bytes=57344-"]


def test_a_transfer_that_is_always_cut_is_one_line(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.add("model", "a/b", {"x.bin": b"12"})
    hub.trouble.cut["x.bin"] = 1000
    with pytest.raises(DataError, match=r"out of reach \(peer closed connection.*, or walk$") as error:
        fetch()
    assert "\n" not in str(error.value)


def test_a_slow_transfer_arrives(hub, monkeypatch):
    hub.add("model", "a/b", {"x.bin": CONTENT})
    hub.trouble.slow["x.bin"] = 0.3
    assert (fetch() / "x.bin").read_bytes() == CONTENT


def test_a_transfer_that_stalls_goes_on_where_it_stalled(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.add("model", "a/b", {"x.bin": CONTENT})
    hub.trouble.stall["x.bin"] = 1
    assert (fetch() / "x.bin").read_bytes() == CONTENT
    assert "bytes=32768-" in [range for *_, range in hub.asked]


def test_a_cache_that_cannot_be_written(hub, monkeypatch, tmp_path):
    hub.add("model", "a/b", {"x.bin": CONTENT})
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    says = (
        rf"^x\.bin of a/b .* cannot be kept in the hub's cache {tmp_path}/file/hub \(.*: make room there, or"
    )
    with pytest.raises(DataError, match=says):
        fetch()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_closed_disk(hub, monkeypatch, number):
    def write(*args, **kwargs):
        raise OSError(number, os.strerror(number), "/hub/blobs/1")

    hub.add("model", "a/b", {"x.bin": CONTENT})
    monkeypatch.setattr("huggingface_hub.file_download.http_get", write)
    says = rf"cannot be kept in the hub's cache .* \({os.strerror(number)} \(/hub/blobs/1\)\): make room"
    with pytest.raises(DataError, match=says):
        fetch()


def test_the_cache_of_datasets_that_cannot_be_written(tmp_path, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "a.parquet" / "datasets")
    with pytest.raises(DataError, match=r"the cache of datasets, .*/datasets, cannot be written \(Not a dir"):
        load_parquet([tmp_path / "a.parquet"])


def test_a_web_page_in_place_of_the_hub(hub, monkeypatch):
    monkeypatch.setattr("tests.hub_double._Handler._api", lambda self, *_: self._send(200, b"<html>", {}))
    with pytest.raises(DataError, match=r"did not arrive whole \(.*check HF_ENDPOINT and proxies, or walk$"):
        fetch()


def test_why_datasets_does_not_fetch(hub, monkeypatch):
    """What `load_dataset` has fetched of a pinned revision it does not find again without the hub. Once this
    fails, `fetch_folder` may give way to it for data sets."""
    card = b"---\nconfigs:\n- config_name: plain_text\n  data_files: plain_text/*\n---\n"
    repository = hub.add("dataset", "a/b", {"README.md": card, **texts("plain_text/{}.parquet", ["test"])})
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", constants.ENDPOINT)
    options = {"revision": repository.commit, "data_files": {"test": "plain_text/test*"}, "split": "test"}
    assert len(datasets.load_dataset("a/b", **options)) == 6
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="Couldn't find cache for a/b"):
        datasets.load_dataset("a/b", **options)
