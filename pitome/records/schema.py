"""The record of one run: typed, versioned, JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pitome.errors import PitomeError, one_line
from pitome.fields import decode
from pitome.records.identity import build_identity, canonical, fingerprint, run_id

DONE, FAILED, INTERRUPTED = STATUSES = ("done", "failed", "interrupted")
SCHEMA_VERSION = 5
"""Raised when a field is added, removed or changes its meaning. Older records stay readable:
a field they lack takes its default."""
SEALED = 4
"""The first version whose files hold a digest of their content."""

MEASURES = ("none", "flops", "full")
"""What a run may measure of its cost, from least to most."""


class RecordError(PitomeError):
    """A record that cannot be written, or is damaged, or comes from a newer version."""


class NewerRecordError(RecordError):
    """A record that a newer version of this project wrote."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A sample that could not be read."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The samples a run has seen."""

    name: str
    revision: str | None = None
    split: str | None = None
    source: str | None = None  # hub, local or package
    limit: int | None = None  # None: the whole split
    selection: str | None = None  # how `limit` chooses
    n_samples: int | None = None  # evaluated
    n_skipped: int = 0  # could not be read
    skipped: list[Skipped] = field(default_factory=list)  # some of these
    bank: DataRecord | None = None  # of kNN: the training samples that vote
    n_truncated: int | None = None  # texts of which the model reads only the beginning


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """The weights of a run."""

    name: str
    source: str  # shipped, hub, or a file name without its folder
    sha256: str | None = None  # None: random or unknown
    random: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model of a run."""

    name: str
    family: str | None = None  # the adapter's name of the model's kind (deit, mae, ...)
    params: int | None = None  # parameter count


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """The merge method of a run."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)  # all options, with their defaults
    # as the user wrote it, e.g. {"ratio": 0.925} or {"flops": 0.8}
    asked: dict[str, Any] = field(default_factory=dict)
    ratio: float | None = None  # the single ratio that was applied, if there is one
    schedule: list[Any] | None = None  # one entry per layer, as in the identity
    # after the image tower of a vision-language model, where tokens go: `projector` (before the language
    # model) or `language` (before one of its layers); None: in the layers of an encoder
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The metric that tables and plots show, a share in [0, 1]."""

    name: str  # its key in `metrics`
    outcome: str | None = None  # the column of the per-sample outcomes whose mean it is
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class FixedLength:
    """Cost of a text of `tokens` tokens, special ones counted; the fields as in `Cost`."""

    tokens: int
    macs: int
    unmerged_macs: int
    authors_macs: int
    unmerged_authors_macs: int


