"""The search itself: trials in Optuna, kept in a file, so that a search that was killed goes on."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from pitome.adapters.patch import patch
from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.schedule import parse_layers
from pitome.search.probe import Probe
from pitome.search.space import Amount, Option, Space
from pitome.sources.schedule_file import find_schedule

if TYPE_CHECKING:
    import optuna

FILE = "trials.sqlite"
_NAME = "schedule"
UNIFORM, FILLED, PUBLISHED = "uniform", "filled", "published"
ROLES = (UNIFORM, FILLED, PUBLISHED, "falling", "rising")  # of the points to begin with
SHAPE = "published/deit_s@2.9"  # of the point PUBLISHED
_SPREAD = 2.0  # of the logarithms that are varied
_LINE_SECONDS = 30.0  # between lines of progress where there is no terminal


@dataclass(frozen=True)
class Tried:
    """One schedule with options, and what it does to the model's outputs."""

    number: int  # of the trial, from 0
    # `uniform`; `filled`, which is uniform with the tokens that the target leaves over; `published`: as
    # DiffRate's authors learned for DeiT-S (`published_logs`); `falling`, `rising`: fewer or more removals
    # with the depth; empty: what the sampler says; `unreachable`: nothing was run
    role: str
    amount: Amount
    options: dict[str, Any]  # of the method, those that were searched
    share: float  # of the unmerged cost
    disagreement: float  # with the unmerged model, see `Probe.compare`; NaN where an output was


@dataclass(frozen=True)
class SearchPlan:
    """What a search is asked for."""

    target: float  # share of the unmerged cost
    options: Mapping[str, Any]  # of the method, those that stay as they are
    searched: Sequence[Option] = ()  # options that are varied
    sampler: str = "tpe"  # or cmaes
    trials: int | None = None  # None: as many as the minutes allow
    minutes: float | None = None  # None: as many as the trials take
    seed: int = 0


def space_of(
    probe: Probe,
    name: str,
    layers: str | Sequence[int] | None = None,
    uniform_layers: str | Sequence[int] | None = None,
) -> Space:
    """The schedules of a method for the model of a probe. layers: that may merge; None: all, or the method's;
    uniform_layers: in which a uniform ratio merges; None: the same."""
    with patch(probe.model, "none", ratio=1.0) as handle:
        sizes = probe.input_size if isinstance(probe.input_size, Mapping) else {probe.input_size: 1}
        mixture = [(handle.architecture(size), count) for size, count in sizes.items()]
    architecture = mixture[0][0]
    method, depth = registry.get(name).of_family(architecture.family), len(architecture.layers)
    layers = method.layers if layers is None else layers
    usual = layers if layers is not None else uniform_layers
    chosen, uniform = parse_layers(layers, depth), parse_layers(usual, depth)
    return Space(mixture, method, chosen, uniform, probe.by_ratio)


def evaluate(probe: Probe, space: Space, amount: Amount, options: Mapping[str, Any]) -> float:
    """How far the model that merges so is from the unmerged one; NaN if an output is. Raises UsageError for a
    method whose counts depend on the data."""
    name, reference = space.method.name, probe.reference
    with patch(
        probe.model,
        name,
        ratio=amount.ratio,
        schedule=amount.schedule,
        input_size=probe.input_size,
        trace=probe.trace,
        **options,
    ) as handle:
        value = probe.disagreement(reference)
        last = handle.state.last.tokens
        if not space.by_ratio and tuple(last) != space.cost(amount.rule(), handle.options).tokens:
            raise UsageError(
                f"merge={name} removes a number of tokens that depends on the data; a search needs a method "
                "that removes as many as it is asked to"
            )
        return value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on new studies and on what is experimental; after it they come as before,
    as a search may be part of a user's own program."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@_quiet()
