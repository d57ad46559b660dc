"""What makes memory visible: slots, strides, and who shares with whom.

A tensor is one flat strip of numbers (its storage) and a recipe for walking
it: where to start (the offset), how many entries each dimension has (the
shape), and how many slots to step for the next entry of each dimension (the
strides). These functions show the strip and rebuild the rules by which torch
decides whether a new shape needs new memory.

Source: https://docs.pytorch.org/docs/stable/tensor_view.html
"""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from zerohero import drawings

#: ``picture`` refuses what would be too small to read.
MAX_SLOTS = 40
MAX_DIMS = 3


def slots(t: Tensor) -> Tensor:
    """The slot of the strip that each entry of ``t`` is read from.

    slot[i, j, ...] = offset + i * stride[0] + j * stride[1] + ...

    Args:
        t: any dense tensor, of any shape.

    Returns:
        int64 tensor of the shape of ``t``, counted in numbers, not bytes.

    Raises:
        ValueError: ``t`` is no dense tensor (a sparse one has no strides).

    >>> slots(torch.zeros(2, 3).T).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    _check_dense(t)
    out = torch.tensor(t.storage_offset())
    for size, step in zip(t.shape, t.stride(), strict=True):
        out = out.unsqueeze(-1) + step * torch.arange(size)
    return out


def _check_dense(t) -> None:
    if not isinstance(t, Tensor) or t.layout != torch.strided:
        kind = t.layout if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(
            f"this needs a dense tensor, got {kind}; convert it first "
            "(torch.as_tensor, or .to_dense())"
        )


def shares_memory(a: Tensor, b: Tensor) -> bool:
    """Whether some byte of memory belongs to both tensors.

    Then, and only then, writing into one can be seen in the other. Two views
    of one strip that read different slots, such as ``x[::2]`` and
    ``x[1::2]``, do not share.

    Args:
        a, b: dense tensors of any shape and type.

    Raises:
        ValueError: one of them is no dense tensor.

    >>> x = torch.arange(6)
    >>> shares_memory(x, x[4:]), shares_memory(x, x.clone())
    (True, False)
    >>> shares_memory(x[::2], x[1::2])
    False
    """
    _check_dense(a)
    _check_dense(b)
    span_a, span_b = _span(a), _span(b)
    if a.device != b.device or a.numel() == 0 or b.numel() == 0:
        return False
    if span_a[1] <= span_b[0] or span_b[1] <= span_a[0]:
        return False
    if a.is_contiguous() and b.is_contiguous():
        return True
    return bool(torch.isin(_addresses(a), _addresses(b)).any())


def _span(t: Tensor) -> tuple[int, int]:
    """First byte address of ``t``, and the first one after it."""
    last = int(slots(t[(-1,) * t.ndim])) if t.numel() else 0
    first = t.data_ptr()
    reach = (last - t.storage_offset() + 1) * t.element_size()
    return first, first + reach


def _addresses(t: Tensor) -> Tensor:
    """The address of every byte of every entry, flat."""
    size = t.element_size()
    first = t.data_ptr() - t.storage_offset() * size
    start = first + slots(t).reshape(-1, 1) * size
    return (start + torch.arange(size)).reshape(-1)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a fresh tensor: the last dimension steps by 1, every
    other one by the number of entries in one step of it.

    stride[i] = shape[i + 1] * stride[i + 1]

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def view_strides(
    shape: Sequence[int], stride: Sequence[int], new_shape: Sequence[int]
) -> tuple[int, ...] | None:
    """The strides with which ``new_shape`` can be read from the same strip,
    or None when no strides can do it: the question ``view`` asks.

    Splitting a dimension always works. Merging two neighbors works only if
    the left one steps exactly over the right one:
    stride[i] = shape[i + 1] * stride[i + 1].

    Args:
        shape, stride: of the tensor at hand.
        new_shape: the shape wanted, every size given (no -1).

    Raises:
        ValueError: shape and stride differ in length, or the two shapes hold
            different numbers of entries.

    >>> view_strides((3, 4), (4, 1), (12,))     # a fresh 3 x 4 tensor
    (1,)
    >>> view_strides((4, 3), (1, 4), (12,))     # its transpose
    >>> view_strides((4, 3), (1, 4), (2, 2, 3))
    (2, 1, 4)
    """
    shape, stride, new_shape = tuple(shape), tuple(stride), tuple(new_shape)
    if len(shape) != len(stride):
        raise ValueError(
            f"shape {shape} and stride {stride} differ in length: give one "
            "stride for each dimension"
        )
    if min(new_shape, default=0) < 0:
        raise ValueError(
            f"new_shape {new_shape} has a negative size: write out every size"
        )
    if math.prod(shape) != math.prod(new_shape):
        raise ValueError(
            f"shape {shape} holds {math.prod(shape)} entries and new_shape "
            f"{new_shape} holds {math.prod(new_shape)}: a view keeps the count"
        )
    if math.prod(shape) == 0:
        same = shape == new_shape
        return stride if same else contiguous_strides(new_shape)
    if not shape:
        return (1,) * len(new_shape)
    # runs of evenly spaced slots, innermost first: [count, step]
    runs = []
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if runs and (size == 1 or step == runs[-1][0] * runs[-1][1]):
            runs[-1][0] *= size
        else:
            runs.append([size, step])
    # each run must be cut into whole dimensions of the new shape
    wanted = list(new_shape)
    strides = []
    for count, step in runs:
        taken = 1
        while wanted and (taken < count or wanted[-1] == 1):
            strides.append(taken * step)
            taken *= wanted.pop()
        if taken != count:
            return None
    return tuple(reversed(strides))


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape of a result of elementwise arithmetic on ``shapes``.

    Align the shapes at the right; a missing size counts as 1; in every
    column all sizes must agree, except that a 1 stretches.

    Raises:
        ValueError: two sizes of one column differ and neither is 1.

    >>> broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    ndim = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (ndim - len(s)) + tuple(s) for s in shapes]
    out = []
    for dim, column in enumerate(zip(*padded, strict=True)):
        sizes = set(column) - {1}
        if len(sizes) > 1:
            listed = " and ".join(str(tuple(s)) for s in shapes)
            raise ValueError(
                f"shapes {listed} do not broadcast: aligned at the right, "
                f"dimension {dim - ndim} has sizes {sorted(sizes)}, which "
                "must be equal or 1"
            )
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def report(**tensors: Tensor) -> str:
    """A table of tensors: shape, stride, offset, type, and whose memory.

    Strips are lettered in the order in which they turn up: tensors with one
    letter read the same strip. The number after a letter is how many entries
    of the tensor's type fit on that strip.

    Args:
        tensors: the tensors, by the names that the table shows.

    Raises:
        ValueError: no tensor is given, or one is no dense tensor.

    >>> x = torch.zeros(2, 3)
    >>> print(report(x=x, xt=x.T, copy=x.clone()))
    name  shape   stride  offset  dtype    contiguous  strip
    x     (2, 3)  (3, 1)  0       float32  yes         A: 6
    xt    (3, 2)  (1, 3)  0       float32  no          A: 6
    copy  (2, 3)  (3, 1)  0       float32  yes         B: 6
    """
    if not tensors:
        raise ValueError("report needs tensors by name: report(x=x, y=y)")
    letters = _letters(tensors.values())
    head = "name shape stride offset dtype contiguous strip".split()
    rows = [head]
    for letter, (name, t) in zip(letters, tensors.items(), strict=True):
        rows.append(
            [
                name,
                str(tuple(t.shape)),
                str(t.stride()),
                str(t.storage_offset()),
                str(t.dtype).removeprefix("torch."),
                "yes" if t.is_contiguous() else "no",
                f"{letter}: {_strip(t).numel()}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) for c, w in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _letters(tensors) -> list[str]:
    """One letter for each tensor; the same letter for the same storage."""
    seen, out = [], []
    for t in tensors:
        slots(t)  # raises where there is no strip
        key = (t.device, t.untyped_storage().data_ptr())
        if key not in seen:
            seen.append(key)
        out.append(chr(ord("A") + seen.index(key)))
    return out


def _strip(t: Tensor) -> Tensor:
    """The whole storage of ``t``, flat, as its owner sees it."""
    flat = torch.empty(0, dtype=t.dtype, device=t.device)
    return flat.set_(t.untyped_storage())


def picture(
    *tensors: Tensor,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each tensor under the strip it reads, with its strides.

    For every tensor: its strip with slot numbers, one arrow for each stride,
    and its entries as a grid. A color marks a row (an index of the first
    dimension that has several) and stays with the slot: two entries of one
    color and one slot number are one number. Slots that the tensor does not
    read stay white. Strips are lettered as in :func:`report`.

    Args:
        tensors: at most three dimensions and 40 slots each.
        names: how to call them, one each; nothing by default.
        ax: axes to draw in; a canvas of the right size by default.

    Raises:
        ValueError: no tensor, too many names, dimensions or slots.
    """
    names = [""] * len(tensors) if names is None else list(names)
    if not tensors or len(names) != len(tensors):
        raise ValueError(
            f"picture got {len(tensors)} tensors and {len(names)} names: "
            "give at least one tensor, and one name for each"
        )
    letters = _letters(tensors)
    for t in tensors:
        if t.ndim > MAX_DIMS or max(_strip(t).numel(), t.numel()) > MAX_SLOTS:
            raise ValueError(
                f"picture draws up to {MAX_DIMS} dimensions and {MAX_SLOTS} "
                f"slots, got shape {tuple(t.shape)} on a strip of "
                f"{_strip(t).numel()}: take a smaller tensor"
            )
    sizes = [_size(t) for t in tensors]
    width = max(w for w, _ in sizes)
    height = sum(h for _, h in sizes)
    if ax is None:
        ax = drawings.canvas(width, height, scale=min(0.42, 6.5 / width))
    else:
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        ax.axis("off")
    top = 0.0
    for t, name, letter, (_, h) in zip(
        tensors, names, letters, sizes, strict=True
    ):
        _band(ax, t.detach(), name, letter, top)
        top += h
    return ax


