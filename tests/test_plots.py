"""Plots and drawings draw what they are given, on the axes they are given."""

import matplotlib
import numpy as np
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
    for smooth in (5, 1, None):  # too long, or no mean at all
        _, ax = plt.subplots()
        plots.loss_curve([1.0, 3.0, 5.0, 7.0], ax=ax, smooth=smooth)
        (line,) = ax.lines
        assert list(line.get_ydata()) == [1, 3, 5, 7]
    assert ax.get_xlabel() == "step" and ax.get_legend() is None
    plots.loss_curve([1.0, 3.0], ax=ax, smooth=2, label="mean")
    (name,) = ax.get_legend().get_texts()
    assert name.get_text() == "mean"
    _, ax = plt.subplots()
    y = torch.tensor([2.0, 1.5], dtype=torch.bfloat16, requires_grad=True)
    plots.loss_curve(y, ax=ax, smooth=2, label="two")
    assert list(ax.lines[1].get_ydata()) == [1.75]
    _, ax = plt.subplots()
    plots.loss_curve(y, ax=ax, label="raw")
    assert list(ax.lines[0].get_ydata()) == [2, 1.5]
    assert ax.get_legend().get_texts()[0].get_text() == "raw"


def test_heatmap_writes_the_numbers():
    m = torch.tensor([[0.25, -1.0], [0.5, 2.0]])
    ax = plots.heatmap(m, fmt=".2f", xlabels="a\n", center=0)
    shown = [t.get_text() for t in ax.texts]
    assert shown == ["0.25", "-1.00", "0.50", "2.00"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "\\n"]
    norm = ax.images[0].norm
    assert norm.vmin == -norm.vmax == -2
    where = [t.get_position() for t in ax.texts]
    assert where == [(0, 0), (1, 0), (0, 1), (1, 1)]  # x is the column
    _, ax = plt.subplots()
    m = torch.tensor([[0.25, -1.0, float("nan")], [0.5, 2.0, 1.0]])
    plots.heatmap(m, ax=ax, center=1, xlabels="abc", ylabels=["x", "\t"])
    norm = ax.images[0].norm
    assert (norm.vmin, norm.vmax) == (-1, 3)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "\\t"]
    low, high = ax.images[0].cmap([0.1, 0.9])[:, [0, 2]]  # red and blue
    assert low[0] > 2 * low[1] and high[0] < high[1]  # orange and purple
    for center in (None, 0.0):
        _, ax = plt.subplots()
        plots.heatmap(m[:, :2], ax=ax, center=center, cmap="Greens")
        assert ax.images[0].get_cmap().name == "Greens"


def test_heatmap_ink_stands_out_from_its_square():
    for center in (None, 0.0):
        m = torch.linspace(-4, 4, 9).view(1, 9)
        _, ax = plt.subplots()
        plots.heatmap(m, ax=ax, fmt=".0f", center=center)
        squares = ax.images[0].to_rgba(m.numpy())[0]
        for text, square in zip(ax.texts, squares, strict=True):
            assert contrast(text.get_color(), square) > 3
    _, ax = plt.subplots()
    plots.heatmap(torch.full((2, 2), 5.0), ax=ax, center=5.0)  # all white
    assert ax.images[0].norm(5.0) == 0.5


def test_heatmap_refuses_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        plots.heatmap(torch.zeros(3))


def test_bars_need_a_label_each():
    ax = plots.bars("abc", [1, 2, 3])
    assert [p.get_height() for p in ax.patches] == [1, 2, 3]
    with pytest.raises(ValueError, match="2 labels for 3"):
        plots.bars("ab", [1, 2, 3])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    _, ax = plt.subplots()
    plots.bars("abc", [1, 2, 3], ax=ax, horizontal=True, color="red")
    assert [p.get_width() for p in ax.patches] == [1, 2, 3]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    low, high = ax.get_ylim()
    assert low > high  # the first bar on top
    assert matplotlib.colors.to_hex(ax.patches[0].get_facecolor()) == "#ff0000"


