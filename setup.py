"""What pyproject.toml cannot say: in a wheel the package holds conf/, experiments/, published records."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = (
    "conf/**/*.yaml",
    "experiments/*.yaml",
    "results/published/**/*.json",
    "results/published/**/*.csv",
    "results/bench/*.md",
)


class BuildWithData(build_py):
    """Copies DATA into the package that goes into a wheel; an editable install reads a clone's own."""

    def run(self) -> None:
        super().run()
        for pattern in DATA if not self.editable_mode else ():
            for path in Path().glob(pattern):
                target = Path(self.build_lib, "pitome", path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


setup(cmdclass={"build_py": BuildWithData})
