import socket
import threading
import time

import huggingface_hub.constants
import huggingface_hub.errors
import pytest

from pitome.errors import DataError
from pitome.sources import hub

OUT = (
    r"x\.bin of a/b \(revision main\) is not in the hub's cache and the hub is out of reach \(.+\): go online"
)


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """Point the hub client to an address, without proxies and with an empty cache."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    return lambda url: monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)


@pytest.fixture
def server():
    listening = socket.create_server(("127.0.0.1", 0))
    yield listening
    listening.close()


def fetch():
    return hub.fetch_folder("a/b", "x.bin", error=DataError, otherwise="or walk")


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
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
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
    assert hub.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        hub.within(5, lambda: 1 // 0)


def test_an_incomplete_set_of_shards_is_not_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(tmp_path))
    (tmp_path / "data").mkdir()
    assert hub.cached_folder("a/b", "data/val-*.parquet") is None
    for shard in range(2):
        assert hub.cached_folder("a/b", "data/val-*.parquet") is None
        (tmp_path / "data" / f"val-{shard:05}-of-00002.parquet").touch()
    assert hub.cached_folder("a/b", "data/val-*.parquet") == tmp_path


class Fake:
    """A hub client whose listing fails or lacks the file."""

    def __init__(self, problem=None, files=()):
        self.problem, self.files = problem, files

    def repo_info(self, *args, **kwargs):
        if self.problem:
            raise self.problem
        return type(
            "Info", (), {"siblings": [type("F", (), {"rfilename": f, "size": 5})() for f in self.files]}
        )()


def refusal(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "refused\nwith details")
    return error


@pytest.mark.parametrize(
    ("client", "says"),
    [
        (Fake(), "is not on the hub: check the revision"),
        (Fake(files=["other.bin"]), "is not on the hub: check the revision"),
        (Fake(ConnectionError("cut off\nsecond line")), r"out of reach \(cut off\): go online"),
        (Fake(refusal(huggingface_hub.errors.GatedRepoError)), "gated: accept its terms"),
        (Fake(refusal(huggingface_hub.errors.RepositoryNotFoundError)), "needs `hf auth login`"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, client, says):
    monkeypatch.setattr(hub, "cached_folder", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: client)
    with pytest.raises(DataError, match=says) as error:
        fetch()
    assert "\n" not in str(error.value)
    assert "x.bin of a/b" in str(error.value) and str(error.value).endswith("or walk")


def test_a_download_is_announced_with_its_size(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hub, "cached_folder", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Fake(files=["x-1.bin", "x-2.bin", "y.bin"]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(tmp_path))
    assert hub.fetch_folder("a/b", "x-*.bin", error=DataError, otherwise="") == tmp_path
    assert "fetching x-*.bin of a/b (revision main) from the hub, 0.0 MB" in capsys.readouterr().err
