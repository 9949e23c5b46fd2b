"""What `python run.py` does: help, checks, jobs, the table at the end, the exit code."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pitome.errors import PitomeError, UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pitome.config import Config
    from pitome.runs.job import Finished


def main(argv: list[str]) -> int:
    """Run the command line `argv`. Returns the exit code: 0, 2 for a user's error, 1 for any other."""
    if {"-h", "--help"} & set(argv):
        from pitome.cli.help import help_text
        from pitome.config import CONF, own_folder

        with contextlib.suppress(BrokenPipeError):  # `| head` has read enough
            print(help_text(CONF, own_folder()), flush=True)
            return 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is Python to try at its end
        return 0
    # Hydra then raises its errors instead of printing them over many lines and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
    except ModuleNotFoundError as problem:
        return _say(f"{problem.name} is not installed; run `make setup`, then use .venv/bin/python run.py")

    from pitome.runs import experiments
    from pitome.runs.compose import check_command_line, check_places, explain, register_schema

    register_schema()
    multirun = bool({"-m", "--multirun"} & set(argv))
    if multirun:  # Hydra's parser wants it in front
        argv = ["-m", *(word for word in argv if word not in ("-m", "--multirun"))]
    looks = {"--cfg", "-c", "--info", "-i"} & {word.partition("=")[0] for word in argv}
    try:
        if multirun and looks:
            raise UsageError(f"-m and {min(looks)} do not go together; leave out -m and give one point")
        chosen = experiments.chosen_in(argv)
        if len(chosen) == 1 and (code := experiments.without_sweep(chosen[0], argv)) is not None:
            return code
        argv = experiments.expand(argv, multirun)
        before = ["", *argv]  # `--cfg job` is one flag in two words
        overrides = [
            word
            for last, word in zip(before, argv, strict=False)
            if not word.startswith("-") and last not in ("--cfg", "-c")
        ]
        points = check_command_line(overrides, multirun)
        if not looks:
            check_places([config for config, _ in points])
        return _run(argv, [one.word for one in chosen])
    except PitomeError as problem:
        return _say(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return _say(explain(problem))
    except KeyboardInterrupt:
        print("\nstopped; finished runs are recorded, the same command goes on from there", file=sys.stderr)
        return 130


def _run(argv: list[str], experiments: list[str]) -> int:
    import hydra
    from hydra.plugins.sweeper import Sweeper

    from pitome.config import CONF

    multirun, group = bool({"-m", "--multirun"} & set(argv)), group_of(argv, experiments)
    since = datetime.now(UTC)
    configs: list[DictConfig] = []
    finished: dict[int, Finished] = {}
    later: dict[int, Any] = {}  # what another process was on, with Hydra's own configuration

    def job(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        from pitome.runs.job import run

        if multirun and config.logger.group is None:
            config.logger.group = group
        configs.append(config)
        if (one := run(config, since=since, wait=False)) is not None:
            finished[len(configs) - 1] = one
        else:
            later[len(configs) - 1] = HydraConfig.instance().cfg

    # Every point was composed and checked before; Hydra's sweeper would do so once more.
    Sweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    sys.argv = ["run.py", *argv]
    hydra.main(config_path=str(CONF.resolve()), config_name="config", version_base="1.3")(job)()
    if later:
        finished |= _catch_up(configs, later, since)
    if not finished:  # --cfg, --info and the like
        return 0
    ordered = [finished[i] for i in range(len(configs))]
    every = [run for one in ordered for run in one.runs]
    for one in every:
        if one.exit_code:
            _say(one.record.error or "failed")
    from omegaconf import OmegaConf

    typed: list[Config] = [OmegaConf.to_object(config) for config in configs]  # type: ignore[misc]
    if any(one.record.done for one in every):
        from pitome.runs.summary import show

        show(ordered, typed)
    if experiments:
        from pitome.report.items import show_outcome
        from pitome.runs.sweep_log import log_sweep

        store = ordered[0].store
        tables = [show_outcome(word, store) for word in experiments]
        log_sweep(typed[0].logger, tables, None, store.folder.parent)
    return max((one.exit_code for one in every), default=0)


def group_of(argv: list[str], experiments: list[str]) -> str:
    """The name of a sweep in W&B: its experiments, or what it asks for; the same when it goes on."""
    if experiments:
        return " ".join(experiments)
    told = ("logger", "results", "rerun", "device", "hydra")
    words = [
        word for word in argv if not word.startswith("-") and word.split("=")[0].split(".")[0] not in told
    ]
    text = " ".join(sorted(words))
    return text if len(text) <= 100 else f"{text[:91]} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _catch_up(configs: list[DictConfig], later: dict[int, Any], since: datetime) -> dict[int, Finished]:
    """The runs that another process was on: its records, or made here where it was stopped."""
    from hydra.core.hydra_config import HydraConfig

    from pitome.runs.job import run

    print(f"waiting for {len(later)} runs that another process is on")
    finished = {}
    for number, hydra_config in later.items():
        HydraConfig.instance().cfg = hydra_config  # whose command the card of a training names
        one = run(configs[number], since=since)
        assert one is not None
        finished[number] = one
    return finished


def _say(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2
