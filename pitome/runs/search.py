"""mode=search: from a configuration to a schedule file with its card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning

from pitome.adapters.patch import patch
from pitome.config import Config, model_label
from pitome.errors import MemoryShortageError, PitomeError, UsageError, one_line, print_error
from pitome.merge import registry
from pitome.merge.schedule import parse_layers
from pitome.records.claims import Taken, claim
from pitome.records.markdown import markdown_table
from pitome.runs.environment import resolve_device
from pitome.runs.job import command_of
from pitome.runs.paths import shown
from pitome.runs.quiet import quiet_libraries
from pitome.runs.validate import import_modules
from pitome.search import study
from pitome.search.probe import Probe
from pitome.search.result import Compared, FoundSchedule, number, write
from pitome.search.space import Space, options_of
from pitome.tasks.base import task_class
from pitome.tasks.memory import is_out_of_memory

TRIALS = 100
"""Where neither trials nor minutes are given."""

_VERSIONS = ("pitome", "torch", "optuna", "cmaes", "timm", "transformers")


def run_all(points: Sequence[tuple[Config, Sequence[str]]]) -> int:
    """Search for each configuration, given with its words on the command line, one after the other, and print
    what was found. Returns the exit code."""
    quiet_libraries()
    results, code = [], 0
    for config, words in points:
        try:
            results.append((words, run(config, words)))
        except PitomeError as problem:
            code = print_error(problem)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            code = print_error(MemoryShortageError(f"{one_line(problem)}; give a smaller batch_size"))
    rows = [
        [
            result.method,
            f"{result.target:g}",
            *(f"{number(c.disagreement)} ({c.share:.3f})" for c in (result.compared[0], result.compared[-1])),
            shown(result.path),
        ]
        for _, result in results
    ]
    if rows:
        print(markdown_table(["merge", "flops", "uniform (share)", "best (share)", "schedule"], rows))
    for words, result in results:
        if result.compared[0].disagreement == result.compared[-1].disagreement:
            print(f"{result.path.name}: nothing was better than the uniform schedule, which it holds")
        print(f"compare on the test split:\n{_test(words, result)}")
    return code


def run(config: Config, words: Sequence[str]) -> FoundSchedule:
    """Search as one configuration says and write what was found. Raises PitomeError."""
    device = resolve_device(config.device)
    import_modules(config.imports)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    method = registry.get(config.merge.name)
    searched = options_of(method, config.search.options)
    probe = task_class(config.task.name).probe(config, device)
    space, family = space_of(config, probe)
    identity = _identity(config, probe, family)
    folder = Path(config.search.folder).expanduser() if config.search.folder else _folder(config, identity)
    folder.mkdir(parents=True, exist_ok=True)
    minutes, trials = config.search.minutes, config.search.trials
    if minutes is None and trials is None:
        trials = TRIALS
    assert config.flops is not None
    plan = study.SearchPlan(
        target=config.flops,
        options={k: v for k, v in config.merge.options.items() if k not in config.search.options},
        searched=searched,
        sampler=config.search.sampler or "tpe",
        trials=trials,
        minutes=minutes,
        seed=config.seed,
    )
    try:
        with claim(folder, "search"):
            if config.overwrite == "all":
                for path in folder.glob(f"{study.FILE}*"):
                    path.unlink()
            started = time.monotonic()
            tried = study.search(
                probe, space, plan, folder=folder, identity=identity, title=f"search {config.merge.name}"
            )
            result = _found(config, folder, space, tried, probe)
            facts = _facts(config, probe, tried, time.monotonic() - started)
            write(result, facts, command_of(words), _test(words, result))
    except Taken:
        raise UsageError(
            f"another process searches in {folder}; wait for it, or give a search.folder"
        ) from None
    return result


def space_of(config: Config, probe: Probe) -> tuple[Space, str]:
    """The schedules that there are for a configuration, and the model's family."""
    with patch(probe.model, "none", ratio=1.0) as handle:
        architecture, family = handle.architecture(probe.input_size), handle.family
    method = registry.get(config.merge.name).of_family(family)
    depth = len(architecture.layers)
    layers = config.layers if config.layers is not None else method.layers
    usual = layers if layers is not None else config.task.layers
    return Space(
        architecture=dataclasses.replace(architecture, family=family),
        method=method,
        layers=parse_layers(layers, depth),
        uniform_layers=parse_layers(usual, depth),
        by_ratio=probe.by_ratio,
    ), family


