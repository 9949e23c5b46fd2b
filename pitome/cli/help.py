"""The text of --help, read from conf/ without importing Hydra."""

from __future__ import annotations

from pathlib import Path

import pitome
from pitome.config import GROUPS
from pitome.errors import as_typed
from pitome.merge import plugins

_INTRO = """\
Token merging in transformers: reproduced, compared and used.

usage: python run.py [GROUP=CHOICE ...] [KEY=VALUE ...]
       python run.py -m KEY=VALUE,VALUE ...          a sweep over all combinations
"""

_EXAMPLES = """\
examples:
  python run.py                                      the default, works offline
  python run.py merge=tome r=16 measure=full         with throughput
  python run.py -m merge=none,pitome,tome ratio=0.9,0.95 limit=500
  python run.py model=deit_s data=imagenet data.root=/path/to/imagenet merge=pitome ratio=0.925
  python run.py merge=pitome merge.options.alpha=0.5 with an option of the method
  python run.py mode=train model=vit_fmnist          trains, evaluates, writes weights and a card
  python run.py -m experiment=table5_offline         a table of the paper on this project's own model
  python run.py --cfg job                            shows the configuration and stops
"""


def help_text(conf: Path, custom: Path | None = None) -> str:
    """Every group with one line per choice, every key, examples. custom: the user's conf/ folder."""
    lines = [_INTRO]
    for group in (*GROUPS, "hydra/launcher"):
        folders = [folder for folder in (conf, custom) if folder is not None]
        paths = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
        files = [paths[name] for name in sorted(paths)]
        if files:
            lines.append(f"{group}=")
            lines += [f"  {path.stem:<18} {first_comment(path)}" for path in files]
            if group == "merge":
                entries = plugins.offered().items()
                lines += [f"  {name:<18} of {plugins.distribution(entry)}" for name, entry in entries]
            lines.append("")
    lines.append("experiment=          (with -m; <name>_offline on this project's own models)")
    for path in sorted((conf.parent / "experiments").glob("[!_]*.yaml")):
        lines.append(f"  {path.stem:<18} {first_comment(path)}")
    lines += ["", "keys:"]
    for line in (conf / "config.yaml").read_text().split("\nhydra:")[0].splitlines():
        key, colon, rest = line.partition(":")
        if colon and key.isidentifier() and key != "defaults":
            value, _, comment = rest.partition("#")
            lines.append(f"  {key + '=' + value.strip():<18} {comment.strip()}".rstrip())
    return as_typed("\n".join([*lines, "", _EXAMPLES]))


def version_text() -> str:
    """This project's version, and those of what results depend on."""
    from pitome.runs.versions import versions

    return (
        f"pitome {pitome.__version__}\n{', '.join(f'{name} {which}' for name, which in versions().items())}"
    )


def first_comment(path: Path) -> str:
    """The comment that opens a YAML file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        line = file.readline()
    return line.removeprefix("#").strip() if line.startswith("#") else ""
