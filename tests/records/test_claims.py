"""Claims: one owner at a time, also after kill -9, also where the owner is on another machine."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pitome.records import RecordError
from pitome.records import claims as claims_module
from pitome.records.claims import Taken, claim, path_of, running

KEY = "0123456789abcdef"

# Owns the run until it is killed, or its standard input is closed.
OWNER = f"""
import sys
from pathlib import Path
from pitome.records.claims import claim
with claim(Path(sys.argv[1]), {KEY!r}):
    print("owned", flush=True)
    sys.stdin.read()
"""

# Goes through many runs beside others; what it owned is appended to a file in one write.
WORKER = """
import os, sys, time
from pathlib import Path
from pitome.records.claims import Taken, claim
folder, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(20):
    done = folder / f"{number}.done"
    if done.exists():
        continue
    try:
        with claim(folder, str(number)):
            if not done.exists():
                os.write(log, f"{number}\\n".encode())
                time.sleep(0.005)
                done.touch()
    except Taken:
        pass
"""


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_claim_ends_with_its_context(tmp_path: Path) -> None:
    for _ in range(2):
        with claim(tmp_path, KEY):
            assert running(tmp_path) == {KEY: f"process {os.getpid()} on {os.uname().nodename}"}
        assert running(tmp_path) == {} and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), claim(tmp_path, KEY):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_another_process_is_refused_until_the_owner_is_killed(tmp_path: Path) -> None:
    owner = start(OWNER, tmp_path)
    assert owner.stdout is not None and owner.stdin is not None
    assert owner.stdout.readline() == b"owned\n"
    with pytest.raises(Taken, match=f"another process works on run {KEY}"), claim(tmp_path, KEY):
        pass
    with claim(tmp_path, "another"):  # other runs are free
        pass
    assert list(running(tmp_path)) == [KEY]
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert path_of(tmp_path, KEY).exists() and running(tmp_path) == {}
    with claim(tmp_path, KEY):
        pass
    assert not list(tmp_path.iterdir())


def test_a_claim_of_another_machine_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be said of a process elsewhere but that it renews its claim no more."""
    monkeypatch.setattr(claims_module, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(claims_module, "_POLL_SECONDS", 0.05)
    with claim(tmp_path, KEY):
        left = path_of(tmp_path, KEY).read_text()
    host = os.uname().nodename
    path_of(tmp_path, KEY).write_text(left.replace(f"host={host}", "host=elsewhere"))
    path_of(tmp_path, KEY).chmod(0o644)
    with pytest.raises(Taken), claim(tmp_path, KEY):
        pass
    with claim(tmp_path, KEY, wait=True):
        assert "elsewhere" not in path_of(tmp_path, KEY).read_text()


@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_a_clock_that_jumps_breaks_no_living_claim(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = start(OWNER, tmp_path)
    assert owner.stdout is not None and owner.stdout.readline() == b"owned\n"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    with pytest.raises(Taken), claim(tmp_path, KEY):
        pass
    owner.kill()
    owner.communicate()
    with claim(tmp_path, KEY):  # and a dead one blocks nobody
        pass


def test_a_file_system_without_locks_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for module, name in ((fcntl, "flock"), (fcntl, "lockf"), (os, "link"), (os, "symlink")):
        monkeypatch.setattr(module, name, refuse)
    with claim(tmp_path, KEY), pytest.raises(Taken), claim(tmp_path, KEY):
        pass
    path_of(tmp_path, KEY).write_bytes(b"")
    os.utime(path_of(tmp_path, KEY), (0, 0))
    with claim(tmp_path, KEY):
        pass
    assert not list(tmp_path.iterdir())


def test_two_processes_do_every_run_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(WORKER, tmp_path, log) for _ in range(2)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    assert sorted(log.read_text().split(), key=int) == [str(number) for number in range(20)]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="make it a writable folder"), claim(tmp_path / "file" / "x", KEY):
        pass


UNOWNED = (b"", b"\n", b"garbage", b"\xff\xfe\x00", b"filelock/2\npid=", b"12\nhost\n")


@pytest.mark.parametrize("content", UNOWNED)
@pytest.mark.parametrize("wait", [False, True])
def test_a_claim_without_an_owner_blocks_nobody(content: bytes, wait: bool, tmp_path: Path) -> None:
    """Its process was killed between creating and writing it, or the power was cut."""
    path = path_of(tmp_path, KEY)
    path.write_bytes(content)
    if not wait:
        with pytest.raises(Taken), claim(tmp_path, KEY):  # its owner may be about to write it
            pass
        assert path.read_bytes() == content
    os.utime(path, (0, 0))
    with claim(tmp_path, KEY, wait=wait):
        assert list(running(tmp_path)) == [KEY]
    assert not list(tmp_path.iterdir())


def test_a_fresh_claim_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look at a damaged claim and its removal, another process may have made a good one."""
    path = path_of(tmp_path, KEY)
    looks = iter([False, True])
    monkeypatch.setattr(claims_module, "_is_owned", lambda path: next(looks))
    path.write_bytes(b"of another process")
    claims_module._remove_unowned(path)
    assert path.read_bytes() == b"of another process" and list(tmp_path.iterdir()) == [path]
