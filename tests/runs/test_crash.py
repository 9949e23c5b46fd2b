"""Sweeps that are killed at random moments, and two processes on one sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pitome.records.claims import running
from pitome.records.store import Store

KILLS = int(os.environ.get("SOAK_KILLS", "5"))
"""In parallel sweeps; `make soak` asks for 200."""

pytestmark = pytest.mark.nightly  # half a minute; tests/runs/test_claimed.py tests the parts every day

# Makes the first sweep itself, which imports everything, then forks: a real process for each further start,
# without the seconds of its imports.
# What is saved is noted in one write, so that a run that is done twice shows.
STARTS = """
import os, random, signal, sys, threading, time
from pathlib import Path
import tqdm
tqdm.tqdm.set_lock(threading.RLock())  # before a class of Lightning's makes one that processes share
from pitome.cli.main import main
from pitome.records.claims import running
from pitome.records.store import Store

images, folder = sys.argv[1], Path(sys.argv[2])

def sweep(name, seeds=1):
    (folder / name).mkdir(exist_ok=True)
    os.chdir(folder / name)
    words = ["-m", "model.args.depth=2", "model.args.embed_dim=16", f"data.root={images}", "weights=random"]
    words += ["logger=none", "limit=20", "results=results/runs", "merge=none,tome", "ratio=0.9,0.8,0.7"]
    return main([*words, f"seed=range(0,{seeds})"])

def start(name, seeds=1):
    if pid := os.fork():
        return pid
    # A lock that forked processes shared would stop all of them once one is killed with it.
    tqdm.tqdm.set_lock(threading.RLock())
    (folder / name).mkdir(exist_ok=True)
    out = os.open(folder / name / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1), os.dup2(out, 2)
    log, save = os.open(folder / name / "saved", os.O_WRONLY | os.O_CREAT | os.O_APPEND), Store.save
    def noted(store, record, outcomes=None):
        saved = save(store, record, outcomes)
        os.write(log, f"{record.run_id} {record.started}\\n".encode())
        return saved
    Store.save = noted
    os._exit(sweep(name, seeds))

def wait(*pids):
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

assert sweep("whole") == 0
moments = random.Random(0)
for _ in range(5):
    pid = start("killed")
    time.sleep(moments.uniform(0.05, 0.8))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
wait(start("killed"))
wait(start("two"), start("two"))

# Two processes on one sweep after the other: a random one of them is killed while it has claimed a run, and
# started again.
def at_work(name):
    return {int(owner.split()[1]) for owner in running(folder / name / "results" / "runs").values()}

began = time.monotonic()
wait(start("timed"))
seconds = (time.monotonic() - began) / 4  # of a run, on this machine at this moment
killed, rounds = 0, 0
while killed < int(sys.argv[3]):
    name, rounds = f"parallel{rounds}", rounds + 1
    pids = [start(name, 3), start(name, 3)]
    while pids and killed < int(sys.argv[3]):
        time.sleep(moments.uniform(0, 2 * seconds))  # so that some runs end between two kills
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        held = sorted(set(pids) & at_work(name))
        if held:
            pid = moments.choice(held)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pids[pids.index(pid)] = start(name, 3)
            killed += 1
    wait(*pids)
    wait(start(name, 3))
print(f"{killed} kills with a claim held, in {rounds} sweeps of two processes")
"""


@pytest.fixture(scope="module")
def folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sweeps")
    done = subprocess.run(
        [sys.executable, "-c", STARTS, str(images), str(made), str(KILLS)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # a pool of threads would not outlive a fork
    )

    said = "".join(path.read_text() for path in made.glob("*/out"))
    assert done.returncode == 0, done.stderr + said[-5000:]
    (made / "kills").write_text(done.stdout.splitlines()[-1])
    return made


def table(folder: Path) -> bytes:
    """The table at the end of the last start of a sweep."""
    return sorted((folder / "results" / "sweeps").iterdir())[-1].joinpath("table.md").read_bytes()


def test_a_sweep_killed_five_times_ends_in_the_same_table(folder: Path) -> None:
    assert table(folder / "killed") == table(folder / "whole")
    whole, killed = (
        {record.run_id: record for record in Store(folder / name / "results" / "runs").all()}
        for name in ("whole", "killed")
    )
    assert len(whole) == 4 and whole.keys() == killed.keys()
    assert all(killed[key].metrics == whole[key].metrics for key in whole)


def test_no_finished_run_is_lost_or_repeated(folder: Path) -> None:
    """A run may have been killed after its record was written and before that was noted."""
    saved = Counter(line.split()[0] for line in (folder / "killed" / "saved").read_text().splitlines())
    assert saved and set(saved.values()) == {1}


def test_two_processes_do_every_run_once(folder: Path) -> None:
    saved = Counter(line.split()[0] for line in (folder / "two" / "saved").read_text().splitlines())
    assert len(saved) == 4 and set(saved.values()) == {1}
    assert table(folder / "two") == table(folder / "whole")
    assert not list((folder / "two" / "results" / "runs").glob(".*"))  # no claim is left


def test_parallel_sweeps_survive_kills_while_they_hold_claims(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost, nothing is done twice, no run is blocked: every sweep ends with all its runs done."""
    sweeps = sorted(folder.glob("parallel*"))
    saved_at_all = 0
    for sweep in sweeps:
        saved = [line.split() for line in (sweep / "saved").read_text().splitlines()]
        records = {record.run_id: record for record in Store(sweep / "results" / "runs").all()}
        assert len(records) == 3 + 9 and all(record.done for record in records.values())
        assert max(Counter(run_id for run_id, _ in saved).values()) == 1
        assert all(records[run_id].started == started for run_id, started in saved)
        assert running(sweep / "results" / "runs") == {}  # what killed writers left blocks nobody
        saved_at_all += len(saved)
    with capsys.disabled():
        print(f"{(folder / 'kills').read_text()}; {saved_at_all} runs: 0 lost, 0 done twice, 0 blocked")
