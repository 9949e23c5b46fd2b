"""Files from the Hugging Face hub: from its cache, else downloaded, else one line within 5 seconds.

huggingface_hub finds, fetches, resumes and caches them. By hand are only the 5 seconds (its time-outs hold
per address and attempt, over 20 s in all), the choice among names, the size in advance, and one line for
what goes wrong. `datasets` reads tables (`pitome.sources.parquet`) but fetches none: `load_dataset` of a
repository refuses those with a loading script, asks the hub again each time, does not find a pinned revision
in its cache without the hub, and fetches all splits of a configuration unless files are named.
"""

from __future__ import annotations

import errno
import fnmatch
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pitome.errors import PitomeError, redact

Result = TypeVar("Result")

_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT}
PATIENCE = 5.0  # seconds until the hub counts as out of reach, name look-up and proxies included


def say(line: str) -> None:
    """Tell the user what is being fetched; standard output stays for results."""
    print(redact(line), file=sys.stderr, flush=True)


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


def cached_folder(
    repo: str, *wanted: str | Sequence[str], kind: str = "model", revision: str = "main"
) -> Path | None:
    """The snapshot folder of `repo` in the hub's cache, if it holds all that is `wanted` (of `fetch_folder`).

    The folder's name is the commit. A set of shards (`name-00002-of-00014.parquet`) counts only when
    complete: a download may have been cut off, and only newer versions of huggingface_hub notice.
    """
    from huggingface_hub import snapshot_download

    def snapshot(patterns: list[str]) -> Path | None:
        try:
            return Path(
                snapshot_download(
                    repo, repo_type=kind, revision=revision, allow_patterns=patterns, local_files_only=True
                )
            )
        except (OSError, ValueError):
            return None

    def holds(pattern: str) -> bool:
        folder = snapshot([pattern])
        files = sorted(folder.rglob(pattern)) if folder else []
        shards = {int(of) for file in files for of in re.findall(r"-of-(\d+)", file.name)}
        return bool(files) and (not shards or len(files) >= max(shards))

    return snapshot([]) if all(any(map(holds, _either(names))) for names in wanted) else None


def fetch_folder(
    repo: str,
    *wanted: str | Sequence[str],
    kind: str = "model",
    revision: str = "main",
    error: type[PitomeError],
    otherwise: str,
) -> Path:
    """Bring files of `repo` into the hub's cache; return their folder, whose name is the commit.

    wanted: patterns of names; of several together, the first that the repository has is fetched; kind:
    `model` or `dataset`; revision: branch, tag or commit; otherwise: what the user can do instead, for the
    message. Raises `error`, one line, when the hub is out of reach (after 5 seconds at most), refuses
    access or lacks the files, and when its cache cannot be written.
    """
    folder = cached_folder(repo, *wanted, kind=kind, revision=revision)
    if folder is not None:
        return folder
    what = f"{' and '.join(map(_named, wanted))} of {repo} (revision {revision})"
    with _explained(what, error, otherwise):
        from huggingface_hub import snapshot_download

        sizes = _listing(repo, kind, revision)
        patterns = []
        for names in wanted:
            chosen = next((pattern for pattern in _either(names) if fnmatch.filter(sizes, pattern)), None)
            if chosen is None:
                missing = f"{_named(names)} of {repo} (revision {revision})"
                raise error(f"{missing} is not on the hub: check the revision, {otherwise}")
            patterns.append(chosen)
        files = {name for pattern in patterns for name in fnmatch.filter(sizes, pattern)}
        total = sum(sizes[name] for name in files) / 1e6
        say(f"fetching {', '.join(patterns)} of {repo} (revision {revision}) from the hub, {total:.1f} MB")
        return Path(
            snapshot_download(
                repo, repo_type=kind, revision=revision, allow_patterns=patterns, etag_timeout=PATIENCE
            )
        )


def check_reach(repo: str, *, revision: str = "main", error: type[PitomeError], otherwise: str) -> None:
    """Find out early, before torch is imported, that a model can neither be in the hub's cache nor be
    fetched: nothing of its repository is there, and the hub does not list it.

    otherwise: as of `fetch_folder`. Raises `error` likewise.
    """
    if cached_folder(repo, revision=revision) is None:
        with _explained(f"{repo} (revision {revision})", error, otherwise):
            _listing(repo, "model", revision)


def _either(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _named(names: str | Sequence[str]) -> str:
    return " or ".join(_either(names))


def _listing(repo: str, kind: str, revision: str) -> dict[str, int]:
    """Bytes of every file of a repository, by name."""
    from huggingface_hub import HfApi

    def ask() -> dict[str, int]:
        info = HfApi().repo_info(
            repo, repo_type=kind, revision=revision, files_metadata=True, timeout=PATIENCE
        )
        return {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or []}

    return within(PATIENCE, ask)


def full_or_closed(problem: BaseException) -> str | None:
    """Why a cache cannot be written, if `problem` says so: no space left, or no permission."""
    place = f" ({problem.filename})" if isinstance(problem, OSError) and problem.filename else ""
    if isinstance(problem, OSError) and problem.errno in _CLOSED:
        return f"{problem.strerror}{place}"
    return _reason(problem) if "enough disk space" in str(problem) else None


@contextmanager
def _explained(what: str, error: type[PitomeError], otherwise: str) -> Iterator[None]:
    """What goes wrong with the hub as one line."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except PitomeError:
        raise
    except LocalEntryNotFoundError as problem:  # after it tried in vain
        raise error(f"{what} {_why(problem.__cause__ or problem)}, {otherwise}") from None
    except Exception as problem:  # the errors of its HTTP library, which differs between versions
        raise error(f"{what} {_why(problem)}, {otherwise}") from None


def _why(problem: BaseException) -> str:
    from huggingface_hub import constants, errors

    reason = _reason(problem)
    match problem:
        case errors.GatedRepoError():
            return "is gated: accept its terms on the hub and run `hf auth login`"
        case errors.RepositoryNotFoundError():
            return "is not on the hub, or needs `hf auth login`: log in"
        case errors.RevisionNotFoundError():
            return "is not on the hub: it has no such revision; correct it"
        case errors.HfHubHTTPError():
            return f"was refused by the hub ({reason}): try again"
    if (closed := full_or_closed(problem)) is not None:
        return (
            f"cannot be kept in the hub's cache {constants.HF_HUB_CACHE} ({closed}): make room there, or "
            "choose another folder with HF_HOME=FOLDER"
        )
    if isinstance(problem, ValueError) or (isinstance(problem, OSError) and "Consistency" in reason):
        return f"did not arrive whole ({reason}): try again, check HF_ENDPOINT and proxies"
    return (
        f"is not in the hub's cache and the hub is out of reach ({reason}): go online (a gated file also "
        "needs `hf auth login`)"
    )


def _reason(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
