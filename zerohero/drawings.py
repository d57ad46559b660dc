"""Primitives for explaining pictures: squares, boxes, arrows, notes.

A picture is drawn on a canvas whose unit is one square; ``y`` grows
downward, as one reads. Everything is black ink on white with a few light
fills, so that dark mode can invert it.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from zerohero.plots import INK

#: Light fills which keep dark ink readable.
FILLS = ["#cfe3f5", "#fbdcc4", "#cdeadd", "#f2d5e8", "#efe3b0", "#e4e4e4"]


def canvas(width: float, height: float, scale: float = 0.42) -> Axes:
    """An empty drawing ``width`` by ``height`` squares, without axes.

    Args:
        scale: inches for one square.
    """
    fig = plt.figure(
        figsize=(width * scale, height * scale), layout="none"
    )
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def _rows(values) -> list[list]:
    if isinstance(values, Tensor):
        values = values.tolist()
    elif isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str):
        values = list(values)
    values = list(values)
    if values and isinstance(values[0], (list, tuple)):
        return [list(row) for row in values]
    return [values]


def cells(
    ax: Axes,
    values,
    x: float = 0.0,
    y: float = 0.0,
    *,
    fill: str | list | Callable | None = None,
    fmt: str | None = None,
    labels: str | None = None,
    size: float = 9.0,
    width: float = 1.0,
    height: float = 1.0,
) -> Axes:
    """A row or a matrix of squares with a value in each.

    Args:
        values: a string, a list, a list of lists, or a 1-D or 2-D tensor.
        x, y: upper left corner, in squares.
        fill: one color; or colors shaped like ``values``; or a function
            of (row, column, value) that returns a color.
        fmt: number format such as ``".2f"``.
        labels: a line of text above the squares.
    """
    rows = _rows(values)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if callable(fill):
                color = fill(i, j, value)
            elif isinstance(fill, (list, tuple)):
                color = fill[i][j] if len(rows) > 1 else _rows(fill)[0][j]
            else:
                color = fill
            left, top = x + j * width, y + i * height
            ax.add_patch(
                Rectangle(
                    (left, top),
                    width,
                    height,
                    fc=color or "white",
                    ec=INK,
                    lw=0.8,
                )
            )
            text = format(value, fmt) if fmt else str(value)
            if value == "\n":
                text = "\\n"
            ax.text(
                left + width / 2,
                top + height / 2,
                text,
                ha="center",
                va="center",
                size=size,
            )
    if labels:
        ax.text(x, y - 0.18, labels, ha="left", va="bottom", size=size)
    return ax


def box(
    ax: Axes,
    x: float,
    y: float,
    w: float,
    h: float,
    text: str = "",
    *,
    color: str | None = None,
    size: float = 9.0,
) -> Axes:
    """A rounded box with centered text; (x, y) is its upper left corner."""
    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle="round,pad=0,rounding_size=0.15",
            fc=color or "white",
            ec=INK,
            lw=1.0,
        )
    )
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", size=size)
    return ax


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str | None = None,
    *,
    color: str | None = None,
    curve: float = 0.0,
    size: float = 8.0,
    lw: float = 1.2,
    style: str = "-|>",
) -> Axes:
    """An arrow from ``start`` to ``end``; ``curve`` bends it."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=10,
            connectionstyle=f"arc3,rad={curve}",
            color=color or INK,
            lw=lw,
            shrinkA=1,
            shrinkB=1,
        )
    )
    if text:
        ax.text(
            (start[0] + end[0]) / 2,
            (start[1] + end[1]) / 2 - 0.12,
            text,
            ha="center",
            va="bottom",
            size=size,
            color=color or INK,
        )
    return ax


def note(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 9.0,
    color: str | None = None,
    ha: str = "left",
) -> Axes:
    """A line of text whose left (or ``ha``) middle is at (x, y)."""
    ax.text(x, y, text, ha=ha, va="center", size=size, color=color or INK)
    return ax
