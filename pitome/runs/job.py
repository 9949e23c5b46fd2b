"""One run: build, patch, evaluate or train, measure, record. An error never ends the sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger

from pitome.adapters.patch import AnyPatched
from pitome.adapters.place_patch import PatchedPlace
from pitome.config import Config, MergeConfig, custom_model, model_label, portable
from pitome.errors import (
    Interrupted,
    MemoryShortageError,
    MissingDeviceError,
    PitomeError,
    UsageError,
    one_line,
    redact,
)
from pitome.fields import decode, recorded
from pitome.merge.schedule import Reduction
from pitome.records import code
from pitome.records.claims import Taken, claim
from pitome.records.identity import RESIZE, RESULT_VERSION, UNMERGED, build_identity, fingerprint, run_id
from pitome.records.schema import (
    DONE,
    FAILED,
    INTERRUPTED,
    DataRecord,
    Headline,
    MethodInfo,
    ModelInfo,
    Record,
    WeightsInfo,
)
from pitome.records.store import Store
from pitome.runs import control
from pitome.runs.environment import resolve_device
from pitome.runs.measured import Measured, Setup, measure, measure_on, train_on
from pitome.runs.token_pictures import of_run
from pitome.runs.validate import import_modules, training_of, validate
from pitome.sources.hub import say
from pitome.sources.images import ImageRules
from pitome.tasks.base import Layers, Task, task_class
from pitome.tasks.loading import is_dead_worker
from pitome.tasks.loggers import close_logger, open_logger, open_training, training_key
from pitome.tasks.memory import is_out_of_memory
from pitome.tasks.training import key_of, write_card


@dataclass(frozen=True)
class Finished:
    """What a run leaves for the end of the sweep."""

    record: Record
    store: Store
    repeated: bool = True  # False where the record was there already
    exit_code: int = 0  # 2 for a user's error, 1 for any other
    control: Finished | None = None  # the run that was asked for beside it

    @property
    def runs(self) -> list[Finished]:
        """This run and its control."""
        return [self] if self.control is None else [self, self.control]


def run(
    config: Config, *, since: datetime | None = None, wait: bool = True, command: str = "python run.py"
) -> Finished | None:
    """Run one configuration, and its control if one is asked for. Errors become a failed record; only
    ctrl-C passes through.

    since: when the command began. What another process has recorded after that is not repeated, not
    even where it failed, or with overwrite=all. wait: for another process that is on this run; None is
    returned otherwise. command: what a card of trained weights names.
    """
    since = since or datetime.now(UTC)
    finished = _attempt(config, lambda config: Job(config, since=since, wait=wait, command=command))
    share = control.budget(config, finished.record) if finished is not None else None
    if finished is None or share is None:
        return finished
    # Several runs may share a control, and it is short: waiting is no loss.
    controlled = _attempt(control.configuration(config), lambda config: Job(config, share, since=since))
    return dataclasses.replace(finished, control=controlled)


def lost(config: Config, reason: str, since: datetime) -> Finished:
    """A run whose process ended before it could record anything, recorded as failed."""
    job = Job(config, since=since)
    job.method = MethodInfo(name=config.merge.name, asked=asked_of(config, validate(config)))
    return Finished(job.failed(PitomeError(reason)), job.store, exit_code=1)


def _attempt(config: Config, make: Callable[[Config], Job]) -> Finished | None:
    """A run; where a process that loads data dies, once more without such processes."""
    try:
        return _finish(make(config), again=True)
    except RuntimeError as problem:
        say(f"{one_line(problem)}; once more with workers=0 trainer.workers=0")
    trainer = dataclasses.replace(config.trainer, workers=0)
    return _finish(make(dataclasses.replace(config, workers=0, trainer=trainer)))


def _finish(job: Job, *, again: bool = False) -> Finished | None:
    with job.claims:  # until a failure is recorded as well
        try:
            return job.run()
        except Taken:
            return None
        except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
            # SystemExit: what Lightning makes of Ctrl-C
            cause = stop.__context__ if isinstance(stop, SystemExit) else stop
            if isinstance(cause, Interrupted | KeyboardInterrupt):
                name = "SIGTERM" if isinstance(cause, Interrupted) else "Ctrl-C"
                reason = UsageError(f"stopped by {name}; the same command continues from there")
                job.failed(reason, INTERRUPTED)
            raise cause or stop from None
        except MissingDeviceError as problem:  # which says nothing about the run
            return Finished(job.failed(problem, save=False), job.store, exit_code=2)
        except PitomeError as problem:
            return Finished(job.failed(problem), job.store, exit_code=2)
        except Exception as problem:
            if is_dead_worker(problem) and again:
                raise
            if is_dead_worker(problem) or is_out_of_memory(problem):
                short = MemoryShortageError(one_line(problem))
                return Finished(job.failed(short), job.store, exit_code=2)
            if (refused := job.refused(problem)) is not None:
                return Finished(job.failed(refused), job.store, exit_code=2)
            print(redact(traceback.format_exc()), file=sys.stderr, end="")
            return Finished(job.failed(problem), job.store, exit_code=1)


class Job:
    """The steps of one run, and what is known of it so far in case it fails."""

    def __init__(
        self,
        config: Config,
        share: float | None = None,
        *,
        since: datetime,
        wait: bool = True,
        command: str = "",
    ) -> None:
        """share: run the control `resize` at this share of the unmerged cost, and merge nothing."""
        self.asked, self.share = config, share
        self.tested = config  # another one than `asked` once weights were trained
        self.since, self.wait, self.command = since, wait, command
        self.claims = contextlib.ExitStack()
        self.store = Store(Path(config.results))
        self.started = datetime.now(UTC).isoformat(timespec="microseconds")
        self.clock = time.monotonic()
        # What stands in the record of a run that fails before its data and weights are known.
        self.data = DataRecord(name=config.data.name, source=config.source, limit=config.limit)
        name = config.weights or "pretrained"
        self.weights = WeightsInfo(name=name, source="unknown", random=name == "random")
        self.model = ModelInfo(name=model_label(config.model))
        self.method = MethodInfo(name=config.merge.name)
        self.settings: dict[str, Any] = {}
        self.headline = Headline(name="score")
        self.code: dict[str, str] = {}
        self.identified = False
        self.logger: Logger | None = None

    def run(self) -> Finished:
        config = self.asked
        device = resolve_device(config.device, config.devices)
        kind = task_class(config.task.name)
        self.headline = kind.headline
        import_modules(config.imports)
        amount = validate(config) if self.share is None else Reduction()
        self.method = MethodInfo(name=config.merge.name, asked=asked_of(config, amount))
        self.store.prepare()
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        folder = None
        if config.mode == "train":
            training, growth = training_of(config, amount)
            self._claim(f"train-{config.task.name}-{key_of(training, growth, kind.train_split(config))}")
            if config.devices > 1:
                train_on(config.devices, device, training, growth)
            self.tested, folder = kind.train(training, growth, device, self._open_training)
            self.tested = dataclasses.replace(self.tested, merge=config.merge)
            if amount.ratio == 1.0:  # trained without merging, so tested without
                self.tested = dataclasses.replace(self.tested, merge=MergeConfig(name=UNMERGED))
        config = self.tested
        setup = Setup(config, amount, self.share, None, "")
        task, patched, resized = setup.build()
        self.model = ModelInfo(name=model_label(config.model) + task.note)
        self.settings = task.settings
        layers = task.layers(patched)
        self.method = resized or method_info(patched, asked_of(config, amount), layers)
        self._identify(task)
        self.store.check_replaceable(run_id(self._identity()))
        known = self._known()
        if known is None:
            self._claim(run_id(self._identity()))
            known = self._known()  # another process may just have finished it
        if known is not None:
            # Perhaps it was asked in other words then: a table shows those of this run.
            known = dataclasses.replace(known, method=self.method)
            close_logger(self.logger, {})  # of a training that gave weights which were tested before
            return Finished(known, self.store, repeated=False, exit_code=0 if known.done else 2)

        # Before it runs: nobody may edit the files meanwhile.
        self.code = code.digests([kind.__module__, *(patched.modules if patched is not None else ())])
        name = run_name(config.model.name, self.method)
        key = run_id(self._identity()) if folder is None else training_key(self.asked)
        self.logger = self.logger or open_logger(
            config.logger, name, portable(config), self.store.folder.parent, key
        )
        # Finished samples of a killed run count where the same code made them.
        made_by = fingerprint({k: v for k, v in self.code.items() if k != code.PACKAGE})[:8]
        partial = self.store.folder / f"{run_id(self._identity())}.{made_by}.jsonl"
        setup = dataclasses.replace(setup, partial=partial, name=name)
        for left in self._partial():
            if config.overwrite or not left.name.startswith(partial.stem):
                left.unlink(missing_ok=True)
        batches = -(-(self.data.n_samples or 1) // config.batch_size)
        devices = min(config.devices, batches)
        if devices < config.devices:
            say(f"batch_size={config.batch_size} makes {batches} batches, so {devices} devices are used")
        if devices > 1:
            measured: Measured | None = measure_on(devices, device, setup)
        else:
            measured = measure(task, patched, device, setup, self.logger)
        assert measured is not None  # as it is of ranks but the first
        self.data = decode(DataRecord, measured.data)
        result, random = measured.evaluation, self.weights.random
        record = dataclasses.replace(
            self._record(DONE),
            metrics={key: None if random else value for key, value in result.metrics.items()},
            cost=measured.cost,
            throughput=measured.throughput,
            tokens=layers.tokens,
            peak_memory_bytes=measured.peak_memory,
            batch_size=result.batch_size or config.batch_size,
            environment=dataclasses.replace(measured.environment, devices=devices),
        )
        record = self.store.save(record, result.outcomes)
        for left in self._partial():
            left.unlink(missing_ok=True)
        picture = None
        if config.logger.name == "wandb" and patched is not None:
            patched.remove()
            picture = of_run(task, config)
        close_logger(
            self.logger, numbers(record), picture, outcomes=result.outcomes, lower=lower_is_better(record)
        )
        self.logger = None
        if folder is not None:
            # beside the weights, under their name
            write_card(folder, Path(config.weights or "").stem, self.command, facts(record))
        return Finished(record, self.store)

    def _open_training(self) -> Logger | None:
        """The logger of a training, which its test goes on with."""
        self.logger = open_training(self.asked)
        return self.logger

    def _partial(self) -> Iterator[Path]:
        """The files of samples that this run, or one that was killed, has finished."""
        return self.store.folder.glob(f"{run_id(self._identity())}*.jsonl")

    def _claim(self, key: str) -> None:
        """Keep other processes away from a run or a training. Raises Taken."""
        self.claims.enter_context(claim(self.store.folder, key, wait=self.wait))

    def _known(self) -> Record | None:
        """The record of this run if it need not be made."""
        record = self.store.load(run_id(self._identity()))
        if record is None:
            return None
        # A time in the future tells of a clock that was set back, not of another process.
        if self.since <= datetime.fromisoformat(record.started) <= datetime.now(UTC):
            return record if not record.done else self.store.finished(record.run_id)
        if self.tested.overwrite == "all" or not record.done:
            return None
        if self.tested.overwrite == "changed" and code.changed(record):
            return None
        if code.own_changed(record):
            say(f"merge={self.method.name} has changed since run {record.run_id}, which is repeated")
            return None
        return self.store.finished(record.run_id)

    def failed(self, problem: Exception, status: str = FAILED, *, save: bool = True) -> Record:
        """The record of this run with the reason it did not end, kept unless a finished one is there, or
        without `save`. Before
        its data and weights are known a run goes by what it was asked; tables leave it out once a run of the
        same method is done."""
        close_logger(self.logger, {}, failed=True)
        reason = one_line(problem) or type(problem).__name__
        if not isinstance(problem, PitomeError):
            reason = f"{type(problem).__name__}: {reason}"
        record = dataclasses.replace(self._record(status), error=reason)
        if not self.identified:
            identity = record.identity | {"asked": self.method.asked, "options": self.tested.merge.options}
            record = dataclasses.replace(record, identity=identity, run_id=run_id(identity))
        try:
            return self.store.save(record) if save else record
        except PitomeError:
            return record  # the folder cannot be written, which may be the very reason

    def refused(self, problem: Exception) -> UsageError | None:
        """What a library raises where the command line changes the model's settings: the model is built,
        patched and run on one sample before it is identified. None for other errors, such as those of code
        of a user's own."""
        config, label = self.asked, model_label(self.asked.model)
        if self.identified or config.mode == "train" or config.imports or label == config.model.name:
            return None
        return UsageError(f"model={label} cannot be used ({type(problem).__name__}: {one_line(problem)})")

    def _identify(self, task: Task) -> None:
        self.weights = WeightsInfo(**task.weights.record(task.sha256))
        self.model = ModelInfo(
            name=self.model.name,
            family=task.family,
            params=sum(p.numel() for p in task.model.parameters()),
        )
        self._know_data(task)
        self.identified = True

    def _know_data(self, task: Task) -> None:
        self.data = decode(DataRecord, task.info.record())

    def _identity(self) -> dict[str, Any]:
        config = self.tested
        images = ImageRules.of(config.data.max_pixels, config.data.exif).settings()
        part = {"weights_key": config.weights_key} if config.weights_key is not None else {}
        return build_identity(
            task=config.task.name,
            model=self.model.name,
            weights_sha256=self.weights.sha256,
            data=self.data.name,
            revision=self.data.revision,
            split=self.data.split,
            limit=self.data.limit,
            method=self.method.name,
            options=self.method.options,
            schedule=self.method.schedule,
            precision=config.precision,
            seed=config.seed,
            measure=config.measure,
            settings=self.settings | images | custom_model(config.model) | part,
        )

    def _record(self, status: str) -> Record:
        config, identity = self.tested, self._identity()
        return Record(
            run_id=run_id(identity),
            status=status,
            error=None if status == DONE else "",
            task=config.task.name,
            mode=config.mode,
            seed=config.seed,
            precision=config.precision,
            measure=config.measure,
            result_version=RESULT_VERSION,
            started=self.started,
            seconds=round(time.monotonic() - self.clock, 3),
            identity=identity,
            config=portable(config),
            data=self.data,
            weights=self.weights,
            model=self.model,
            method=self.method,
            headline=self.headline,
            code=self.code,
        )


