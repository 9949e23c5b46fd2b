import dataclasses
import struct
import zlib

import pytest
from matplotlib.colors import to_rgb

from pitome.records import RecordError
from pitome.records.groups import group
from pitome.report import figures
from pitome.report.plots import draw, plot
from tests.records.examples import example, failed, resized

SWEEP = [
    example("none", None, 0.915),
    *(
        example(method, ratio, 0.915 - loss * (1 - ratio))
        for method, loss in (("pitome", 0.3), ("tome", 0.5), ("random", 1.0))
        for ratio in (0.95, 0.9, 0.85)
    ),
]


def figure_of(*records):
    (members,) = group(records)
    return draw(members)


def series(figure):
    """Label -> [(x, y)] of the lines with markers."""
    return {
        str(line.get_label()): [tuple(p) for p in line.get_xydata()]
        for line in figure.axes[0].lines
        if not str(line.get_label()).startswith("_")
    }


def read_png(content):
    """Width, height and the raw pixel bytes; the checksums are verified."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, size = 8, b"", None
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert zlib.crc32(kind + data) == checksum
        if kind == b"IHDR":
            size = struct.unpack(">II", data[:8])
        if kind == b"IDAT":
            pixels += data
        at += 12 + length
    return size, zlib.decompress(pixels)


def test_the_file_is_a_png_of_sensible_size(tmp_path):
    (path,) = plot(SWEEP, tmp_path / "figures")
    (width, height), pixels = read_png(path.read_bytes())
    assert 1000 <= width <= 2000 and 600 <= height <= 1200
    assert len(set(pixels)) > 50  # not a blank page
    assert 10_000 < path.stat().st_size < 500_000
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.name.startswith("classification-vit_fmnist-fashion_mnist-1000-")


def test_points_are_share_of_flops_against_accuracy():
    lines = series(figure_of(*SWEEP))
    assert set(lines) == {"pitome", "tome", "random (down to 76.5)", "unmerged"}
    want = [(100 * 0.85**6, 87.0), (100 * 0.9**6, 88.5), (100 * 0.95**6, 90.0)]
    for got, point in zip(lines["pitome"], want, strict=True):
        assert got == pytest.approx(point, abs=0.01)
    assert {y for _, y in lines["unmerged"]} == {91.5}
    assert figure_of(*SWEEP).axes[0].get_title() == "vit_fmnist on fashion_mnist test, n = 1,000"


def test_lines_differ_in_colour_and_marker():
    marked = [line for line in figure_of(*SWEEP).axes[0].lines if line.get_marker() not in ("None", "_")]
    marked = [line for line in marked if not str(line.get_label()).startswith("_")]
    assert len({line.get_color() for line in marked}) == len({line.get_marker() for line in marked}) == 3
    (unmerged,) = [line for line in figure_of(*SWEEP).axes[0].lines if line.get_label() == "unmerged"]
    assert unmerged.get_linestyle() == "--"


def test_controls_are_grey_dashed_and_last():
    records = [
        *SWEEP,
        example("stride", 0.9, 0.85),
        resized(26, 24, 0.7, 0.8, 0.86),
        resized(24, 24, 0.6, 0.7, 0.85),
    ]
    lines = [line for line in figure_of(*records).axes[0].lines if not str(line.get_label()).startswith("_")]
    names = [str(line.get_label()).split()[0] for line in lines]
    assert names == ["pitome", "tome", "random", "resize", "stride", "unmerged"]
    for line, name in zip(lines, names, strict=True):
        grey = len(set(to_rgb(line.get_color()))) == 1
        assert grey is (name not in ("pitome", "tome"))
        assert (line.get_linestyle() == "-") is (name in ("pitome", "tome"))
    assert len({line.get_color() for line in lines}) == 6
    assert len(lines[3].get_xydata()) == 2  # the sizes of `resize` are one line


def test_a_poor_control_does_not_squeeze_the_methods():
    bottom, top = figure_of(*SWEEP).axes[0].get_ylim()
    assert 80 < bottom < 84 and 93.1 < top < 95  # methods and the unmerged band: 84 to 93.1, random at 76.5
    near = [example("random", ratio, 0.9) for ratio in (0.95, 0.9)]
    lines = series(figure_of(*SWEEP[:7], *near))
    assert "random" in lines
    only = figure_of(SWEEP[0], *SWEEP[7:])  # nothing but a control: all of it
    assert only.axes[0].get_ylim()[0] < 76.5


def test_seeds_are_one_point():
    lines = series(
        figure_of(example("none", None), *(example(seed=s, accuracy=a) for s, a in ((0, 0.8), (1, 0.9))))
    )
    ((_, y),) = lines["pitome"]
    assert y == pytest.approx(85)


def test_many_lines_stay_distinguishable():
    records = [example("pitome", 0.9, 0.8, options={"alpha": i / 10}) for i in range(10)]
    lines = [line for line in figure_of(*records).axes[0].lines if str(line.get_label()).startswith("pitome")]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 10


def test_legend_stands_outside_the_data():
    figure = figure_of(*SWEEP)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, data = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert box.x0 > data.x1 and box.x1 <= figure.bbox.x1
    assert [text.get_text() for text in legend.get_texts()] == [
        "pitome", "tome", "random (down to 76.5)", "unmerged", "95 % interval"
    ]  # fmt: skip


def test_bars_are_wilson_intervals_inside_the_axes():
    figure = figure_of(SWEEP[0], *(r for r in SWEEP if r.method.name == "pitome"))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (bars,) = axes.collections[:1]
    low, high = bars.get_segments()[1][:, 1]
    assert (low, high) == pytest.approx((86.3741, 90.3306), abs=2e-3)  # 0.885 of 1,000
    bottom, top = axes.get_ylim()
    assert all(bottom < y < top for segment in bars.get_segments() for y in segment[:, 1])
    crowd = figure_of(*SWEEP[1:], example("tofu", 0.9, 0.85))
    assert not crowd.axes[0].collections  # three methods: they would hide one another


def test_without_the_unmerged_run_there_is_no_line_for_it():
    assert "unmerged" not in series(figure_of(*SWEEP[1:]))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [SWEEP[0]],
        [failed()],
        [example(random=True), example("none", None, random=True)],
        [example(cost=None)],
    ],
)
def test_nothing_to_show_is_no_file(tmp_path, records):
    assert plot(records, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_one_file_for_each_group(tmp_path):
    other = dataclasses.replace(example(), weights=dataclasses.replace(example().weights, sha256="cd" * 32))
    paths = plot([example(), other, example(limit=None), example(model="a/b c")], tmp_path)
    assert len(set(paths)) == 4 == len(list(tmp_path.iterdir()))


def test_a_score_that_is_no_proportion_has_no_bar():
    figure = figure_of(example("none", None, 1.2), example(accuracy=1.1))
    assert set(series(figure)) == {"pitome", "unmerged"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="choose another"):
        plot(SWEEP, tmp_path / "file")


@pytest.mark.parametrize("name", ["$", "a$b$c", r"$\frac{$", "x^2_3", r"<b>&%#{}~\\", "\n"])
def test_names_begin_no_formula(name):
    figure = figure_of(example("none", None, model=name), example(model=name), example("tome", model=name))
    assert figures.png(figure)[:4] == b"\x89PNG"
    assert name in figure.axes[0].get_title()
