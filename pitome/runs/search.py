"""mode=search: from a configuration to a schedule file with its card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
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
from pitome.records.claims import Taken, claim
from pitome.records.files import write_atomically
from pitome.records.markdown import markdown_table
from pitome.runs.environment import resolve_device
from pitome.runs.job import command_of
from pitome.runs.paths import shown
from pitome.runs.quiet import quiet_libraries
from pitome.runs.validate import import_modules, sampler_of
from pitome.search import study
from pitome.search.probe import Probe
from pitome.search.rates import FILE as RATES
from pitome.search.rates import learn
from pitome.search.result import Compared, FoundSchedule, number, write
from pitome.search.space import Amount, Space, options_of
from pitome.search.speed import measured, share_for_speed
from pitome.search.speed import shown as shown_speed
from pitome.sources.schedule_file import OPTIONS as SCHEDULE_OPTIONS
from pitome.tasks.base import task_class
from pitome.tasks.memory import is_out_of_memory

TRIALS = 100
"""Where neither trials nor minutes are given."""

SPEED = "speed.json"
"""In a search's folder, which share of the cost reaches the speed."""

_CANDIDATES = 5
"""Schedules that are timed at the end of a search for a speed, the best first."""

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
        uniform, best = result.compared[0], result.compared[-1]
        if best.disagreement >= uniform.disagreement:
            print(f"{result.path.name}: not better than the uniform schedule on the samples of the search")
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
    space = study.space_of(probe, config.merge.name, config.layers, config.task.layers)
    identity = _identity(config, probe)
    folder = Path(config.search.folder).expanduser() if config.search.folder else _folder(config, identity)
    folder.mkdir(parents=True, exist_ok=True)
    minutes, trials = config.search.minutes, config.search.trials
    if minutes is None and trials is None:
        trials = TRIALS
    plan = study.SearchPlan(
        target=config.flops or 1.0,  # of a speed: known below
        options={k: v for k, v in config.merge.options.items() if k not in config.search.options},
        searched=searched,
        sampler=sampler_of(config),
        trials=trials,
        minutes=minutes,
        seed=config.seed,
    )
    try:
        with claim(folder, "search"):
            if config.overwrite == "all":
                for path in (*folder.glob(f"{study.FILE}*"), *folder.glob(SPEED), *folder.glob(RATES)):
                    path.unlink()
            if config.speed is not None:
                plan = dataclasses.replace(plan, target=_share(config.speed, folder, probe, space, plan))
            started = time.monotonic()
            if plan.sampler == "gradient":
                result, trials_said = _learned(config, folder, space, probe, plan, json.dumps(identity))
            else:
                tried = study.search(
                    probe, space, plan, folder=folder, identity=identity, title=f"search {config.merge.name}"
                )
                result = _found(config, folder, space, tried, probe, plan)
                failed = sum(math.isnan(t.disagreement) for t in tried)
                trials_said = f"{len(tried)}" + (f", {failed} without a finite result" if failed else "")
            facts = _facts(config, probe, trials_said, time.monotonic() - started)
            write(result, facts, command_of(words), _test(words, result))
    except Taken:
        raise UsageError(
            f"another process searches in {folder}; wait for it, or give a search.folder"
        ) from None
    return result


def _share(speed: float, folder: Path, probe: Probe, space: Space, plan: study.SearchPlan) -> float:
    """Of the cost, at which the uniform schedule is so fast here: measured once for a search."""
    path = folder / SPEED
    if not path.is_file():
        share, _ = share_for_speed(probe, space, plan.options, speed)
        write_atomically(path, json.dumps({"share": share}).encode())
    return float(json.loads(path.read_text())["share"])


def _found(
    config: Config,
    folder: Path,
    space: Space,
    tried: Sequence[study.Tried],
    probe: Probe,
    plan: study.SearchPlan,
) -> FoundSchedule:
    best, speeds = study.best_of(tried), {}
    names = {
        study.UNIFORM: "uniform",
        study.FILLED: "uniform, filled up to the target",
        study.PUBLISHED: "published curve",
    }
    if config.speed is not None:
        (uniform,) = [t for t in tried if t.role == study.UNIFORM]
        finite = [t for t in tried if not math.isnan(t.disagreement)]
        candidates = sorted(finite, key=lambda t: t.disagreement)[:_CANDIDATES]
        for best in (*candidates, uniform):  # the last one was fast enough when the share was looked for
            timing = measured(probe, space, best.amount, {**plan.options, **best.options})
            speeds[best.number] = shown_speed(timing)
            if timing.speedup >= config.speed:
                break
    named = [t for t in tried if t.role == study.UNIFORM]  # first, also where it is the best
    named += [t for t in tried if t.role in names and t.role != study.UNIFORM and t.number != best.number]
    compared = [Compared(names[t.role], t.share, t.disagreement, speeds.get(t.number, "")) for t in named]
    label = f"best: {names[best.role]}" if best.role in names else "best"
    compared.append(Compared(label, best.share, best.disagreement, speeds.get(best.number, "")))
    return FoundSchedule(
        folder=folder,
        method=config.merge.name,
        model=model_label(config.model),
        asked=_asked(config),
        target=plan.target,
        amount=best.amount,
        options=best.options,
        tokens=None if space.by_ratio else space.architecture.tokens,
        compared=compared,
        compare=probe.compare,
    )


def _learned(
    config: Config, folder: Path, space: Space, probe: Probe, plan: study.SearchPlan, identity: str
) -> tuple[FoundSchedule, str]:
    """DiffRate's learned rates beside the uniform schedule; and how many steps they took."""
    reference, uniform = probe.reference, space.uniform(plan.target, space.resolve(plan.options))
    before = study.evaluate(probe, space, uniform, plan.options)
    lists, steps = learn(
        probe, space, plan.options, plan.target,
        steps=plan.trials, minutes=plan.minutes, folder=folder, identity=identity,
    )  # fmt: skip
    options: dict[str, Any] = {k: v for k, v in plan.options.items() if k not in SCHEDULE_OPTIONS}
    with patch(probe.model, config.merge.name, **options | lists):
        after = probe.disagreement(reference)
    amount = Amount(schedule=tuple(lists["merge_kept"]))
    shares = [space.share(a.rule(), space.resolve(plan.options)) for a in (uniform, amount)]
    return FoundSchedule(
        folder=folder,
        method=config.merge.name,
        model=model_label(config.model),
        asked=_asked(config),
        target=plan.target,
        amount=amount,
        lists=lists,
        tokens=space.architecture.tokens,
        compared=[Compared("uniform", shares[0], before), Compared("learned", shares[1], after)],
        compare=probe.compare,
    ), f"{steps} steps of {config.batch_size} training images"


def _identity(config: Config, probe: Probe) -> dict[str, Any]:
    """What makes two searches the same, so that one goes on where the other stopped."""
    fixed = {k: v for k, v in config.merge.options.items() if k not in config.search.options}
    return {
        "task": config.task.name,
        "model": model_label(config.model),
        "merge": config.merge.name,
        "merge.options": fixed,
        "flops": config.flops,
        "speed": config.speed,
        "layers": config.layers,
        "sampler": sampler_of(config),
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


def _facts(config: Config, probe: Probe, trials: str, seconds: float) -> dict[str, object]:
    return {
        "model": model_label(config.model),
        **probe.facts,
        "method": config.merge.name,
        "options searched": ", ".join(config.search.options) or "none",
        "target": f"flops={config.flops:g}" if config.flops is not None else f"speed={config.speed:g}",
        "trials": trials,
        "minutes": f"{seconds / 60:.1f}",
        "sampler": sampler_of(config),
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