def test_histogram_is_a_density():
    ax = plots.histogram(torch.randn(1000), bins=20)
    heights, edges, _ = ax.patches[0].get_data()
    assert (heights * (edges[1:] - edges[:-1])).sum() == pytest.approx(1)
    assert len(heights) == 20 and ax.get_legend() is None
    assert ax.patches[0].get_fill()
    _, ax = plt.subplots()
    plots.histogram({"a": torch.tensor([0.0, 1.0]),
                     "b": torch.tensor([[4.0, 2.0]])}, ax=ax, bins=4)
    a, b = (p.get_data() for p in ax.patches)
    assert list(a.edges) == list(b.edges) == [0, 1, 2, 3, 4]
    assert not any(p.get_fill() for p in ax.patches)  # both can be seen
    assert list(a.values) == [0.5, 0.5, 0, 0]
    assert list(b.values) == [0, 0, 0.5, 0.5]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    _, ax = plt.subplots()
    plots.histogram(torch.full((3,), 7.0), ax=ax)  # one value only
    edges = ax.patches[0].get_data().edges
    assert edges[0] == 7 and len(edges) == 61


def test_scatter_symbols_marks_the_highlighted():
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    ax = plots.scatter_symbols(points, "ab", highlight="b")
    a, b = ax.texts
    assert (a.get_position(), b.get_position()) == ((0, 1), (2, 3))
    assert a.get_bbox_patch() is None and b.get_bbox_patch() is not None
    assert (a.get_color(), b.get_color()) == tuple(plots.COLORS[:2])
    assert ax.dataLim.bounds == (0, 1, 2, 2)  # all of them are in sight
    _, ax = plt.subplots()
    end, z = plots.scatter_symbols(points, "\nz", ax=ax).texts
    assert end.get_text() == "\\n" and z.get_bbox_patch() is None
    with pytest.raises(ValueError, match=r"\(2, 2\), got \(2, 3\)"):
        plots.scatter_symbols(torch.zeros(2, 3), "ab")
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        plots.scatter_symbols(points, "abc")