@dataclass(frozen=True, kw_only=True)
class AnsweringCost:
    """Cost of one question about an image, at the median length of its text, after the image tower.

    unmerged_*: for the same model without merging. *_closed_form: from the schedule.
    """

    image_tokens: int  # rows that the language model reads
    unmerged_image_tokens: int
    prompt_tokens: int  # all tokens of the prompt, image tokens included
    unmerged_prompt_tokens: int
    projector_macs: int  # for one image
    unmerged_projector_macs: int
    prefill_macs: int  # the prompt, up to the first new token
    prefill_macs_closed_form: int
    unmerged_prefill_macs: int
    decode_macs: int  # one more token, with cached keys and values
    decode_macs_closed_form: int
    unmerged_decode_macs: int
    # in the language model's last layer, where tokens go before one of its layers; None: `image_tokens`
    left_image_tokens: int | None = None
    method_macs: int = 0  # of what decides after the image tower which tokens stay, counted as it ran
    method_macs_closed_form: int = 0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one sample, or the mean over the samples if their lengths differ. FLOPs = 2 MACs.

    unmerged_*: for the same model without merging.
    """

    macs: int  # counted on the patched model, as flops
    flops: int
    unmerged_macs: int
    unmerged_flops: int
    share: float  # flops / unmerged_flops
    macs_closed_form: int | None = None  # from the schedule
    plan_macs: int | None = None  # the part of macs spent on deciding what to merge
    authors_macs: int | None = None  # by the convention of the PiToMe repository
    unmerged_authors_macs: int | None = None
    fixed_length: FixedLength | None = None  # of texts: at one length, independent of the data
    # of image-text models, whose other costs are of the image tower: the image with its captions, or with a
    # question up to the first token of its answer
    total_macs: int | None = None
    unmerged_total_macs: int | None = None
    answering: AnsweringCost | None = None  # the parts of that question

    @property
    def question_share(self) -> float | None:
        """Of a whole question, tower and language model: its cost as a share of the unmerged model's; None
        where no question is answered."""
        if self.answering is None or self.total_macs is None or not self.unmerged_total_macs:
            return None
        return self.total_macs / self.unmerged_total_macs


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Merged and unmerged model, timed alternately in one run."""

    images_per_s: float  # samples of any kind
    images_per_s_unmerged: float
    speedup: float  # median of `pairs` ratios, with its 95 % interval
    speedup_low: float
    speedup_high: float
    pairs: int
    batch: int
    device: str
    threads: int
    tokens_per_s: float | None = None  # of texts: input tokens without padding
    tokens_per_s_unmerged: float | None = None
    # of generated answers: seconds until the whole batch has its first token
    first_token_s: float | None = None
    first_token_s_unmerged: float | None = None
    # of generated answers: tokens after the first, of the whole batch
    decode_tokens_per_s: float | None = None
    decode_tokens_per_s_unmerged: float | None = None
    # where tokens go after the image tower: parts of the time to the first token, seconds of a batch
    encoder_s: float | None = None  # image tower and projector
    encoder_s_unmerged: float | None = None
    method_s: float | None = None  # what decides which tokens stay
    prefill_s: float | None = None  # everything else: the prompt through the language model
    prefill_s_unmerged: float | None = None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where and with what a run was made."""

    device: str
    dtype: str
    devices: int = 1  # that shared the run
    threads: int | None = None
    attention: str | None = None  # the kernel's name
    git_revision: str | None = None
    git_dirty: bool | None = None  # whether the work tree differed from the revision
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OutcomesFile:
    """The per-sample outcomes that belong to this record and to no other; set by the store."""

    file: str
    sha256: str
    rows: int
    columns: list[str]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run."""

    run_id: str
    status: str  # done, failed or interrupted
    task: str
    mode: str  # test or train
    seed: int
    precision: str
    measure: str
    result_version: int
    started: str  # UTC in ISO 8601
    seconds: float  # wall time
    identity: dict[str, Any]
    config: dict[str, Any]
    data: DataRecord
    weights: WeightsInfo
    model: ModelInfo
    method: MethodInfo
    headline: Headline
    # shares in [0, 1] unless the name says otherwise; None: no meaning (accuracy of random weights)
    metrics: dict[str, float | None] = field(default_factory=dict)
    cost: Cost | None = None
    tokens: list[float] = field(default_factory=list)  # entering each block, then the final count
    throughput: Throughput | None = None
    peak_memory_bytes: int | None = None
    batch_size: int | None = None  # samples computed at once: less than asked for where memory was short
    environment: Environment | None = None
    error: str | None = None  # one line: why it failed or was interrupted
    outcomes: OutcomesFile | None = None
    code: dict[str, str] = field(default_factory=dict)  # module that decided the result -> digest of its code
    schema_version: int = SCHEMA_VERSION

    @property
    def done(self) -> bool:
        return self.status == DONE

    @property
    def score(self) -> float | None:
        """The headline metric."""
        return self.metrics.get(self.headline.name)


def to_json(record: Record) -> str:
    """The record as JSON text, with the digest of its content. Raises RecordError for a value that would
    not be read back."""
    record = dataclasses.replace(record, schema_version=SCHEMA_VERSION)
    try:
        values = json.loads(json.dumps(dataclasses.asdict(record), allow_nan=False))
    except (TypeError, ValueError) as problem:
        raise RecordError(
            f"run {record.run_id} has a value a record cannot hold: {one_line(problem)}"
        ) from None
    values["digest"] = fingerprint(values)
    text = json.dumps(values, indent=1, ensure_ascii=False)
    from_json(text, f"run {record.run_id}")
    return text + "\n"