def asked_of(config: Config, amount: Reduction) -> dict[str, Any]:
    """How much merges, as the user wrote it, with what merges in a tower beside a method after it."""
    tower = {} if config.task.tower is None else {"tower": f"{config.task.tower} {config.task.tower_ratio:g}"}
    return amount.asked() | tower


def method_info(patched: AnyPatched | None, asked: dict[str, Any], layers: Layers) -> MethodInfo:
    """What merges in a patched model; the method `none` where there is no patch."""
    if patched is None:
        return MethodInfo(name=UNMERGED)
    ratios = () if isinstance(patched, PatchedPlace) else patched.schedule.ratios or ()
    merging = {ratio for ratio in ratios if ratio != 1.0}
    return MethodInfo(
        name=patched.method.name,
        options=recorded(patched.options),
        asked=asked,
        ratio=merging.pop() if len(merging) == 1 else None,
        schedule=layers.schedule,
        place=patched.place if isinstance(patched, PatchedPlace) else None,
    )


def run_name(model: str, method: MethodInfo) -> str:
    """What a run is called: its model and method with the requested reduction, or the size of the control."""
    parts = method.options if method.name == RESIZE else method.asked
    return " ".join([model, method.name, *(f"{key}={value}" for key, value in parts.items())])


def lower_is_better(record: Record) -> set[str]:
    """Those of a record's `numbers`: costs, memory, and a headline that says so."""
    keys = {key for key in numbers(record) if key.startswith("cost/") or "memory" in key}
    return keys | {"n_skipped"} | (set() if record.headline.higher_is_better else {record.headline.name})


