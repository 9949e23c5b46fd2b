"""scripts/show_tokens.py: pictures of small models, and bad input in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitome.runs import show_tokens
from pitome.runs.show_tokens import OWN, main
from tests import ROOT
from tests.conftest import write_idx

SMALL = ("model.args.depth=3", "model.args.embed_dim=16", "weights=random")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 test images of noise; the label of image i is i % 10."""
    folder = tmp_path_factory.mktemp("fashion")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    write_idx(folder / "t10k-images-idx3-ubyte.gz", pixels)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.arange(30)[::-1] % 10)
    return folder


@pytest.fixture
def draw(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """draw(words) -> exit code, in an empty folder with a few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(photo).save("photo.png")
    Image.fromarray(photo).save("a,b.png")
    Image.new("L", (1, 1)).save("dot.png")
    Path("text.png").write_text("only a name")
    Path("folder.png").mkdir()
    return lambda *words: main([*SMALL, f"data.root={data}", *words])


def picture(capsys: pytest.CaptureFixture[str]) -> tuple[Path, np.ndarray]:
    path = Path(capsys.readouterr().out.strip())
    return path, np.asarray(Image.open(path))


def test_without_an_image_one_of_each_class(
    draw: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw("ratio=0.8") == 0
    path, page = picture(capsys)
    assert path == Path("results/pictures/vit_fmnist-classes.png")
    assert page.shape[1] > 10 * 14 * 10  # ten columns


@pytest.mark.parametrize("image", ["dot.png", "a,b.png", "photo.png,7"], ids=["pixel", "comma", "both"])
def test_files_and_indices(image: str, draw: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(f"image={image}", "merge=none,pitome,tofu", "r=20", "out=pictures/x.png", "after=0,2") == 0
    path, _ = picture(capsys)
    assert path == Path("pictures/x.png")
    assert Image.open(path).convert("RGB").getcolors(50) is None, "there are more than 50"


def test_methods_do_not_depend_on_those_in_front(draw: Callable[..., int]) -> None:
    """Also where methods and weights are drawn at random; and the same command gives the same picture."""
    assert draw("image=3", "merge=random,tome", "ratio=0.8", "out=a.png") == 0
    assert draw("image=3", "merge=tome,random", "ratio=0.8", "out=b.png") == 0
    first, swapped = (np.asarray(Image.open(f"{name}.png"))[:, 200:] for name in "ab")  # behind the names
    assert not (first == swapped).all()
    lines = {line.tobytes() for line in first}
    assert sum(line.tobytes() in lines for line in swapped) > 0.95 * len(swapped)


def test_several_amounts_of_one_method(draw: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("image=3", "merge=tome", "ratio=0.9,0.8,0.7") == 0
    _, page = picture(capsys)
    assert page.shape[0] > 3 * 200


BAD = {
    "image=text.png": "no image that can be read",
    "image=none.png": "no such file",
    "image=folder.png": "is a folder",
    "image=30": "test samples 0 to 29",
    "image=": "is empty",
    "image=photo.png,": "is empty",
    "image=photo.png max_pixels=1199": "more than max_pixels=1199",
    "max_pixels=0": "whole number >= 1",
    "max_pixels=many": "whole number >= 1",
    "after=1.5": "not a list of whole numbers",
    "after=4": "the model has 3 layers",
    "out=picture.jpg": "ends in .png",
    "out=folder.png": "not a PNG or GIF file",
    "out=photo.png/x.png": "cannot write",
    "merge=pitom": "did you mean pitome",
    "ratio=1.5": "outside (0, 1]",
    "imag=photo.png": "did you mean image",
    "limit=3": "limit=3 cannot be used here",
    "photo.png": "cannot be used here",
    "seed=1,2": "may vary",
    "merge.options.alpha=1": "merge.options.alpha",
    "layers=[7]": "layers",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(
    words: str, draw: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(*words.split()) == 2
    done = capsys.readouterr()
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and BAD[words] in lines[0], done.err


def test_what_text_and_files_decide_is_said_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "text.png").write_text("only a name")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def script(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "show_tokens.py"), *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
        )

    done = script("image=text.png", "weights=random")
    assert done.returncode == 2 and "no image that can be read" in done.stderr
    assert "torch was imported" in script("weights=random").stderr  # a valid command does need it
    done = script("--help")
    assert done.returncode == 0 and all(f"  {key}=" in done.stdout for key in OWN)


def test_an_animation_has_a_frame_for_every_depth(
    draw: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw("image=photo.png", "merge=tome", "ratio=0.8", "weights=random", "out=a.gif") == 0
    shown = capsys.readouterr()
    assert "the weights are random" in shown.err
    with Image.open(shown.out.strip()) as animation:
        assert animation.n_frames == 4  # before and after each of three blocks  # type: ignore[attr-defined]
    assert draw("image=photo.png", "weights=random", "out=b.gif", "after=1,3") == 0
    with Image.open("b.gif") as animation:
        assert animation.n_frames == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ("image=photo.png", "deit_s"),
        ("image=a,b.png", "deit_s"),
        ("image=3", None),
        ("image=photo.png,3", None),
        ("", None),
        ("image=photo.png model=clip_b16", "clip_b16"),
        ("image=photo.png model.args.depth=4", None),
    ],
)
def test_a_photo_is_seen_at_224_pixels(words: str, model: str | None, draw: Callable[..., int]) -> None:
    _, overrides = show_tokens._split(words.split())
    chosen = [word.partition("=")[2] for word in overrides if word.startswith("model=")]
    assert chosen == ([model] if model else [])
    assert ("weights=random" in overrides) is (model == "deit_s")