def from_json(text: str | bytes, name: str) -> Record:
    """The record in `text`; `name` is what the error calls it.

    Raises RecordError if the text is damaged, was changed after it was written, or is of a newer version.
    """
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(values, dict) or not _is_version(values.get("schema_version")):
            raise RecordError(f"{name} is damaged: it has no schema_version")
        if values["schema_version"] > SCHEMA_VERSION:
            raise NewerRecordError(
                f"{name} was written by a newer version of pitome (schema {values['schema_version']}, "
                f"this one reads up to {SCHEMA_VERSION}): update pitome"
            )
        digest = values.pop("digest", None) if values["schema_version"] >= SEALED else None
        record = decode(Record, values)
        _check(record)
        if values["schema_version"] >= SEALED and digest != fingerprint(values):
            raise ValueError("its content is not what its digest was made of, so it was changed by hand")
    except json.JSONDecodeError as problem:
        raise RecordError(f"{name} is damaged: not valid JSON ({one_line(problem)})") from None
    except (ValueError, RecursionError) as problem:
        raise RecordError(f"{name} is damaged: {one_line(problem)}") from None
    return record


def _check(record: Record) -> None:
    """What the types cannot say. Raises ValueError."""
    if record.status not in STATUSES:
        raise ValueError(f"status is {record.status!r}, expected one of {', '.join(STATUSES)}")
    if datetime.fromisoformat(record.started).tzinfo is None:
        raise ValueError(f"started is {record.started!r}, expected a time with its zone")
    if record.measure not in MEASURES:
        raise ValueError(f"measure is {record.measure!r}, expected one of {', '.join(MEASURES)}")
    if (record.error is None) is not record.done:
        raise ValueError(f"status is {record.status} but error is {record.error!r}")
    if record.error is not None and record.error != " ".join(record.error.split()):
        raise ValueError("error is not a single line")
    if record.run_id != run_id(record.identity):
        raise ValueError(f"run_id {record.run_id} is not that of its identity")
    for key, value in _identity(record).items():
        known = canonical(record.identity.get(key))
        if key == "method" and record.method.schedule is None and isinstance(known, dict):
            known |= {"schedule": None}  # a record may leave it to its identity
        if known != canonical(value):
            raise ValueError(f"its {key} is not that of its identity")
    if record.weights.random and record.score is not None:
        raise ValueError(f"{record.headline.name} of random weights must be null")
    if record.score is not None and not 0 <= record.score <= 1:
        raise ValueError(f"{record.headline.name} is {record.score}, expected a share in [0, 1]")
    for name, number in _numbers(record):
        if number < 0:
            raise ValueError(f"{name} is {number}, expected no negative number")
    if record.cost is not None:
        _check_cost(record.cost)
    speed = record.throughput
    if speed is not None and not 0 < speed.speedup_low <= speed.speedup <= speed.speedup_high:
        raise ValueError(f"the speed-up {speed.speedup} is outside its interval")


def _check_cost(cost: Cost) -> None:
    """Numbers that follow from others. Raises ValueError."""
    for flops, macs in ((cost.flops, cost.macs), (cost.unmerged_flops, cost.unmerged_macs)):
        if flops != 2 * macs:
            raise ValueError(f"flops are {flops}, expected two for each of {macs} macs")
    if not math.isclose(cost.share * cost.unmerged_flops, cost.flops, rel_tol=1e-6):
        raise ValueError(f"cost.share is {cost.share}, but {cost.flops} of {cost.unmerged_flops} flops")


def _identity(record: Record) -> dict[str, Any]:
    """What the fields of a record say of its identity; a run that failed early adds what it was asked."""
    data, method = record.data, record.method
    identity = build_identity(
        task=record.task, model=record.model.name, weights_sha256=record.weights.sha256, data=data.name,
        revision=data.revision, split=data.split, limit=data.limit, method=method.name,
        options=method.options, schedule=method.schedule, precision=record.precision, seed=record.seed,
        measure=record.measure,
    )  # fmt: skip
    return identity | {"result_version": record.result_version}


def _numbers(part: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in the fields of a record, none of which can be negative, with their names; not those in
    mappings, whose keys are no fields."""
    if dataclasses.is_dataclass(part):
        for each in dataclasses.fields(part):
            yield from _numbers(getattr(part, each.name), f"{name}.{each.name}" if name else each.name)
    elif isinstance(part, list):
        for item in part:
            yield from _numbers(item, name)
    elif isinstance(part, int | float):
        yield name, part


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number")
