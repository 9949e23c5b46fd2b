"""A merge schedule kept in a YAML or JSON file."""

from __future__ import annotations

from pathlib import Path

from pitome.errors import UsageError

NAMES = ("prune_kept", "merge_kept")
OPTIONS = (*NAMES, "schedule_file")  # of a method: any of them is a schedule of its own


def read_schedule(path: str | Path) -> dict[str, list[int]]:
    """Tokens kept in every layer, from a file such as `{"merge_kept": [190, 181, 170]}`.

    The names are `prune_kept` and `merge_kept`, one of them or both. Raises UsageError if the file
    cannot be read or holds anything else.
    """
    import yaml  # JSON is YAML, so one reader serves both

    what = f"schedule_file={path}"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror}); give a YAML or JSON file") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UsageError(
            f"{what} is neither YAML nor JSON; expected lists named {' and '.join(NAMES)}"
        ) from None
    if not isinstance(content, dict) or not content or not set(content) <= set(NAMES):
        raise UsageError(
            f"{what} must hold lists named {' and '.join(NAMES)}, or one of them, and nothing else"
        )
    for name, counts in content.items():
        whole = isinstance(counts, list) and all(type(count) is int and count > 0 for count in counts)
        if not whole or not counts:
            raise UsageError(f"{what}: {name} must be a list of whole numbers above 0, one per layer")
    return content