_LEFT = 1.9  # room for the words at the left of strip and grid


def _steps(t: Tensor) -> list[tuple[int, int]]:
    """(dimension, stride) of every dimension that has a second entry."""
    pairs = enumerate(zip(t.shape, t.stride(), strict=True))
    return [(dim, step) for dim, (size, step) in pairs if size > 1]


def _blocks(t: Tensor) -> list[Tensor]:
    """The matrices that the grid shows, side by side."""
    if t.ndim == 3:
        return list(t)
    return [t.reshape(1, -1) if t.ndim < 2 else t]


def _size(t: Tensor) -> tuple[float, float]:
    """Width and height of the band of ``t``, in squares."""
    rows = max((b.shape[0] for b in _blocks(t)), default=0)
    columns = sum(b.shape[1] + 1 for b in _blocks(t))
    width = _LEFT + max(_strip(t).numel() + 0.5, columns + 0.5, 9.5)
    return width, 3.6 + 0.5 * len(_steps(t)) + rows + 0.6 * (t.ndim == 3)


def _text(value) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _band(ax: Axes, t: Tensor, name: str, letter: str, top: float) -> None:
    """One tensor: header, strip, strides, grid."""
    places = slots(t)
    rows = places.reshape(1) if t.ndim == 0 else places
    while rows.ndim > 1 and len(rows) == 1:
        rows = rows[0]
    rows = rows[:, None].flatten(1)  # (rows, slots of one row)
    color = {}
    for i, row in enumerate(rows.tolist()):
        for slot in row:
            color.setdefault(slot, drawings.FILLS[i % 5])
    shape, stride = tuple(t.shape), t.stride()
    head = f"{name}: " if name else ""
    head += f"shape {shape}, stride {stride}, offset {t.storage_offset()}"
    drawings.note(ax, 0.1, top + 0.5, head, size=9.5)
    y = top + 1.0
    strip = [_text(v) for v in _strip(t).tolist()]
    drawings.note(ax, 0.1, y + 0.5, f"strip {letter}")
    drawings.cells(
        ax, strip, _LEFT, y, fill=lambda i, j, v: color.get(j), size=8
    )
    for slot in range(len(strip)):
        drawings.note(
            ax, _LEFT + slot + 0.5, y + 1.22, str(slot), size=6, ha="center"
        )
    y += 1.7
    start = _LEFT + t.storage_offset() + 0.5
    for dim, step in _steps(t):
        text = f"dim {dim}: step {step}"
        if step:
            drawings.arrow(ax, (start, y), (start + step, y))
        drawings.note(ax, start + step + 0.15, y, text, size=8)
        y += 0.5
    y += 0.2 + 0.6 * (t.ndim == 3)
    x = _LEFT
    for i, block in enumerate(_blocks(t)):
        where = places[i] if t.ndim == 3 else places.reshape(block.shape)
        where = where.tolist()
        if t.ndim == 3:
            drawings.note(ax, x, y - 0.3, f"[{i}]", size=8)
        drawings.cells(
            ax,
            [[_text(v) for v in row] for row in block.tolist()],
            x,
            y,
            fill=lambda i, j, v, where=where: color[where[i][j]],
            size=8,
        )
        for r, row in enumerate(where):
            for c, slot in enumerate(row):
                drawings.note(
                    ax,
                    x + c + 0.94,
                    y + r + 0.84,
                    str(slot),
                    size=5.5,
                    ha="right",
                )
        x += block.shape[1] + 1
