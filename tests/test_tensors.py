"""Slots, strides, sharing: every answer is checked against torch itself."""

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from torch.testing import assert_close

from zerohero import drawings
from zerohero.tensors import (
    broadcast_shapes,
    contiguous_strides,
    picture,
    report,
    shares_memory,
    slots,
    view_strides,
)

steady = settings(deadline=None, derandomize=True, max_examples=200)
SIZES = st.lists(st.integers(1, 6), min_size=0, max_size=4)


@st.composite
def views(draw):
    """A small tensor and a view of it made by random basic steps."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    base = torch.arange(torch.Size(shape).numel()).view(shape)
    t = base
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["transpose", "slice", "expand", "pick"]))
        if t.ndim == 0:
            break
        dim = draw(st.integers(0, t.ndim - 1))
        if kind == "transpose":
            t = t.transpose(0, dim)
        elif kind == "slice":
            start = draw(st.integers(0, t.shape[dim] - 1))
            step = draw(st.integers(1, 3))
            index = [slice(None)] * t.ndim
            index[dim] = slice(start, None, step)
            t = t[tuple(index)]
        elif kind == "expand" and t.ndim < 4:
            t = t.unsqueeze(dim).expand(
                *t.shape[:dim], draw(st.integers(1, 3)), *t.shape[dim:]
            )
        elif kind == "pick":
            t = t.select(dim, draw(st.integers(0, t.shape[dim] - 1)))
    return base, t


@steady
@given(views())
def test_slots_read_the_entries(pair):
    base, t = pair
    # base counts its own slots, so each entry IS its slot number
    assert_close(slots(t), t.clone())


def test_slots_by_hand():
    x = torch.zeros(3, 4)
    assert slots(x)[2, 1].item() == 9
    assert slots(x[1:, ::2]).tolist() == [[4, 6], [8, 10]]
    assert slots(torch.tensor(5.0)).item() == 0
    assert slots(torch.zeros(2, 0)).shape == (2, 0)
    assert slots(x[1]).dtype == torch.int64


@pytest.mark.parametrize("bad", [[1, 2], torch.eye(2).to_sparse()])
def test_slots_needs_a_dense_tensor(bad):
    with pytest.raises(ValueError, match="dense tensor"):
        slots(bad)
    for pair in ((bad, torch.eye(2)), (torch.eye(2), bad)):
        with pytest.raises(ValueError, match="dense tensor"):
            shares_memory(*pair)


@steady
@given(views(), st.data())
def test_sharing_is_seen_by_writing(pair, data):
    """Write into one of two views: the other changes exactly if we say so."""
    base, a = pair
    b = base.flatten()[:: data.draw(st.integers(1, 3))]
    b = b[data.draw(st.integers(0, len(b) - 1)) :]
    before = b.clone()
    says = shares_memory(a, b)
    assert says == shares_memory(b, a)
    for slot in slots(a).flatten().tolist():  # write all entries of a
        base.view(-1)[slot] = -1
    assert says == (not torch.equal(before, b))


def test_sharing_by_hand():
    x = torch.arange(12.0)
    assert shares_memory(x, x)
    assert shares_memory(x, x[11:])
    assert shares_memory(x[:7], x[6:])
    assert not shares_memory(x[:6], x[6:])
    assert not shares_memory(x[6:], x[:6])
    assert not shares_memory(x[::2], x[1::2])
    assert shares_memory(x[::2], x[::3])
    assert not shares_memory(x, x.clone())
    assert not shares_memory(x, x[[0, 1]])
    assert not shares_memory(x, x[3:3])
    assert not shares_memory(x[3:3], x)
    assert shares_memory(x.view(3, 4).T, x[5])
    assert shares_memory(x, x.detach())


def test_sharing_is_about_bytes_not_storages():
    import numpy as np

    array = np.zeros(4, dtype=np.float32)
    assert shares_memory(torch.from_numpy(array), torch.from_numpy(array))
    x = torch.zeros(4)
    raw = x.view(torch.uint8)  # 16 bytes of the same strip
    assert shares_memory(x[1::2], raw[7:8])
    assert not shares_memory(x[1::2], raw[8:12])
    assert shares_memory(x[1::2], raw[12:13])


def test_sharing_across_devices_is_impossible():
    assert not shares_memory(torch.zeros(2), torch.zeros(2, device="meta"))


@steady
@given(st.lists(st.integers(0, 5), max_size=4))
def test_contiguous_strides_are_torchs(shape):
    assert contiguous_strides(shape) == torch.empty(shape).stride()


@st.composite
def strided_and_shape(draw):
    """A view, and a shape of as many entries: cut into random factors."""
    _, t = draw(views())
    left, new = t.numel(), []
    while left > 1:
        factor = draw(
            st.sampled_from([d for d in range(2, left + 1) if left % d == 0])
        )
        new.append(factor)
        left //= factor
    for _ in range(draw(st.integers(0, 2))):
        new.insert(draw(st.integers(0, len(new))), 1)
    return t, new


@steady
@given(strided_and_shape())
def test_view_strides_say_what_view_does(pair):
    t, new = pair
    ours = view_strides(t.shape, t.stride(), new)
    try:
        theirs = t.view(new).stride()
    except RuntimeError:
        theirs = None
    assert ours == theirs


def test_view_strides_by_hand():
    # splitting a dimension never needs a copy, merging may
    assert view_strides((4, 3), (1, 4), (2, 2, 3)) == (2, 1, 4)
    assert view_strides((4, 3), (1, 4), (12,)) is None
    assert view_strides((9, 3), (1, 9), (3, 3, 3)) == (3, 1, 9)
    # every other column of a (2, 6): rows still line up
    assert view_strides((2, 3), (6, 2), (6,)) == (2,)
    assert view_strides((2, 2), (6, 2), (4,)) is None
    assert view_strides((), (), (1, 1)) == (1, 1)
    assert view_strides((1, 3), (3, 1), (3,)) == (1,)
    # a dimension of size 1 is never stepped over: its stride is no matter
    assert view_strides((3, 1, 2), (2, 6, 1), (6,)) == (1,)
    # the same single number in every place
    assert view_strides((2, 3), (0, 0), (6,)) == (0,)
    assert view_strides((2, 3), (0, 1), (6,)) is None


def test_view_strides_of_nothing():
    t = torch.empty(3, 0, 2).transpose(0, 2)
    assert view_strides(t.shape, t.stride(), (2, 0, 3)) == t.stride()
    assert view_strides(t.shape, t.stride(), (0, 5)) == t.view(0, 5).stride()


def test_view_strides_refuse():
    with pytest.raises(ValueError, match="differ in length"):
        view_strides((2, 3), (1,), (6,))
    with pytest.raises(ValueError, match="6 entries .* 5"):
        view_strides((2, 3), (3, 1), (5,))
    with pytest.raises(ValueError, match="every size"):
        view_strides((2, 3), (3, 1), (-1,))


@steady
@given(st.lists(SIZES, max_size=3))
def test_broadcast_shapes_are_torchs(shapes):
    try:
        theirs = tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        theirs = None
    try:
        ours = broadcast_shapes(*shapes)
    except ValueError:
        ours = None
    assert ours == theirs


def test_broadcast_shapes_by_hand():
    assert broadcast_shapes((27, 27), (27, 1)) == (27, 27)
    assert broadcast_shapes((4, 1), (3,)) == (4, 3)
    assert broadcast_shapes((0,), (1,)) == (0,)
    assert broadcast_shapes() == ()
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3,\).*\[3, 4\]"):
        broadcast_shapes((3, 4), (3,))
    with pytest.raises(ValueError, match="dimension -1"):
        broadcast_shapes((3, 4), (3,))


def test_report():
    x = torch.arange(6).view(2, 3)
    lines = report(x=x, xt=x.T, y=x.clone(), z=x[1:].float(),
                   end=x[:, 1:]).splitlines()
    assert lines[0].split() == [
        "name", "shape", "stride", "offset", "dtype", "contiguous", "strip",
    ]  # fmt: skip
    rows = [line.split("  ") for line in lines[1:]]
    rows = [[c.strip() for c in row if c.strip()] for row in rows]
    assert rows == [
        ["x", "(2, 3)", "(3, 1)", "0", "int64", "yes", "A: 6"],
        ["xt", "(3, 2)", "(1, 3)", "0", "int64", "no", "A: 6"],
        ["y", "(2, 3)", "(3, 1)", "0", "int64", "yes", "B: 6"],
        ["z", "(1, 3)", "(3, 1)", "0", "float32", "yes", "C: 3"],
        ["end", "(2, 2)", "(3, 1)", "1", "int64", "no", "A: 6"],
    ]
    assert "offset" in report(x=x[1:]) and " 3 " in report(x=x[1:])
    with pytest.raises(ValueError, match="by name"):
        report()


def drawn(ax):
    """Texts and squares of a picture: (texts, squares at (x, y): color)."""
    texts = [t.get_text() for t in ax.texts]
    squares = {
        (round(p.get_x(), 2), round(p.get_y(), 2)): p.get_facecolor()
        for p in ax.patches
        if isinstance(p, Rectangle)
    }
    return texts, squares


def test_picture_shows_strip_strides_and_entries():
    import matplotlib.colors

    x = torch.arange(20, 32).view(3, 4)
    ax = picture(x.T, names=["x.T"])
    texts, squares = drawn(ax)
    assert "x.T: shape (4, 3), stride (1, 4), offset 0" in texts
    assert "strip A" in texts
    assert "dim 0: step 1" in texts and "dim 1: step 4" in texts
    assert len(squares) == 12 + 12  # the strip and the grid
    top = min(y for _, y in squares)
    strip = [squares[k] for k in sorted(squares) if k[1] == top]
    wanted = [drawings.FILLS[i % 4] for i in range(12)]  # rows of x.T
    assert strip == [matplotlib.colors.to_rgba(c) for c in wanted]
    assert texts.count("20") == 2  # in the strip and in the grid
    assert texts.count("11") == 2  # its slot number, beside both
    grid = sorted((y, x) for x, y in squares if y != top)
    assert [len({x for _, x in grid}), len({y for y, _ in grid})] == [3, 4]
    colors = [squares[x, y] for y, x in grid]  # row by row, three squares
    wanted = [drawings.FILLS[i // 3] for i in range(12)]
    assert colors == [matplotlib.colors.to_rgba(c) for c in wanted]
    plt.close("all")


def test_picture_leaves_unread_slots_white_and_starts_at_the_offset():
    x = torch.arange(6.0)
    ax = picture(x[2::2])
    texts, squares = drawn(ax)
    top = min(y for _, y in squares)
    strip = [squares[k] for k in sorted(squares) if k[1] == top]
    white = [color[:3] == (1, 1, 1) for color in strip]
    assert white == [True, True, False, True, False, True]
    assert "shape (2,), stride (2,), offset 2" in texts
    plt.close("all")


def test_picture_of_several_letters_their_strips():
    x = torch.arange(4)
    texts, _ = drawn(picture(x, x[1:], x.clone(), torch.tensor(True)))
    strips = [t for t in texts if t.startswith("strip")]
    assert strips == ["strip A", "strip A", "strip B", "strip C"]
    texts, _ = drawn(picture(torch.arange(8).view(2, 2, 2)))
    assert "[0]" in texts and "[1]" in texts
    plt.close("all")


def test_picture_draws_an_arrow_for_each_step(monkeypatch):
    steps = []
    monkeypatch.setattr(drawings, "arrow",
                        lambda ax, start, end: steps.append((start, end)))
    x = torch.arange(12).view(3, 4)
    texts, squares = drawn(picture(x[1:, 1:3]))
    left = min(x for x, _ in squares)
    (row, y), (row_end, _) = steps[0]
    assert (row - left, row_end - left) == pytest.approx((5.5, 9.5))
    (column, below), (column_end, _) = steps[1]
    assert (column - left, column_end - left) == pytest.approx((5.5, 6.5))
    assert below > y
    steps.clear()
    texts, _ = drawn(picture(torch.arange(3.0).expand(1, 2, 3) / 3))
    assert "dim 2: step 1" in texts and "0.333" in texts
    assert not any(text.startswith("dim 0") for text in texts)
    texts, _ = drawn(picture(torch.tensor([False, True, True]).expand(4, 3)))
    assert "dim 0: step 0" in texts and len(steps) == 2 + 1
    assert (texts.count("F"), texts.count("T")) == (1 + 4, 2 + 8)
    plt.close("all")


def test_nothing_in_a_picture_covers_anything():
    x = torch.arange(10, 26)
    ax = picture(x[:4].clone(), x.view(2, 1, 8), x[:6].view(6, 1))
    strips, grids = 4 + 16 + 16, 4 + 16 + 6
    _, squares = drawn(ax)
    assert len(squares) == strips + grids
    assert max(x for x, _ in squares) + 1 < ax.get_xlim()[1]
    assert max(y for _, y in squares) + 1 < ax.get_ylim()[0]
    for view in (x[:2], x[:4].clone().view(2, 2)):
        ax = picture(view)
        ax.figure.canvas.draw()
        end = ax.get_window_extent().x1
        assert all(t.get_window_extent().x1 < end for t in ax.texts)
    ax = picture(x[:8].clone().view(2, 2, 2))
    texts, squares = drawn(ax)
    assert all(texts.count(str(slot)) == 2 for slot in range(8))
    places = {t.get_text(): t.get_position() for t in ax.texts}
    for slot, square in zip(range(8), sorted(
            (s for s in squares if s[1] > 2.5),
            key=lambda s: (s[0] > 4.5, s[1], s[0])), strict=True):
        number = places[str(slot)]  # in the corner of its square
        assert 0.5 < number[0] - square[0] < 1, slot
        assert 0.5 < number[1] - square[1] < 1, slot
    plt.close("all")


def test_picture_draws_into_given_axes():
    _, ax = plt.subplots()
    assert picture(torch.zeros(3, requires_grad=True), ax=ax) is ax
    assert ax.get_ylim()[0] > ax.get_ylim()[1] and not ax.axison
    plt.close("all")


def test_picture_refuses_what_cannot_be_read():
    with pytest.raises(ValueError, match="smaller tensor"):
        picture(torch.zeros(41))
    with pytest.raises(ValueError, match="smaller tensor"):
        picture(torch.zeros(41)[:2])
    with pytest.raises(ValueError, match="smaller tensor"):
        picture(torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match="smaller tensor"):
        picture(torch.zeros(1).expand(41))
    ax = picture(torch.zeros(40))  # the most there can be, on one page
    assert ax.figure.get_size_inches()[0] < 6.51
    plt.close("all")
    with pytest.raises(ValueError, match="one name for each"):
        picture(torch.zeros(2), names=["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        picture()


def test_picture_colors_the_first_dimension_that_has_several_entries():
    import matplotlib.colors

    wanted = [drawings.FILLS[i // 2] for i in range(6)]
    wanted = [matplotlib.colors.to_rgba(c) for c in wanted]
    for shape in ((3, 2), (1, 3, 2)):
        _, squares = drawn(picture(torch.arange(6).view(shape)))
        top = min(y for _, y in squares)
        strip = [squares[k] for k in sorted(squares) if k[1] == top]
        assert strip == wanted, shape
    wanted = [drawings.FILLS[i % 5] for i in range(6)]  # then from the start
    for view in (torch.arange(6), torch.arange(6).view(1, 1, 6)):
        _, squares = drawn(picture(view))
        top = min(y for _, y in squares)
        strip = [squares[k] for k in sorted(squares) if k[1] == top]
        assert strip == [matplotlib.colors.to_rgba(c) for c in wanted]
    _, squares = drawn(picture(torch.zeros(1).expand(3)))
    (first,) = {c for k, c in squares.items()}  # one slot has one color
    assert first == matplotlib.colors.to_rgba(drawings.FILLS[0])
    plt.close("all")
