"""Files from the Hugging Face hub: from its cache, else downloaded, else one line within 5 seconds."""

from __future__ import annotations

import fnmatch
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pitome.errors import PitomeError

Result = TypeVar("Result")

PATIENCE = 5.0  # seconds until the hub counts as out of reach, name look-up and proxies included


def say(line: str) -> None:
    """Tell the user what is being fetched; standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """The result of `call`, or TimeoutError after `seconds` in total.

    In a thread, because the time-outs of sockets do not cover a name look-up, and hold per address.
    """
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except BaseException as problem:  # handed to the caller
            answers.put((None, problem))

    threading.Thread(target=ask, daemon=True).start()
    try:
        result, problem = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if problem is not None:
        raise problem
    return result  # type: ignore[return-value]


def cached_folder(repo: str, pattern: str, *, kind: str = "model", revision: str = "main") -> Path | None:
    """The snapshot folder of `repo` in the hub's cache, if it holds all files of `pattern`.

    The folder's name is the commit. A sharded file set (`name-00002-of-00014.parquet`) counts only
    when complete: a download may have been cut off.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo, repo_type=kind, revision=revision, allow_patterns=[pattern], local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None
    files = sorted(folder.rglob(pattern))
    shards = {int(of) for file in files for of in re.findall(r"-of-(\d+)", file.name)}
    return folder if files and (not shards or len(files) >= max(shards)) else None


def fetch_folder(
    repo: str,
    pattern: str,
    *,
    kind: str = "model",
    revision: str = "main",
    error: type[PitomeError],
    otherwise: str,
) -> Path:
    """Bring the files of `repo` that match `pattern` into the hub's cache; return their folder.

    kind: `model` or `dataset`; revision: branch, tag or commit (the folder's name is the commit);
    otherwise: what the user can do instead, for the message. Raises `error`, one line, when the
    hub is out of reach (after 5 seconds at most), refuses access or lacks the files.
    """
    folder = cached_folder(repo, pattern, kind=kind, revision=revision)
    if folder is not None:
        return folder
    what = f"{pattern} of {repo} (revision {revision})"
    with _explained(what, error, otherwise):
        from huggingface_hub import snapshot_download

        listing = _listing(repo, kind, revision)
        sizes = [size for name, size in listing if fnmatch.fnmatch(name, pattern)]
        if not sizes:
            raise error(f"{what} is not on the hub: check the revision, {otherwise}")
        say(f"fetching {what} from the hub, {sum(sizes) / 1e6:.1f} MB")
        return Path(
            snapshot_download(
                repo, repo_type=kind, revision=revision, allow_patterns=[pattern], etag_timeout=PATIENCE
            )
        )


def check_reach(repo: str, *, revision: str = "main", error: type[PitomeError], otherwise: str) -> None:
    """Find out early, before torch is imported, that a model can neither be in the hub's cache nor be
    fetched: nothing of its repository is there, and the hub does not list it.

    otherwise: as of `fetch_folder`. Raises `error` likewise.
    """
    if cached_folder(repo, "*", revision=revision) is None:
        with _explained(f"{repo} (revision {revision})", error, otherwise):
            _listing(repo, "model", revision)


def _listing(repo: str, kind: str, revision: str) -> list[tuple[str, int]]:
    """Name and bytes of every file of a repository."""
    from huggingface_hub import HfApi

    def ask() -> list[tuple[str, int]]:
        info = HfApi().repo_info(
            repo, repo_type=kind, revision=revision, files_metadata=True, timeout=PATIENCE
        )
        return [(file.rfilename, file.size or 0) for file in getattr(info, "siblings", None) or []]

    return within(PATIENCE, ask)


@contextmanager
def _explained(what: str, error: type[PitomeError], otherwise: str) -> Iterator[None]:
    """What goes wrong with the hub as one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        yield
    except PitomeError:
        raise
    except GatedRepoError:
        raise error(
            f"{what} is gated: accept its terms on the hub and run `hf auth login`, {otherwise}"
        ) from None
    except RepositoryNotFoundError:
        raise error(f"{what} is not on the hub, or needs `hf auth login`: log in, {otherwise}") from None
    except HfHubHTTPError as problem:
        raise error(f"{what} was refused by the hub ({_reason(problem)}): try again, {otherwise}") from None
    except Exception as problem:  # the errors of its HTTP library, which differs between versions
        raise error(
            f"{what} is not in the hub's cache and the hub is out of reach ({_reason(problem)}): "
            f"go online (a gated file also needs `hf auth login`), {otherwise}"
        ) from None


def _reason(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
