"""Where a run runs: device, versions, git revision."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import torch

from pitome.errors import INSTALLED, MissingDeviceError
from pitome.merge import native
from pitome.records.schema import Environment
from pitome.runs.versions import versions


def resolve_device(name: str, devices: int = 1) -> torch.device:
    """`auto` is cuda, else mps, else cpu; of several devices the first. Raises MissingDeviceError for what
    this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count[device.type]:
        have = ", ".join(f"{count[kind]} {kind}" for kind in count if count[kind]) or "none"
        raise MissingDeviceError(
            f"device={name} does not exist here (found: {have}); use device=auto or device=cpu"
        )
    most = os.cpu_count() or 1 if device.type == "cpu" else count[device.type]
    if devices > most:
        raise MissingDeviceError(
            f"devices={devices} is too many for device={name}: there are {most}; give devices={most} or less"
        )
    return device


def describe_environment(device: torch.device, precision: str, attention: str) -> Environment:
    """What a record keeps of this machine."""
    revision, dirty = _git()
    return Environment(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=precision,
        threads=torch.get_num_threads(),
        attention=attention,
        git_revision=revision,
        git_dirty=dirty,
        versions=versions() | ({"kernel": native.state()} if native.is_made() else {}),
    )


def _git() -> tuple[str | None, bool | None]:
    """Revision of this project's checkout and whether it was changed; None outside of one."""
    if INSTALLED:  # another project's repository may stand around it
        return None, None
    folder = Path(__file__).parent

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(
            ask("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)results")
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