def test_lines_differ_by_more_than_color():
    ax = plots.lines({"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 1])}, logx=True)
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert ax.get_xscale() == "log" and ax.get_legend() is not None
    assert ax.get_yscale() == "linear"
    assert ax.lines[0].get_marker() == "None"
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    _, ax = plt.subplots()
    plots.lines({"a": ([1], [1]), "b": ([1], [2])}, ax=ax, marker=True)
    assert [line.get_marker() for line in ax.lines] == ["o", "s"]
    _, ax = plt.subplots()
    plots.lines({"": ([1, 2], [3, 4])}, ax=ax, logy=True, marker=True,
                xlabel="x", ylabel="y")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert ax.lines[0].get_marker() == "o" and ax.get_legend() is None
    assert list(ax.lines[0].get_ydata()) == [3, 4]


def test_a_short_logarithmic_axis_has_plain_numbers():
    ax = plots.lines({"": ([1, 500], [1500, 7800])}, logx=True, logy=True)
    ax.figure.canvas.draw()
    assert "5,000" in [t.get_text() for t in ax.get_yticklabels()]
    assert "$\\mathdefault{10^{2}}$" in [
        t.get_text() for t in ax.get_xticklabels()]


def test_the_name_of_a_floor_stands_beside_the_curve():
    ax = plots.loss_curve([3.0, 2.0], floors={"bigram": 1.5})
    ax.figure.canvas.draw()
    (name,) = ax.texts
    assert name.get_window_extent().x0 > ax.get_window_extent().x1


def test_a_dot_is_drawn_large_enough_to_see():
    dot, letter = plots.scatter_symbols([[0, 0], [1, 1]], ".a").texts
    assert dot.get_size() > 1.5 * letter.get_size()


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
    drawings.cells(ax, np.array([[1], [2]]))
    drawings.cells(ax, ((3,), (4,)))
    assert [t.get_text() for t in ax.texts] == [
        "a", "\\n", "0.2", "1", "2", "3", "4"]


def colors(ax):
    return [matplotlib.colors.to_hex(p.get_facecolor()) for p in ax.patches]


def test_cells_are_filled_as_asked():
    red, blue, white = "#ff0000", "#0000ff", "#ffffff"
    for values, fill, wanted in (
            ([1, 2], None, [white, white]),
            ([1, 2], red, [red, red]),
            ([1, 2], [red, blue], [red, blue]),
            ([1, 2], (red, blue), [red, blue]),
            ([[1, 2], [3, 4]], [[red, blue], [blue, red]],
             [red, blue, blue, red]),
            ([[1, 2], [3, 4]], lambda i, j, v: red if v == 3 and (i, j) == (
                1, 0) else blue, [blue, blue, red, blue])):
        ax = drawings.canvas(6, 3)
        drawings.cells(ax, values, fill=fill)
        assert colors(ax) == wanted


def test_everything_lies_where_it_was_put():
    ax = drawings.canvas(9, 6, scale=0.5)
    assert list(ax.figure.get_size_inches()) == [4.5, 3]
    assert ax.get_xlim() == (0, 9)
    drawings.cells(ax, [5], 2, 1, width=3, height=2)
    assert ax.texts[0].get_position() == (3.5, 2)
    drawings.box(ax, 1, 2, 4, 3, "mid", color="#ff0000")
    assert ax.texts[1].get_position() == (3, 3.5)
    assert colors(ax)[1] == "#ff0000"
    x = ax.patches[1].get_window_extent().transformed(
        ax.transData.inverted())
    assert (round(x.x0), round(x.x1)) == (1, 5)
    assert sorted((round(x.y0), round(x.y1))) == [2, 5]
    drawings.arrow(ax, (0, 4), (2, 6), "go", color="#0000ff")
    x, y = ax.texts[2].get_position()
    assert x == 1 and 4.5 < y < 5  # just above the middle
    assert ax.texts[2].get_color() == "#0000ff"
    drawings.arrow(ax, (0, 4), (2, 6))
    drawings.note(ax, 7, 1, "see", ha="right")
    see = ax.texts[3]
    assert (see.get_text(), see.get_position()) == ("see", (7, 1))
    assert see.get_ha() == "right" and see.get_color() == plots.INK
    drawings.note(ax, 7, 1, "more", size=20, color="#ff0000")
    more = ax.texts[4]
    assert (more.get_ha(), more.get_size()) == ("left", 20)
    assert more.get_color() == "#ff0000"
    ax = drawings.canvas(9, 6)
    assert list(ax.figure.get_size_inches()) == pytest.approx([3.78, 2.52])
    assert ax.get_aspect() == 1
    drawings.cells(ax, [[1, 2], [3, 4]], width=2, height=3, labels="above")
    assert [p.get_xy() for p in ax.patches] == [(0, 0), (2, 0), (0, 3), (2, 3)]
    for p in ax.patches:
        assert (p.get_width(), p.get_height()) == (2, 3)
    x, y = ax.texts[4].get_position()
    assert x == 0 and -1 < y < 0


def test_an_arrow_is_drawn_as_asked(monkeypatch):
    made, patch = [], drawings.FancyArrowPatch

    def spy(start, end, **options):
        made.append((start, end, options["arrowstyle"], options["lw"],
                     options["connectionstyle"]))
        return patch(start, end, **options)

    monkeypatch.setattr(drawings, "FancyArrowPatch", spy)
    ax = drawings.canvas(4, 4)
    drawings.arrow(ax, (0, 1), (2, 3))
    drawings.arrow(ax, (2, 3), (0, 1), curve=-0.5, style="->", lw=3.0)
    assert made == [((0, 1), (2, 3), "-|>", 1.2, "arc3,rad=0.0"),
                    ((2, 3), (0, 1), "->", 3.0, "arc3,rad=-0.5")]
    assert len(ax.patches) == 2 and not ax.texts


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
