"""control=resize: the unmerged model on a smaller image at no more cost."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.flops import count_flops
from pitome.merge.costs import closed_form
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.runs.control import check_resizable, fit, grids
from pitome.tasks.classification.fashion_mnist import Images
from pitome.tasks.data import Preprocess
from pitome.tasks.images import as_tested
from pitome.tasks.measuring import architecture_of

Run = Callable[..., int]


def small(**changes: object) -> VisionTransformer:
    settings = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    return VisionTransformer(**(settings | changes)).eval()


def test_grids_go_down_one_row_or_column_at_a_time() -> None:
    assert list(grids(4, 4)) == [(4, 3), (3, 3), (3, 2), (2, 2), (2, 1), (1, 1)]
    square = list(grids(37, 37))
    assert all(0 <= rows - columns <= 1 for rows, columns in square) and len(square) == 72
    wide = list(grids(8, 16))
    assert all(abs(columns - 2 * rows) <= 2 for rows, columns in wide[:18])
    assert list(grids(1, 1)) == []


@pytest.mark.parametrize("changes", [{}, {"global_pool": "avg", "class_token": False}, {"reg_tokens": 3}])
def test_the_largest_grid_within_the_budget_as_counted(changes: dict[str, object]) -> None:
    def counted(rows: int, columns: int) -> int:
        size = (4 * rows, 4 * columns)
        return count_flops(small(**changes, img_size=size), torch.zeros(1, 3, *size)).macs

    with torch.device("meta"):
        whole, costs = counted(8, 8), {grid: counted(*grid) for grid in grids(8, 8)}
        model = small(**changes)
    for share in (0.95, 0.8, 0.5, 0.3):
        best = max((grid for grid, cost in costs.items() if cost <= share * whole), key=costs.__getitem__)
        found = fit(model, share)
        assert (found.height, found.width) == (4 * best[0], 4 * best[1])
        assert found.share == pytest.approx(costs[best] / whole, rel=1e-9)
        assert found.share <= share < found.larger
    assert model.patch_embed.grid_size == (8, 8) and model.pos_embed.shape[1] == 64 + model.num_prefix_tokens


def test_a_resized_model_is_timms_own_model_of_that_size() -> None:
    """Same weights but for the positions, which timm resamples."""
    torch.manual_seed(0)
    model = small()
    other = small(img_size=(28, 24))
    state = model.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"], new_size=[7, 6], old_size=[8, 8], num_prefix_tokens=1
    )
    other.load_state_dict(state)
    image = torch.randn(2, 3, 28, 24)
    model.set_input_size(img_size=(28, 24))
    with torch.no_grad():
        assert torch.equal(model(image), other(image))
    form = closed_form(architecture_of(model))
    assert form.tokens == (43, 43, 43) and form.macs == count_flops(model, image).macs


def test_models_of_one_size_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Linear cannot take images of another size"):
        check_resizable(torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="an image of one patch costs more"):
        fit(small(), 1e-5)


def control_of(records: list[Record]) -> Record:
    (record,) = [one for one in records if one.method.name == "resize"]
    return record


def test_one_control_beside_all_runs_of_equal_cost(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results" / "runs")
    assert run("-m", "merge=none,tome,random", "flops=0.8", "control=resize", "limit=20") == 0
    assert sorted(record.method.name for record in store.all()) == ["none", "random", "resize", "tome"]
    record = control_of(store.all())
    assert record.tokens == [170.0] * 5  # 13 x 13 patches; 14 x 13 would cost more than 0.8
    assert record.identity["method"] == {"name": "resize", "options": {"size": [26, 26]}, "schedule": None}
    cost = record.cost
    assert cost is not None and cost.share <= 0.8 and cost.macs == cost.macs_closed_form
    assert cost.unmerged_macs == next(one.cost.unmerged_macs for one in store.all() if one.cost)
    assert cost.authors_macs is not None and cost.unmerged_authors_macs is not None
    assert cost.authors_macs < cost.unmerged_authors_macs
    own, larger = record.method.asked["shares"]
    assert own == pytest.approx(cost.share) and own <= 0.8 < larger
    shown = capsys.readouterr().out
    assert "resize 26x26" in shown and "FLOPs 0.8" in shown
    (sweep,) = (tmp_path / "results" / "sweeps").iterdir()
    rows = [line for line in (sweep / "table.md").read_text().splitlines() if line.startswith("| resize")]
    assert len(rows) == 1 and "| FLOPs 0.8 |" in rows[0]

    started = record.started, record.seconds
    assert run("merge=tome", "flops=0.79", "control=resize", "limit=20") == 0  # the same image again
    again = control_of(store.all())
    assert (again.started, again.seconds) == started
    assert "1 of 2 runs were recorded before" in capsys.readouterr().out


def test_the_budget_of_a_ratio_is_what_its_run_costs(run: Run, tmp_path: Path) -> None:
    assert run("merge=pitome", "ratio=0.9", "control=resize", "limit=10") == 0
    records = Store(tmp_path / "results" / "runs").all()
    merged = next(one for one in records if one.method.name == "pitome")
    own, larger = control_of(records).method.asked["shares"]
    assert merged.cost is not None and own <= merged.cost.share < larger


def test_nothing_is_controlled_where_nothing_is_saved(run: Run, tmp_path: Path) -> None:
    assert run("-m", "merge=none,tome", "ratio=1.0", "control=resize", "limit=10") == 0
    assert "resize" not in {one.method.name for one in Store(tmp_path / "results" / "runs").all()}


def test_a_run_recorded_in_other_words_is_shown_in_these(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ratio that flops=0.8 chose does the same, so it is the same run."""
    assert run("merge=tome", "flops=0.8", "limit=10") == 0
    (record,) = Store(tmp_path / "results" / "runs").all()
    capsys.readouterr()
    assert run("merge=tome", f"ratio={record.method.ratio}", "limit=10") == 0
    shown = capsys.readouterr().out
    assert "1 of 1 runs were recorded before" in shown and "FLOPs 0.8" not in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("control=reszie",), "did you mean resize"),
        (("control=resize", "mode=train"), "goes with mode=test"),
        (("control=resize", "measure=none", "ratio=0.9"), "give measure=flops, or flops=SHARE"),
    ],
)
def test_what_cannot_be_controlled_is_one_line(
    run: Run, words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge=tome", *words) == 2
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("error: control=") and reason in shown and "\n" not in shown


def test_measure_none_is_enough_where_the_share_is_asked(run: Run, tmp_path: Path) -> None:
    assert run("merge=tome", "flops=0.8", "control=resize", "measure=none", "limit=10") == 0
    assert control_of(Store(tmp_path / "results" / "runs").all()).cost is None


def test_small_images_come_from_the_original_in_one_step() -> None:
    """Fashion-MNIST, read for a model of 224 pixels: shrunk from 28, not from 224."""
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    labels = np.zeros(3, dtype=np.uint8)
    preprocess = Preprocess(size=224, channels=1, mean=(0.0,), std=(1.0,), interpolation="bilinear")
    shaped = dataclasses.replace(preprocess, shape=(26, 24))
    batch, _, _ = Images(images, labels, np.arange(3), shaped).__getitems__([0, 1, 2])
    original = torch.from_numpy(images)[:, None].float()
    shrunk = functools.partial(functional.interpolate, mode="bilinear", antialias=True)
    error = (batch * 255 - shrunk(original, (26, 24))).abs().max()
    detour = (batch * 255 - shrunk(shrunk(original, (224, 224)), (26, 24))).abs().max()
    assert error < 2 < 20 < detour  # the pixels in between are whole numbers


def test_the_view_of_an_imagenet_image_stays_the_same() -> None:
    """A wide image of coloured bands: the crop of 7/8 of the height, squeezed to 208 x 192."""
    pixels = np.zeros((400, 640, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, 640).astype(np.uint8)
    pixels[:, :, 1] = np.linspace(0, 255, 400).astype(np.uint8)[:, None]
    image = Image.fromarray(pixels)
    own = Preprocess(size=224, crop_pct=0.875, mean=(0.0,) * 3, std=(1.0,) * 3)
    usual = as_tested(image, own)
    assert as_tested(image, dataclasses.replace(own, shape=(224, 224))) == pytest.approx(usual, abs=3 / 255)
    squeezed = as_tested(image, dataclasses.replace(own, shape=(208, 192)))
    assert squeezed.shape == (3, 208, 192)
    for channel, axis in ((0, 1), (1, 0)):
        ends = squeezed[channel].mean(dim=1 - axis)[[0, -1]], usual[channel].mean(dim=1 - axis)[[0, -1]]
        assert ends[0] == pytest.approx(ends[1], abs=3 / 255)


def test_the_images_that_vote_are_as_small_as_those_they_vote_on(run: Run, tmp_path: Path) -> None:
    words = ("task.head=knn", "task.k=3", "task.bank=40", "limit=10")
    assert run("merge=tome", "flops=0.8", "control=resize", *words) == 0
    record = control_of(Store(tmp_path / "results" / "runs").all())
    assert record.identity["settings"]["k"] == 3 and record.tokens == [170.0] * 5
