"""What `python scripts/show_tokens.py` does: checks, one picture, the exit code."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pitome.errors import PitomeError, UsageError, as_typed, nearest, print_error
from pitome.merge.schedule import AMOUNTS

if TYPE_CHECKING:
    from pitome.config import Config
    from pitome.merge.schedule import Reduction
    from pitome.sources.images import Picture

FOLDER = Path("results/pictures")
METHODS = "merge=pitome,tome"
PHOTO_MODEL = "model=deit_s"  # sees 224 pixels
_CHOOSES = re.compile(r"\W*(task|model|data)\b")
OWN = ("image", "out", "after", "max_pixels")
VARIED = ("merge", *AMOUNTS, "layers")  # what may differ on one page
SHARED = ("task", "model", "data", "source", "weights", "device", "seed", "imports")

HELP = """\
Which patches of an image ended up in one token: method below method, layer beside layer, as PNG.

usage: python scripts/show_tokens.py [KEY=VALUE ...]

  image=       an image file or the index of a test sample, or several with commas;
               without it: one test image per class
  task=        (classification); of the others the first test images, or texts, are shown
  merge=       methods, with commas (pitome,tome)
  ratio=       also r=, flops=, schedule=, inflection=, layers= and merge.options.NAME=; several with commas
  model=       (of a photo deit_s with random weights, else vit_fmnist)
  weights=     also seed=, device=, data=, source=, imports=
  after=       how many layers have passed in the pictures shown, e.g. after=1,6,12
  out=         the PNG file (results/pictures/...); a GIF shows layer after layer
  max_pixels=  larger images are refused (50000000)

python run.py --help lists all models, methods and data.

examples:
  python scripts/show_tokens.py merge=pitome,tome ratio=0.9
  python scripts/show_tokens.py image=photo.jpg model=deit_s merge=pitome,tome,tofu ratio=0.9
  python scripts/show_tokens.py image=0 merge=pitome ratio=0.95,0.9,0.85 after=4,8,12
"""


@dataclass(frozen=True)
class Arguments:
    """What is the picture's own; images None: one test image per class."""

    images: list[str] | None
    out: Path | None
    after: list[int] | None
    max_pixels: int


def main(argv: list[str]) -> int:
    """Draw what `argv` asks for. Returns the exit code: 0, 2 for a user's error."""
    if {"-h", "--help"} & set(argv):
        print(as_typed(HELP))
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised, not printed over many lines
    try:
        print(_run(argv))
    except (PitomeError, OSError) as problem:
        return print_error(problem)
    except KeyboardInterrupt:
        return 130
    return 0


def _run(argv: list[str]) -> Path:
    """Everything that text and files decide is checked before torch is imported."""
    given, overrides = _split(argv)
    arguments = _read(given)
    try:
        from pitome.runs.compose import check_command_line, register_schema
        from pitome.runs.paths import quote_paths
    except ModuleNotFoundError as problem:
        raise UsageError(
            f"{problem.name} is not installed; run `make setup`, then use .venv/bin/python"
        ) from None

    register_schema()
    methods = _check(check_command_line(quote_paths(overrides, multirun=True), multirun=True), given)
    images = _open(arguments)
    path = arguments.out or _default_path(methods[0][0], arguments.images)

    from pitome.records.files import write_atomically
    from pitome.report.pictures.draw import labelled
    from pitome.runs.environment import resolve_device
    from pitome.runs.token_pictures import draw_runs
    from pitome.sources.hub import say

    device = resolve_device(methods[0][0].device)

    def draw(after: Sequence[int] | None) -> bytes:
        return draw_runs(methods, device, images, after)

    if path.suffix.lower() == ".gif":
        write_atomically(path, _animation(draw, arguments.after))
    else:
        write_atomically(path, labelled(draw(arguments.after), {"Command": _command(argv)}))
    if methods[0][0].weights == "random" and images is not None:
        say("the weights are random: colour and texture alone decide; weights=pretrained takes trained ones")
    return path


def _animation(draw: Callable[[Sequence[int]], bytes], after: Sequence[int] | None) -> bytes:
    """A GIF with a frame for each of `after`, or for every depth of the model."""
    from PIL import Image

    frames = []
    for depth in itertools.count() if after is None else after:
        try:
            frames.append(Image.open(io.BytesIO(draw([depth]))).convert("RGB"))
        except UsageError:  # deeper than the model
            if after is not None or len(frames) < 2:
                raise
            break
    content = io.BytesIO()
    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    whole = [Image.new("RGB", size, "white") for _ in frames]
    for page, frame in zip(whole, frames, strict=True):
        page.paste(frame)
    whole[0].save(content, format="gif", save_all=True, append_images=whole[1:], duration=700, loop=0)
    return content.getvalue()


