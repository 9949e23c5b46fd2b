"""Files from the Hugging Face hub: from its cache, else downloaded, else one line within 5 seconds."""

from __future__ import annotations

import fnmatch
import re
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

from pitome.errors import PitomeError

PATIENCE = 5.0  # seconds until the hub counts as out of reach, name look-up and proxies included


def say(line: str) -> None:
    """Tell the user what is being fetched; standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


def reachable(patience: float = PATIENCE) -> bool:
    """Whether the hub answers within `patience` seconds in total.

    Asked in a thread: the time-outs of sockets do not cover a name look-up, and hold per address.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=patience).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not a kind one
        except (OSError, ValueError):
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    return answered.is_set()


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
    found = cached_folder(repo, pattern, kind=kind, revision=revision)
    if found is not None:
        return found
    what = f"{pattern} of {repo} (revision {revision})"
    if not reachable():
        raise error(
            f"{what} is not in the hub's cache and the hub is out of reach: "
            f"go online (a gated file also needs `hf auth login`), {otherwise}"
        )
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi().repo_info(
            repo, repo_type=kind, revision=revision, files_metadata=True, timeout=PATIENCE
        )
        sizes = [
            f.size or 0
            for f in getattr(info, "siblings", None) or []
            if fnmatch.fnmatch(f.rfilename, pattern)
        ]
        if sizes:
            say(f"fetching {what} from the hub, {sum(sizes) / 1e6:.1f} MB")
            return Path(
                snapshot_download(
                    repo, repo_type=kind, revision=revision, allow_patterns=[pattern], etag_timeout=PATIENCE
                )
            )
    except GatedRepoError:
        raise error(
            f"{what} is gated: accept its terms on the hub and run `hf auth login`, {otherwise}"
        ) from None
    except RepositoryNotFoundError:
        raise error(f"{what} is not on the hub, or needs `hf auth login`: log in, {otherwise}") from None
    except Exception as problem:  # the client's own errors differ between its versions and HTTP libraries
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise error(f"{what} could not be fetched ({reason}): try again, {otherwise}") from None
    raise error(f"{what} is not on the hub: check the revision, {otherwise}")