def search(
    probe: Probe,
    space: Space,
    plan: SearchPlan,
    *,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    title: str = "search",
) -> list[Tried]:
    """Every schedule that was tried, in the order of the trials; the first is the uniform one.

    folder: where the trials are kept, for the same search to go on from there; None: nowhere. identity:
    what makes it the same search. Raises UsageError for a target that cannot be reached, for a search of
    something else in the folder, and where the uniform schedule gives NaN.
    """
    study = _open(folder, identity or {})
    base = space.resolve(plan.options)
    space.uniform(plan.target, base)  # or says that the target cannot be reached
    for stale in study.get_trials(deepcopy=False, states=(_states().RUNNING,)):  # its process was killed
        value = stale.user_attrs.get("tried", {}).get("disagreement")
        study.tell(stale.number, value, state=_states().FAIL if value is None else None)
    with _Progress(plan, study, probe, title) as progress:
        while not progress.finished:
            study.sampler = _sampler(plan, len(tried_of(study)))
            _begin(study, space, plan, base)
            trial = study.ask()
            started = time.monotonic()
            tried = _try(trial, probe, space, plan)
            trial.set_user_attr("tried", _plain(tried))
            trial.set_user_attr("seconds", time.monotonic() - started)
            if math.isnan(tried.disagreement):
                if tried.role == UNIFORM:
                    raise UsageError(
                        f"merge={space.method.name} at the uniform schedule gives outputs that are not "
                        "finite (NaN); there is nothing to start from: try precision=32, or other options"
                    )
                study.tell(trial, state=_states().FAIL)
            else:
                study.tell(trial, tried.disagreement)
            progress.show(tried)
    return tried_of(study)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The one that is closest to the unmerged model, the first of equals."""
    return min((t for t in tried if not math.isnan(t.disagreement)), key=lambda t: t.disagreement)


def read(folder: Path) -> list[Tried]:
    """Every schedule that the search in a folder tried, as `search` returned them."""
    import optuna

    return tried_of(optuna.load_study(study_name=_NAME, storage=_storage(folder)))


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder / FILE}"


def tried_of(study: optuna.Study) -> list[Tried]:
    return [
        _tried(trial.user_attrs["tried"])
        for trial in study.get_trials(deepcopy=False)
        if "tried" in trial.user_attrs and trial.state.is_finished()
    ]


def check_installed() -> None:
    """Raises UsageError where Optuna is missing."""
    import importlib.util

    if importlib.util.find_spec("optuna") is None or importlib.util.find_spec("cmaes") is None:
        raise UsageError("searching needs Optuna and cmaes: pip install 'pitome[search]'")


def _try(trial: optuna.Trial, probe: Probe, space: Space, plan: SearchPlan) -> Tried:
    """Evaluate one point of the space."""
    options = {option.name: _suggest(trial, option) for option in plan.searched}
    tilt, bend = (trial.suggest_float(name, -_SPREAD, _SPREAD) for name in ("tilt", "bend"))
    own = [trial.suggest_float(f"layer{layer}", -_SPREAD, _SPREAD) for layer in space.layers]
    role, resolved = trial.user_attrs.get("role", ""), space.resolve({**plan.options, **options})
    try:
        if role == UNIFORM:
            amount = space.uniform(plan.target, resolved)
        else:
            amount = space.project(plan.target, _logs(space, tilt, bend, own), resolved)
    except UsageError:
        if role == UNIFORM:
            raise
        amount = space.uniform(
            plan.target, space.resolve(plan.options)
        )  # these options cost too much to meet the target
        return Tried(trial.number, role or "unreachable", amount, options, math.nan, math.nan)
    value = evaluate(probe, space, amount, {**plan.options, **options})
    return Tried(trial.number, role, amount, options, space.share(amount.rule(), resolved), value)


def _logs(space: Space, tilt: float, bend: float, own: Sequence[float]) -> list[float]:
    """A straight line and a parabola over the depth, and what each layer adds."""
    depth = len(space.architecture.layers)
    places = [2 * layer / max(depth - 1, 1) - 1 for layer in space.layers]  # from -1 to 1
    return [tilt * t + bend * (t * t - 1 / 3) + d for t, d in zip(places, own, strict=True)]


def _suggest(trial: optuna.Trial, option: Option) -> Any:
    if option.choices:
        return trial.suggest_categorical(option.name, option.choices)
    return trial.suggest_float(option.name, option.low, option.high)


def _begin(study: optuna.Study, space: Space, plan: SearchPlan, base: Any) -> None:
    """Queue the first of the points to begin with that is not tried yet; one that a killed process was at
    counts as not tried."""
    if study.get_trials(deepcopy=False, states=(_states().WAITING,)):
        return
    done = {tried.role for tried in tried_of(study)}
    for role in ROLES:
        if role not in done:
            logs = published_logs(space) if role == PUBLISHED else [0.0] * len(space.layers)
            point = {f"layer{layer}": log for layer, log in zip(space.layers, logs, strict=True)}
            point |= {option.name: getattr(base, option.name) for option in plan.searched}
            point |= {"tilt": {"falling": -1.0, "rising": 1.0}.get(role, 0.0), "bend": 0.0}
            study.enqueue_trial(point, {"role": role})
            return


def published_logs(space: Space) -> list[float]:
    """The curve of DiffRate's published DeiT-S schedule at this depth, as a point of the space: after the
    same part of the layers the same share of the tokens is left, before all removals are scaled to the
    target. How much one layer removes beside another is kept within the limits of a search."""
    kept, depth = find_schedule(SHAPE).kept, len(space.architecture.layers)
    left = np.interp(np.linspace(0, 1, depth + 1), np.linspace(0, 1, len(kept) + 1), [kept[0], *kept])
    removed = 1 - left[1:] / left[:-1]
    logs = np.log(removed[list(space.layers)].clip(removed.max() * math.exp(-2 * _SPREAD)))
    middle = (logs.max() + logs.min()) / 2
    return [float(log) for log in (logs - middle).clip(-_SPREAD, _SPREAD)]


def _open(folder: Path | None, identity: Mapping[str, Any]) -> optuna.Study:
    """The study in `folder`, or a new one. Raises UsageError where another search is in it."""
    import optuna

    storage = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        storage = _storage(folder)
    study = optuna.create_study(storage=storage, study_name=_NAME, direction="minimize", load_if_exists=True)
    text = json.dumps(identity, sort_keys=True, default=str)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", text)
    elif known != text:
        before, now = json.loads(known), json.loads(text)
        other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        changed = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in other)
        raise UsageError(
            f"{folder} holds a search of something else ({changed}); give another search.folder, or "
            "overwrite=all to begin again"
        )
    return study


def _sampler(plan: SearchPlan, done: int) -> optuna.samplers.BaseSampler:
    """Of the next trial, seeded by how many are done, so that a search that was killed tries the same."""
    import optuna

    if plan.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=plan.seed + done, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(seed=plan.seed + done, multivariate=True, n_startup_trials=10)


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _plain(tried: Tried) -> dict[str, Any]:
    values = vars(tried) | {"amount": tried.amount.arguments()}
    return {key: None if value != value else value for key, value in values.items()}  # JSON has no NaN


def _tried(values: Mapping[str, Any]) -> Tried:
    amount = Amount(**{name: tuple(counts) for name, counts in values["amount"].items()})
    numbers = {
        key: math.nan if values[key] is None else float(values[key]) for key in ("share", "disagreement")
    }
    return Tried(values["number"], values["role"], amount, values["options"], **numbers)


class _Progress:
    """How far a search is: by trials or by minutes, whichever ends it first."""

    def __init__(self, plan: SearchPlan, study: optuna.Study, probe: Probe, title: str) -> None:
        self.plan, self.study, self.probe = plan, study, probe
        finished = [t for t in study.get_trials(deepcopy=False) if "seconds" in t.user_attrs]
        self.done = len(finished)
        self.seconds: float = sum(t.user_attrs["seconds"] for t in finished)
        tried = [t for t in tried_of(study) if not math.isnan(t.disagreement)]
        self.best = best_of(tried).disagreement if tried else math.inf
        self.clock = self.due = time.monotonic()
        self.bar = tqdm(
            total=1.0,
            desc=title,
            initial=self.part,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix}",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )
        self.title = title

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def spent(self) -> float:
        """Seconds, those before a restart counted."""
        return self.seconds + time.monotonic() - self.clock

    @property
    def part(self) -> float:
        """How much of the budget is used."""
        trials = self.done / self.plan.trials if self.plan.trials else 0.0
        minutes = self.spent / (60 * self.plan.minutes) if self.plan.minutes else 0.0
        return min(max(trials, minutes), 1.0)

    @property
    def finished(self) -> bool:
        """The uniform schedule is evaluated whatever the budget."""
        return self.part >= 1 and self.done > 0

    def show(self, tried: Tried) -> None:
        self.done += 1
        better = tried.disagreement < self.best
        if better:
            self.best = tried.disagreement
        left = self.spent / self.part - self.spent if self.part else 0.0
        what = "NaN" if math.isnan(tried.disagreement) else f"{tried.disagreement:.5f}"
        text = f"trial {tried.number}: {what}, best {self.best:.5f}, about {left / 60:.1f} min left"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(self.part - self.bar.n)
        now = time.monotonic()
        if self.bar.disable and (tried.number == 0 or now >= self.due or what == "NaN"):
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
            self.due = now + _LINE_SECONDS