def numbers(record: Record) -> dict[str, float | None]:
    """The record's numbers by name, for loggers."""
    out = dict(record.metrics)
    for prefix, part in (("cost", record.cost), ("throughput", record.throughput)):
        values = dataclasses.asdict(part) if part is not None else {}
        out |= {f"{prefix}/{key}": value for key, value in values.items() if isinstance(value, int | float)}
    out |= {"n_samples": record.data.n_samples, "n_skipped": record.data.n_skipped}
    return out


def command_of(words: Iterable[str]) -> str:
    """The command of a run with these overrides, as it would be typed again elsewhere: without where
    results go."""
    return redact(" ".join(["python run.py", *(word for word in words if not word.startswith("results="))]))


def facts(record: Record) -> dict[str, object]:
    """What a card says of trained weights."""
    score = "null" if record.score is None else f"{record.score:.4f}"
    method = record.method.name + "".join(f" {k}={v}" for k, v in record.method.asked.items())
    return {
        "data": f"{record.data.name}, {record.data.split} split, revision {record.data.revision}",
        f"test {record.headline.name}": f"{score} on {record.data.n_samples} samples",
        "merging": method,
        "seed": record.seed,
        "precision": record.precision,
        "parameters": record.model.params,
        "sha256": record.weights.sha256,
        "device": record.environment.device if record.environment else "unknown",
        "versions": ", ".join(
            f"{k} {v}" for k, v in (record.environment.versions if record.environment else {}).items()
        ),
    }