def _command(argv: Sequence[str]) -> str:
    """What draws the same picture, with the names of files and without their places on a machine."""
    pairs = [word.partition("=") for word in argv if word.partition("=")[0] != "out"]
    words = [f"{key}={Path(value).name}" if os.sep in value else f"{key}={value}" for key, _, value in pairs]
    return " ".join(["python scripts/show_tokens.py", *words])


def _split(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The picture's own keys, and those of run.py."""
    given, overrides = {}, []
    for word in argv:
        if word in ("-m", "--multirun"):
            continue  # several values are always welcome here
        key, equals, value = word.partition("=")
        root = re.split(r"[.@]", key.lstrip("+~"))[0]
        if not equals or root not in (*OWN, *VARIED, *SHARED):
            raise UsageError(f"{word} cannot be used here; {nearest(root, [*OWN, *VARIED, *SHARED])}")
        if key in OWN:
            given[key] = value
        else:
            overrides.append(word)
    if not any(word.partition("=")[0] == "merge" for word in overrides):
        overrides.append(METHODS)
    images = given.get("image", "")
    files = [images] if os.path.isfile(images) else images.split(",")
    if images and not any(map(_is_whole, files)) and not any(_CHOOSES.match(word) for word in overrides):
        overrides.append(PHOTO_MODEL)
        if not any(word.startswith("weights=") for word in overrides):
            overrides.append("weights=random")
    return given, overrides


def _read(given: dict[str, str]) -> Arguments:
    from pitome.sources.images import MAX_PIXELS

    images = given.get("image")
    # A name with a comma is one file if there is such a file.
    parts = None if images is None else [images] if os.path.isfile(images) else images.split(",")
    if parts is not None and "" in parts:
        raise UsageError("image= is empty; give an image file or the index of a test sample")
    after = given.get("after")
    numbers = None if after is None else after.strip("[]").split(",")
    pixels = given.get("max_pixels", str(MAX_PIXELS))
    out = Path(given["out"]).expanduser() if "out" in given else None
    if numbers is not None and not all(_is_whole(number.strip()) for number in numbers):
        raise UsageError(f"after={after} is not a list of whole numbers; give e.g. after=1,6,12")
    depths = None if numbers is None else sorted({int(number) for number in numbers})
    if not _is_whole(pixels) or int(pixels) < 1:
        raise UsageError(f"max_pixels={pixels} is not a whole number >= 1")
    if out is not None and (out.suffix.lower() not in (".png", ".gif") or out.is_dir()):
        raise UsageError(
            f"out={given['out']} is not a PNG or GIF file; give a name that ends in .png or .gif"
        )
    return Arguments(parts, out, depths, int(pixels))


def _check(points: list[tuple[Config, Reduction]], given: dict[str, str]) -> list[tuple[Config, Reduction]]:
    """One model, one set of samples; methods and amounts may differ."""
    first = points[0][0]
    if "image" in given and first.task.name != "classification":
        raise UsageError("image= is for task=classification; leave it out for the first test samples")
    if any(config.keep is not None for config, _ in points):
        raise UsageError("a picture shows what merges inside an image tower; give ratio or r instead of keep")
    if "after" in given and first.task.name == "text":
        raise UsageError("after= is for images; a text is shown as it leaves the last layer, leave after out")
    for config, _ in points[1:]:
        same = replace(config, **{key: getattr(first, key) for key in VARIED})
        if same != first:
            raise UsageError(f"one picture has one model and one seed; only {', '.join(VARIED)} may vary")
    return points


def _open(arguments: Arguments) -> list[Picture | int] | None:
    from pitome.sources.images import read_image

    if arguments.images is None:
        return None
    return [
        int(word) if _is_whole(word) else read_image(word, arguments.max_pixels) for word in arguments.images
    ]


def _is_whole(word: str) -> bool:
    """Whether it is a whole number >= 0, of a size that can be meant."""
    return re.fullmatch(r"\d{1,18}", word) is not None


def _default_path(config: Config, images: Sequence[str] | None) -> Path:
    none = "classes" if config.task.name == "classification" else "samples"
    what = none if images is None else "-".join(Path(word).stem for word in images)
    return FOLDER / (re.sub(r"[^A-Za-z0-9._-]+", "_", f"{config.model.name}-{what}")[:100] + ".png")
