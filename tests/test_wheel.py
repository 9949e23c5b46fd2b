"""The wheel of `pip install .`: works elsewhere, with the core dependencies alone; with the extras it is the
command `pitome`, which needs no clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from packaging.requirements import Requirement

import pitome
from tests import ROOT

SCRIPT = """
import sys
from importlib.machinery import PathFinder

WHEEL, PLUGIN = sys.argv[1:]
sys.path[:0] = [WHEEL, PLUGIN]


class Core(PathFinder):
    '''What `pip install .` does not bring is not there.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {NAMES} else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Core

import pitome

assert pitome.__file__.startswith(WHEEL), pitome.__file__
assert "torch" not in sys.modules
from pitome import flops, methods, patch, register, remove, throughput  # as a user would

import timm
import torch

assert {"pitome", "tome", "stride", "swap"} <= set(methods()), methods()


@register("mine")
def mine(tokens, remove, options):
    return pitome.Plan(*pitome.merge.methods.stride.stride(tokens, remove, options).__dict__.values())


model = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64).eval()
images = torch.zeros(2, 3, 64, 64)
with torch.no_grad():
    unmerged = model(images)
    for name in ("pitome", "swap", "mine"):
        with patch(model, name, ratio=0.75) as patched:
            assert model(images).isfinite().all()
            assert patched.tokens == [17, 13, 10, 8], patched.tokens
            assert 0.5 < flops(model).share < 1
    patch(model, "tome", flops=0.8)
    assert 0.7 < flops(model).share <= 0.8
    assert throughput(model, images, seconds=0.1) is not None
    remove(model)
    assert torch.equal(model(images), unmerged)
print("works")
"""
PACKAGES = ("pitome", "hydra_plugins")
DATA = ("conf", "experiments", "results/published", "results/bench")
PLUGIN = """
import pitome
from pitome.merge import registry

@pitome.register("swap")
def swap(tokens, remove, options):
    return registry.get("stride").plan(tokens, remove, options)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that pip asks, from a copy without anything that is not listed."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, *DATA):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


def needed_by(names: list[str]) -> set[str]:
    """These distributions and all that they require, extras aside."""
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            required = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:  # of another platform
            continue
        names += [one.name for one in required if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"pitome-{pitome.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"pitome-{pitome.__version__}.dist-info"}
    code = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert code == {name for name in names if name.endswith(".py")}
    read = {path for path in (ROOT / "pitome").rglob("*") if path.suffix not in (".py", ".pyc", ".md")}
    missing = {str(path.relative_to(ROOT)) for path in read if path.is_file()} - set(names)
    assert not missing
    data = {
        path
        for name in DATA
        for path in (ROOT / name).rglob("*")
        if path.suffix in ((".md",) if name.endswith("bench") else (".yaml", ".json", ".csv"))
    }
    assert {f"pitome/{path.relative_to(ROOT)}" for path in data} == {
        name for name in names if name.startswith(tuple(f"pitome/{folder}/" for folder in DATA))
    }
    assert wheel.stat().st_size < 14e6  # mostly weights; outcomes of single samples stay in the repository


def test_it_works_outside_the_repository_without_the_extras(wheel: Path, tmp_path: Path) -> None:
    package, plugin = tmp_path / "wheel", tmp_path / "plugin"
    zipfile.ZipFile(wheel).extractall(package)
    info = plugin / "swapping-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: swapping\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pitome.methods]\nswap = swapping\n")
    (plugin / "swapping.py").write_text(PLUGIN)
    (metadata,) = package.glob("*.dist-info/METADATA")
    extras = re.findall(r"Requires-Dist: ([\w-]+).*extra ==", metadata.read_text())
    assert {"hydra-core", "lightning", "wandb"} <= set(extras)
    core = needed_by(re.findall(r"Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata.read_text()))
    assert {"torch", "timm", "filelock"} <= core and not {"hydra-core", "lightning"} & core
    blocked = {name.replace("-", "_") for name in set(extras) - core} | {"hydra", "omegaconf"}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{NAMES}", repr(sorted(blocked))))
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(package), str(plugin)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "works\n"


@pytest.fixture(scope="module")
def pitome_command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CompletedProcess]:
    """`pitome WORDS` of the unpacked wheel, called in a folder of its own that is no clone."""
    package, folder = tmp_path_factory.mktemp("site-packages"), tmp_path_factory.mktemp("anywhere")
    zipfile.ZipFile(wheel).extractall(package)
    (info,) = package.glob("*.dist-info/entry_points.txt")
    assert "pitome = pitome.cli.command:main" in info.read_text()

    def call(*words: str, code: int = 0) -> CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", "pitome", *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(package)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stderr
        return done

    call.folder = folder  # type: ignore[attr-defined]
    return call


def test_the_command_runs_and_reports_in_any_folder(pitome_command, images: Path) -> None:
    small = ("model.args.depth=4", "model.args.embed_dim=16", "weights=random", "logger=none", "limit=10")
    done = pitome_command("run", "-m", f"data.root={images}", *small, "merge=tome,random", "ratio=0.9")
    assert "tome" in done.stdout and "random" in done.stdout
    runs = list((pitome_command.folder / "results" / "runs").glob("*.json"))
    assert len(runs) == 2 and all('"git_revision": null' in run.read_text() for run in runs)
    done = pitome_command("report", "table5_offline")
    assert "vit_fmnist" in done.stdout and "88.52" in done.stdout  # the published records are there
    assert (pitome_command.folder / "results" / "reports" / "table5_offline.csv").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--version", 0, f"pitome {pitome.__version__}\npython 3."),
        ("help", 0, "pitome run task=retrieval"),
        ("run --help", 0, "  pitome run merge=tome r=16"),
        ("tokens --help", 0, "usage: pitome tokens"),
        ("report --help", 0, "pitome report [WHAT ...]"),
        ("merge=tome", 2, "write pitome run merge=tome ...;"),
        ("bench", 2, "`make bench` in a clone"),
        ("run table5", 2, "write -m experiment=table5"),
    ],
)
def test_words_that_the_command_answers_at_once(pitome_command, words: str, code: int, said: str) -> None:
    done = pitome_command(*words.split(), code=code)
    assert said in done.stdout + done.stderr
    assert code == 0 or len(done.stderr.splitlines()) == 1
