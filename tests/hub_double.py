"""A hub on a loopback port for tests: what huggingface_hub and datasets ask of huggingface.co, over HTTP.

Repositories are made on the spot. As on the hub, small text files are answered directly, with the git hash
as ETag; all others by a redirect to another host (`localhost` stands for the CDN), with the sha256 as ETag.
Trouble of every kind can be ordered: gated repositories, cut, slow and wrong answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import pytest

Order = TypeVar("Order")

TEXT = (".json", ".txt", ".md", ".csv", ".py", ".gitattributes", ".model")
TOKEN = "hf_double"  # whom a gated repository lets in
_API = re.compile(
    r"/api/(models|datasets)/((?:[\w.-]+/)?[\w.-]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
_FILE = re.compile(r"/(datasets/)?((?:[\w.-]+/)?[\w.-]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """A repository with one commit, which `main` names."""

    kind: str  # model or dataset
    name: str
    files: Mapping[str, bytes | Path]
    gated: bool = False
    commit: str = ""
    entries: dict[str, dict[str, object]] = field(default_factory=dict)  # what `entry` has answered

    def __post_init__(self) -> None:
        self.commit = self.commit or hashlib.sha1(f"{self.kind} {self.name}".encode()).hexdigest()

    def close(self) -> None:
        """From now on only those who have a token may read its files; anybody may list them."""
        self.gated = True

    def put(self, file: str, content: bytes) -> None:
        self.files = {**self.files, file: content}
        self.entries.pop(file, None)

    def content(self, file: str) -> bytes:
        given = self.files[file]
        return given if isinstance(given, bytes) else given.read_bytes()

    def entry(self, file: str) -> dict[str, object]:
        """As the hub lists a file."""
        if file in self.entries:
            return self.entries[file]
        content = self.content(file)
        entry: dict[str, object] = {
            "type": "file",
            "path": file,
            "size": len(content),
            "oid": git_hash(content),
        }
        self.entries[file] = entry
        if not file.endswith(TEXT):
            entry["lfs"] = {
                "oid": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 130,
            }
        return entry

    def path(self, path: str) -> dict[str, object] | None:
        """As the hub lists a file or a folder; None for neither."""
        if path in self.files:
            return self.entry(path)
        folder = {"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())}
        return folder if any(file.startswith(f"{path}/") for file in self.files) else None

    def tree(self, folder: str, recursive: bool) -> list[dict[str, object] | None]:
        """The files and folders in a folder."""
        start = f"{folder}/" if folder else ""
        parts = [file.removeprefix(start).split("/") for file in self.files if file.startswith(start)]
        depths = [range(1, len(names) + 1) if recursive else range(1, 2) for names in parts]
        paths = [
            start + "/".join(names[:n]) for names, depth in zip(parts, depths, strict=True) for n in depth
        ]
        return [self.path(path) for path in dict.fromkeys(paths)]


@dataclass
class Trouble:
    """What goes wrong, by the end of a file's name."""

    cut: dict[str, int] = field(default_factory=dict)  # so many answers break off half-way
    slow: dict[str, float] = field(default_factory=dict)  # seconds of silence in the middle
    stall: dict[str, int] = field(default_factory=dict)  # so many answers are silent after the middle
    instead: dict[str, bytes] = field(default_factory=dict)  # sent in place of the content
    status: dict[str, int] = field(default_factory=dict)  # answered with this error


class Hub:
    """Repositories by (kind, name), orders for trouble, and what was asked: (method, path, Range)."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, tuple[Repository, str]] = {}
        self.trouble = Trouble()
        self.asked: list[tuple[str, str, str | None]] = []
        self.leaked = 0  # tokens that reached the other host

    def add(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        gated: bool = False,
        commit: str | None = None,
    ) -> Repository:
        repository = self.repositories[kind, name] = Repository(kind, name, files, gated, commit or "")
        return repository

    def downloads(self) -> list[str]:
        """Names of the files sent, in order."""
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.asked
            if method == "GET" and "/api/" not in path
        ]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does for a process that has not imported huggingface_hub yet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The address at which `hub` answers."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}"))

    def _answer(self, body: dict[str, object] | None = None) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/cdn/"):
            self.hub.leaked += "Authorization" in self.headers
            return self._send_file(*self.hub.blobs[path.split("/")[2]])
        if (match := _API.fullmatch(path)) is not None:
            return self._api(match, body or {})
        if (match := _FILE.fullmatch(path)) is not None:
            return self._resolve("dataset" if match[1] else "model", *match.group(2, 3, 4))
        return self._error(404, "NotFound", "no such page")

    def _find(self, kind: str, name: str, revision: str) -> Repository | None:
        """A repository at a revision; None once the answer that there is none was sent."""
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            self._error(401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", repository.commit):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _api(self, match: re.Match[str], body: dict[str, object]) -> None:
        repository = self._find(match[1].removesuffix("s"), match[2], match[4] or "main")
        if repository is None:
            return None
        if match[3] == "paths-info":
            wanted = body["paths"]
            assert isinstance(wanted, list)
            return self._json([*filter(None, (repository.path(path.strip("/")) for path in wanted))])
        if match[3] == "tree":
            return self._json(repository.tree(match[5] or "", "recursive=true" in self.path.lower()))
        return self._json(
            {
                "id": repository.name,
                "sha": repository.commit,
                "private": False,
                "gated": "auto" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [
                    {"rfilename": file, **{k: v for k, v in repository.entry(file).items() if k in ("size",)}}
                    for file in repository.files
                ],
            }
        )

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self._find(kind, name, revision)
        if repository is None:
            return None
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            known = "Authorization" in self.headers
            return self._error(403 if known else 401, "GatedRepo", "Access to this dataset is restricted")
        if file not in repository.files:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})
        if (status := self._ordered(self.hub.trouble.status, file)) is not None:
            return self._error(status, "", "trouble")
        if file.endswith(TEXT):
            return self._send_file(repository, file)
        lfs = repository.entry(file)["lfs"]
        assert isinstance(lfs, dict)
        digest = lfs["oid"]
        self.hub.blobs[digest] = repository, file
        return self._send(
            302,
            b"",
            {
                "Location": f"http://localhost:{self.server.server_port}/cdn/{digest}/{file.rpartition('/')[2]}",
                "X-Repo-Commit": repository.commit,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(lfs["size"]),
            },
        )

    def _send_file(self, repository: Repository, file: str) -> None:
        content = repository.content(file)
        headers = {
            "X-Repo-Commit": repository.commit,
            "ETag": f'"{git_hash(content)}"',
            "Accept-Ranges": "bytes",
        }
        if (other := self._ordered(self.hub.trouble.instead, file)) is not None:
            content = other
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part, trouble, status = content[start:], self.hub.trouble, 206 if start else 200
        slow, cut, stall = (
            self._ordered(orders, file) for orders in (trouble.slow, trouble.cut, trouble.stall)
        )
        if self.command == "HEAD" or not (slow or cut or stall):
            return self._send(status, part, headers)
        self._head(status, len(part), headers)
        self.wfile.write(part[: len(part) // 2])
        self.wfile.flush()
        time.sleep(slow or (0.5 if stall else 0))
        if slow:
            self.wfile.write(part[len(part) // 2 :])
            return None
        for orders in (trouble.cut, trouble.stall):
            for end in orders:
                orders[end] -= file.endswith(end)
        self.close_connection = True
        return None

    @staticmethod
    def _ordered(orders: Mapping[str, Order], file: str) -> Order | None:
        return next((value for end, value in orders.items() if file.endswith(end)), None)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        known = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._send(status, b"", {**known, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(content), headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
