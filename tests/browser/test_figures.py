"""Every figure of the built site: sharp, small, legible in both modes."""

import gzip
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import SITE

PICTURES = sorted((SITE / "_images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
#: Backgrounds of the page: light, and the dark one that lies under figures.
WHITE, NIGHT = (255, 255, 255), (18, 18, 18)
#: Guides that say nothing by themselves.
FAINT = {"#bbbbbb", "#cccccc", "#e6e6e6", "#ebebeb", "#ffffff"}


def rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def luminance(color) -> float:
    parts = [c / 255 for c in color]
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def in_the_dark(color) -> tuple[float, ...]:
    """What book.css makes of it: invert, turn the hue, screen on the page."""
    r, g, b = (255 - c for c in color)
    turn = (  # hue-rotate(180deg), by the matrix of its specification
        (-0.574, 1.430, 0.144),
        (0.426, 0.430, 0.144),
        (0.426, 1.430, -0.856),
    )
    turned = [x * r + y * g + z * b for x, y, z in turn]
    clear = [min(255.0, max(0.0, c)) for c in turned]
    return tuple(
        255 - (255 - c) * (255 - n) / 255
        for c, n in zip(clear, NIGHT, strict=True)
    )


def colors(element, kind: str) -> set[str]:
    found = re.findall(
        rf"(?<![\w-]){kind}: (#[0-9a-f]{{6}})", element.get("style", "")
    )
    return set(found) or {element.get(kind)} - {None}


def weak(picture: Path) -> set[tuple[str, str, float]]:
    """(mode, color, contrast) of text below 4.5 and of lines below 3."""
    root, found = ElementTree.parse(picture).getroot(), set()
    marks = [(c, 4.5) for t in root.iter(f"{SVG}text")
             for c in colors(t, "fill") or {"#000000"}]
    for group in root.iter(f"{SVG}g"):
        if group.get("id", "").startswith("line2d"):
            for path in group.iter(f"{SVG}path"):
                marks += [(c, 3.0) for c in colors(path, "stroke")]
    for color, least in set(marks):
        if color in FAINT:
            continue
        light = contrast(rgb(color), WHITE)
        dark = contrast(in_the_dark(rgb(color)), in_the_dark(WHITE))
        for mode, value in (("light", light), ("dark", dark)):
            if value < least:
                found.add((mode, color, round(value, 2)))
    return found


def test_there_are_figures_and_all_are_drawings():
    assert len(PICTURES) > 50
    assert not list((SITE / "_images").glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: p.stem[:8])
def test_figure_is_legible_in_both_modes(picture):
    assert weak(picture) == set()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: p.stem[:8])
def test_figure_is_small(picture):
    assert len(gzip.compress(picture.read_bytes())) < 50_000


def test_the_measure_of_contrast_can_tell():
    assert contrast((0, 0, 0), WHITE) == pytest.approx(21)
    assert contrast(rgb("#767676"), WHITE) == pytest.approx(4.54, abs=0.01)
    assert in_the_dark(WHITE) == pytest.approx(NIGHT)
    assert contrast(in_the_dark(rgb("#dddddd")), NIGHT) < 3


def test_a_drawing_in_pale_gray_is_found(tmp_path):
    target = tmp_path / "pale.svg"
    target.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg">'
        '<text style="font: 10px x; fill: #aaaaaa">x</text>'
        '<g id="line2d_1"><path style="stroke: #dddd00" /></g></svg>',
        encoding="utf-8",
    )
    assert {c for _, c, _ in weak(target)} == {"#aaaaaa", "#dddd00"}
    assert ("light", "#aaaaaa") in {(m, c) for m, c, _ in weak(target)}
