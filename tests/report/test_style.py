"""How methods look: told apart by everyone, the same everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pitome.records.identity import CONTROLS
from pitome.report.style import COLOURS, GREYS, LINES, MARKERS, METHODS, PALETTE, looks, method_of

# Full loss of one kind of cone, in linear RGB: Machado, Oliveira and Fernandes 2009.
SIGHT = {
    "normal": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protanopia": [0.1523, 1.0526, -0.2049, 0.1145, 0.7863, 0.0992, -0.0039, -0.0481, 1.0520],
    "deuteranopia": [0.3673, 0.8606, -0.2280, 0.2801, 0.6725, 0.0474, -0.0118, 0.0429, 0.9689],
    "tritanopia": [1.2555, -0.0767, -0.1788, -0.0784, 0.9308, 0.1476, 0.0047, 0.6914, 0.3039],
}
GROUNDS = ("#ffffff", "#1a2029")


def linear(colour: str) -> np.ndarray:
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, white point D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ rgb.clip(0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("ground", [0, 1], ids=["on white", "on black"])
@pytest.mark.parametrize("sight", SIGHT)
def test_methods_differ_for_every_eye(sight: str, ground: int) -> None:
    seen = [lab(np.reshape(SIGHT[sight], (3, 3)) @ linear(PALETTE[i][ground])) for i in range(len(METHODS))]
    near = {
        (METHODS[i], METHODS[j]): round(float(np.linalg.norm(seen[i] - seen[j])), 1)
        for i, j in itertools.combinations(range(len(METHODS)), 2)
    }
    assert min(near.values()) > 15, near


@pytest.mark.parametrize("ground", [0, 1], ids=["on white", "on black"])
def test_every_colour_can_be_seen_on_its_ground(ground: int) -> None:
    def light(colour: str) -> float:
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour))

    for pair in COLOURS:
        ends = sorted((light(pair[ground]), light(GROUNDS[ground])))
        assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 3, pair


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("tome_repo", "tome"),
        ("ToMe, repo", "tome"),
        ("PiToMe (alpha=0.5)", "pitome"),
        ("PiToMe (trained, authors' code)", "pitome"),
        ("my_method", "my_method"),
    ],
)
def test_the_method_of_a_label(label: str, method: str) -> None:
    assert method_of(label) == method


def test_a_method_looks_the_same_in_every_plot() -> None:
    many = looks(["pitome", "pitome_repo", "tome", "tofu", "random", "diffrate", "mine"])
    few = looks(["diffrate", "random", "ToFu", "PiToMe", "PiToMe, repo"])
    for one, other in (("pitome", "PiToMe"), ("tofu", "ToFu"), ("pitome_repo", "PiToMe, repo")):
        assert many[one] == few[other]
    assert many["random"] == few["random"] and many["diffrate"] == few["diffrate"]


def test_the_authors_code_differs_in_the_line_alone() -> None:
    for method in METHODS:
        plain, repo, _ = looks([method, f"{method}_repo", "random"]).values()
        assert (plain.colour, plain.marker) == (repo.colour, repo.marker) and plain.line != repo.line


def test_no_two_lines_look_alike() -> None:
    labels = [
        *METHODS,
        *(f"{name}_repo" for name in METHODS),
        *CONTROLS,
        "pitome (alpha=0)",
        "pitome (alpha=1)",
    ]
    seen = [(look.colour, look.marker, look.line) for look in looks(labels).values()]
    assert len(set(seen)) == len(labels)
    alone = looks([f"pitome (alpha={i})" for i in range(10)]).values()
    assert len({look.colour for look in alone}) == 10


def test_controls_are_grey_and_nothing_else_is() -> None:
    out = looks([*METHODS, *CONTROLS])
    for label, look in out.items():
        assert look.control is (label in CONTROLS) is (len(set(to_rgb(look.colour))) == 1)
    assert len(GREYS) == len(CONTROLS) and all(
        look.marker in MARKERS and look.line in LINES for look in out.values()
    )