def _found(
    config: Config, folder: Path, space: Space, tried: Sequence[study.Tried], probe: Probe
) -> FoundSchedule:
    best = study.best_of(tried)
    named = [t for t in tried if t.role in (study.UNIFORM, study.FILLED) and t.number != best.number]
    names = {study.UNIFORM: "uniform", study.FILLED: "uniform, filled up to the target"}
    compared = [Compared(names[t.role], t.share, t.disagreement) for t in named]
    compared.append(Compared("best", best.share, best.disagreement))
    assert config.flops is not None
    return FoundSchedule(
        folder=folder,
        method=config.merge.name,
        model=model_label(config.model),
        asked=_asked(config),
        target=config.flops,
        amount=best.amount,
        options=best.options,
        tokens=None if space.by_ratio else space.architecture.tokens,
        compared=compared if len(compared) > 1 else [*compared, *compared],
        compare=probe.compare,
    )


def _identity(config: Config, probe: Probe, family: str) -> dict[str, Any]:
    """What makes two searches the same, so that one goes on where the other stopped."""
    fixed = {k: v for k, v in config.merge.options.items() if k not in config.search.options}
    return {
        "task": config.task.name,
        "model": model_label(config.model),
        "family": family,
        "merge": config.merge.name,
        "merge.options": fixed,
        "flops": config.flops,
        "speed": config.speed,
        "layers": config.layers,
        "sampler": config.search.sampler,
        "options": sorted(config.search.options),
        "seed": config.seed,
        "precision": config.precision,
        "batch_size": config.batch_size,
        **probe.facts,
    }


def _folder(config: Config, identity: Mapping[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]
    name = f"{config.model.name}_{config.data.name}_{config.merge.name}_{_asked(config)}-{key}"
    return Path(config.results).parent / "search" / name


def _asked(config: Config) -> str:
    return f"flops{config.flops:g}" if config.flops is not None else f"speed{config.speed:g}"


def _facts(config: Config, probe: Probe, tried: Sequence[study.Tried], seconds: float) -> dict[str, object]:
    failed = sum(t.disagreement != t.disagreement for t in tried)
    return {
        "model": model_label(config.model),
        **probe.facts,
        "method": config.merge.name,
        "options searched": ", ".join(config.search.options) or "none",
        "target": f"flops={config.flops:g}" if config.flops is not None else f"speed={config.speed:g}",
        "trials": f"{len(tried)}" + (f", {failed} of them without a finite result" if failed else ""),
        "minutes": f"{seconds / 60:.1f}",
        "sampler": config.search.sampler or "tpe",
        "seed": config.seed,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "device": str(probe.device),
        "versions": ", ".join(["python " + platform.python_version(), *map(_version, _VERSIONS)]),
    }


def _version(name: str) -> str:
    if name == "pitome":
        from pitome import __version__

        return f"pitome {__version__}"
    return f"{name} {version(name)}"


_SEARCHING = ("mode", "search", "speed", "limit", "flops", "merge", "overwrite", "results", "seed")


def _test(words: Sequence[str], result: FoundSchedule) -> str:
    """The command that compares the schedule with the uniform one on the test split."""

    def key(word: str) -> str:
        return word.strip("'\"+~").partition("=")[0].partition(".")[0]

    kept = [word for word in words if key(word) not in _SEARCHING or word.startswith("merge.options.")]
    given = f"merge={result.method} schedule=uniform,{shown(result.path)} flops={result.target:g}"
    return command_of(["-m", *kept, given])
