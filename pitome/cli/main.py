"""What `python run.py` does: help, checks, jobs, the table at the end, the exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pitome.errors import PitomeError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pitome.config import Config
    from pitome.tasks.job import Finished


def main(argv: list[str]) -> int:
    """Run the command line `argv`. Returns the exit code: 0, 2 for a user's error, 1 for any other."""
    if {"-h", "--help"} & set(argv):
        from pitome.cli.help import help_text
        from pitome.config import CONF

        print(help_text(CONF))
        return 0
    # Hydra then raises its errors instead of printing them over many lines and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
    except ModuleNotFoundError as problem:
        return _say(f"{problem.name} is not installed; run `make setup`, then use .venv/bin/python run.py")

    from pitome.cli.compose import check_command_line, explain, register_schema

    register_schema()
    overrides = [word for word in argv if not word.startswith("-")]
    multirun = bool({"-m", "--multirun"} & set(argv))
    try:
        check_command_line(overrides, multirun)
        return _run(argv)
    except PitomeError as problem:
        return _say(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return _say(explain(problem))
    except KeyboardInterrupt:
        print("\nstopped; finished runs are recorded, the same command goes on from there", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    import hydra

    from pitome.config import CONF

    finished: list[Finished] = []
    configs: list[Config] = []

    def job(config: DictConfig) -> None:
        from omegaconf import OmegaConf

        from pitome.tasks.job import run

        finished.append(run(config))
        configs.append(OmegaConf.to_object(config))  # type: ignore[arg-type]

    sys.argv = ["run.py", *argv]
    hydra.main(config_path=str(CONF.resolve()), config_name="config", version_base="1.3")(job)()
    if not finished:  # --cfg, --info and the like
        return 0
    every = [run for one in finished for run in one.runs]
    for one in every:
        if one.exit_code:
            _say(one.record.error or "failed")
    if any(one.record.done for one in every):
        from pitome.tasks.summary import show

        show(finished, configs)
    return max((one.exit_code for one in every), default=0)


def _say(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2
