"""Plots and drawings draw what they are given, on the axes they are given."""

import matplotlib
import pytest
import torch

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402

from zerohero import drawings, plots  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def luminance(color: str) -> float:
    parts = matplotlib.colors.to_rgb(color)
    r, g, b = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in parts
    ]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("color", plots.COLORS)
def test_lines_stand_out_from_white(color):
    assert contrast(color, "white") >= 3


@pytest.mark.parametrize("fill", drawings.FILLS)
def test_ink_is_readable_on_every_fill(fill):
    assert contrast(plots.INK, fill) >= 7


def test_loss_curve_draws_all_points_and_floors():
    ax = plots.loss_curve([3.0, 2.0, 1.0], floors={"bigram": 1.5}, step=10)
    line, floor = ax.lines
    assert list(line.get_xdata()) == [0, 10, 20]
    assert list(line.get_ydata()) == [3, 2, 1]
    assert set(floor.get_ydata()) == {1.5}


def test_loss_curve_smooths_with_a_running_mean():
    ax = plots.loss_curve([1.0, 3.0, 5.0, 7.0], smooth=2)
    assert list(ax.lines[1].get_ydata()) == [2, 4, 6]
    assert list(ax.lines[1].get_xdata()) == [1, 2, 3]


def test_heatmap_writes_the_numbers():
    m = torch.tensor([[0.25, -1.0], [0.5, 2.0]])
    ax = plots.heatmap(m, fmt=".2f", xlabels="a\n", center=0)
    shown = [t.get_text() for t in ax.texts]
    assert shown == ["0.25", "-1.00", "0.50", "2.00"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "\\n"]
    norm = ax.images[0].norm
    assert norm.vmin == -norm.vmax == -2


def test_heatmap_refuses_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        plots.heatmap(torch.zeros(3))


def test_bars_need_a_label_each():
    ax = plots.bars("abc", [1, 2, 3])
    assert [p.get_height() for p in ax.patches] == [1, 2, 3]
    with pytest.raises(ValueError, match="2 labels for 3"):
        plots.bars("ab", [1, 2, 3])


def test_histogram_is_a_density():
    ax = plots.histogram(torch.randn(1000), bins=20)
    heights, edges, _ = ax.patches[0].get_data()
    assert (heights * (edges[1:] - edges[:-1])).sum() == pytest.approx(1)


def test_scatter_symbols_marks_the_highlighted():
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    ax = plots.scatter_symbols(points, "ab", highlight="b")
    a, b = ax.texts
    assert (a.get_position(), b.get_position()) == ((0, 1), (2, 3))
    assert a.get_bbox_patch() is None and b.get_bbox_patch() is not None
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        plots.scatter_symbols(points, "abc")


def test_lines_differ_by_more_than_color():
    ax = plots.lines({"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 1])}, logx=True)
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert ax.get_xscale() == "log" and ax.get_legend() is not None


def test_functions_draw_on_the_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.loss_curve([1, 2], ax=left) is left
    assert not right.lines


def test_cells_show_every_value_once():
    ax = drawings.canvas(6, 3)
    drawings.cells(ax, [[1, 2], [3, 4]], 1, 0, labels="a matrix")
    texts = [t.get_text() for t in ax.texts]
    assert texts == ["1", "2", "3", "4", "a matrix"]
    assert [p.get_xy() for p in ax.patches] == [(1, 0), (2, 0), (1, 1), (2, 1)]


def test_cells_take_strings_and_tensors():
    ax = drawings.canvas(6, 3)
    drawings.cells(ax, "a\n")
    drawings.cells(ax, torch.tensor([0.25]), fmt=".1f")
    assert [t.get_text() for t in ax.texts] == ["a", "\\n", "0.2"]


def test_canvas_reads_downward():
    ax = drawings.canvas(4, 2)
    assert ax.get_ylim() == (2, 0) and not ax.axison


def test_style_leaves_svg_bytes_alone(tmp_path):
    """The same figure twice is the same file."""
    files = []
    for name in ("a.svg", "b.svg"):
        fig, ax = plt.subplots()
        plots.loss_curve([2.0, 1.0], ax=ax, label="x")
        fig.savefig(tmp_path / name, metadata={"Date": None})
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
