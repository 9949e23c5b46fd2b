"""Make the schedules of experiment=schedules_offline: python scripts/schedules.py [MODEL ...]

For every offline model, method and share of the cost: a schedule that `mode=search` finds on held-out samples
(searched), the curve that DiffRate's authors published for DeiT-S, scaled to the same cost (scaled), and for
images DiffRate's rates learned by gradient (learned). Each is a file with a card in
pitome/sources/shipped/schedules/, which `schedule=searched/vit_fmnist/tome@0.6` reads. A file that is there
is left alone, and a search that was killed goes on: the same command until it says that all are made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import yaml

from pitome.cli.main import main as cli
from pitome.errors import UsageError, nearest, print_error
from pitome.records.files import write_atomically
from pitome.search import study
from pitome.search.space import Amount
from pitome.sources.schedule_file import made_path

MODELS = {
    "vit_fmnist": ["model=vit_fmnist"],
    "minilm": ["task=text"],
    "clip_scenes": ["task=retrieval"],
    "llava_easyvqa": ["task=vqa"],
}
METHODS = ("tome", "pitome", "diffrate")
TARGETS = ("0.6", "0.4", "0.8")
ROOT = Path(__file__).parent.parent
WORK = Path("results/search/offline")  # in ROOT: cards show the command
_SEARCH = ["mode=search", "limit=500", "search.sampler=tpe", "search.trials=40"]
_LEARN = ["mode=search", "limit=500", "search.sampler=gradient", "search.trials=100"]


def wanted(models: Sequence[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Kind, model, name and the words of the command line of every search."""
    for model in models:
        for target in TARGETS:
            for method in METHODS:
                words = [*MODELS[model], f"merge={method}", f"flops={target}"]
                yield "searched", model, f"{method}@{target}", [*_SEARCH, *words]
                if model == "vit_fmnist" and method == "diffrate":
                    yield "learned", model, f"{method}@{target}", [*_LEARN, *words]


def make(kind: str, model: str, name: str, words: Sequence[str]) -> bool:
    """One search, and its files where they are shipped. Returns whether that worked."""
    full = f"{kind}/{model}/{name}"
    goal = made_path(full)
    if goal.is_file():
        return True
    folder = WORK / model / kind / name
    if (code := cli([*words, f"search.folder={folder}"])) != 0:
        if code not in (1, 2):
            sys.exit(code)  # it was stopped
        return False
    (path,) = folder.glob("*.yaml")
    text, card = path.read_text(), path.with_suffix(".md").read_text()
    if kind == "searched":
        curve = next(t for t in study.read(folder) if t.role == study.PUBLISHED)
        write_atomically(made_path(f"scaled/{model}/{name}"), with_amount(text, curve.amount).encode())
    write_atomically(goal.with_suffix(".md"), card.replace(str(path), full).encode())
    write_atomically(goal, text.replace(f"{path.stem}.md", f"{name}.md").encode())
    return True


def with_amount(text: str, amount: Amount) -> str:
    """A schedule file with other numbers."""
    made = yaml.safe_load(text)["made_for"]
    (values,) = amount.arguments().values()
    lines = {"ratio" if amount.ratio else "merge_kept": values}
    head = f"# the curve of {study.SHAPE}, scaled to this cost\n"
    body = yaml.safe_dump(lines, default_flow_style=True, width=10_000).strip().strip("{}")
    return f"{head}{body}\n{yaml.safe_dump({'made_for': made}, sort_keys=False)}"


def main(words: Sequence[str]) -> int:
    """Make what is not there yet of these models, or of all. Returns the exit code."""
    for word in words:
        if word not in MODELS:
            return print_error(UsageError(f"no offline model {word}; {nearest(word, MODELS)}"))
    os.chdir(ROOT)
    failed = sum(not make(*search) for search in wanted(words or list(MODELS)))
    print(f"{failed} searches failed" if failed else "all schedules are made")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
