"""Plots of what a chapter has just computed, all in one style.

Every function takes the data first and an optional ``ax``, draws, labels
and returns the axes; none calls ``plt.show`` or sets a size. The style
keeps a white background: the site inverts line plots in dark mode.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

#: Colors that stay apart for color-blind readers (after Okabe and Ito),
#: darkened until each has a contrast of at least 3:1 on white.
COLORS = [
    "#0061a8",
    "#c24e00",
    "#007d5b",
    "#a83f86",
    "#8a6d00",
    "#1c7fa6",
    "#444444",
]
LINESTYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
INK = "#222222"


def use_style() -> None:
    """Set the book's figure style for this session.

    In a notebook the figures become SVG whose bytes repeat from run to
    run; anywhere else only matplotlib's settings change.
    """
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.2),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.prop_cycle": plt.cycler(color=COLORS)
            + plt.cycler(linestyle=LINESTYLES),
            "axes.grid": False,
            "font.size": 10,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "image.cmap": "Blues",
            "image.interpolation": "nearest",
            "svg.fonttype": "none",
            "svg.hashsalt": "zerohero",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
        }
    )
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    try:
        set_matplotlib_formats("svg", metadata={"Date": None})
    except AttributeError:  # not inside a notebook
        return


def _array(data) -> np.ndarray:
    if isinstance(data, Tensor):
        return data.detach().to(torch.float64).cpu().numpy()
    return np.asarray(data, dtype=float)


def _axes(ax: Axes | None) -> Axes:
    return plt.gca() if ax is None else ax


def loss_curve(
    losses: Sequence[float] | Tensor,
    *,
    ax: Axes | None = None,
    smooth: int | None = None,
    label: str | None = None,
    floors: Mapping[str, float] | None = None,
    step: int = 1,
) -> Axes:
    """Loss against training step.

    Args:
        losses: one loss (nats) for every ``step`` optimizer steps.
        smooth: length of the running mean drawn over the raw curve.
        floors: horizontal reference lines, name -> loss in nats.
    """
    ax = _axes(ax)
    y = _array(losses)
    x = np.arange(len(y)) * step
    if smooth and len(y) >= smooth > 1:
        color = ax._get_lines.get_next_color()
        ax.plot(x, y, color=color, alpha=0.2, lw=0.6, ls="-")
        mean = np.convolve(y, np.ones(smooth) / smooth, mode="valid")
        ax.plot(x[smooth - 1 :], mean, color=color, label=label, ls="-")
    else:
        ax.plot(x, y, label=label)
    for i, (name, value) in enumerate((floors or {}).items()):
        ax.axhline(value, color=INK, lw=1, ls=LINESTYLES[1 + i % 3])
        ax.annotate(
            name,
            (1, value),
            xytext=(4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats)")
    if label:
        ax.legend()
    return ax


def heatmap(
    matrix,
    *,
    ax: Axes | None = None,
    xlabels: Sequence[str] | None = None,
    ylabels: Sequence[str] | None = None,
    fmt: str | None = None,
    cmap: str | None = None,
    center: float | None = None,
) -> Axes:
    """A matrix as colored squares, dark = large.

    Args:
        matrix: (rows, columns).
        fmt: format of the number written into each square, such as
            ``".2f"``; nothing is written by default.
        center: the value drawn in white; the colors then run from orange
            (below) to purple (above).
    """
    ax = _axes(ax)
    m = _array(matrix)
    if m.ndim != 2:
        raise ValueError(f"heatmap draws a matrix, got shape {m.shape}")
    if center is None:
        ax.imshow(m, cmap=cmap or "Blues", aspect="auto")
    else:
        reach = np.nanmax(np.abs(m - center)) or 1.0
        ax.imshow(
            m,
            cmap=cmap or "PuOr",
            vmin=center - reach,
            vmax=center + reach,
            aspect="auto",
        )
    for set_ticks, labels, n in (
        (ax.set_xticks, xlabels, m.shape[1]),
        (ax.set_yticks, ylabels, m.shape[0]),
    ):
        if labels is not None:
            names = [repr(s)[1:-1] if s.isspace() else s for s in labels]
            set_ticks(range(n), names, fontsize=8 if n <= 40 else 5)
    if fmt is not None:
        shade = ax.images[-1].norm(m)
        if center is not None:
            shade = 2 * np.abs(shade - 0.5)
        size = max(4.0, min(10.0, 60 / max(m.shape)))
        for (i, j), value in np.ndenumerate(m):
            ink = "white" if shade[i, j] > 0.6 else INK
            text = format(value, fmt)
            ax.text(
                j, i, text, ha="center", va="center", color=ink, size=size
            )
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    return ax


def bars(
    labels: Sequence[str],
    values,
    *,
    ax: Axes | None = None,
    color: str | None = None,
    horizontal: bool = False,
) -> Axes:
    """One bar for each label."""
    ax = _axes(ax)
    v = _array(values)
    if len(labels) != len(v):
        raise ValueError(f"{len(labels)} labels for {len(v)} bars")
    at = range(len(v))
    if horizontal:
        ax.barh(at, v, color=color or COLORS[0])
        ax.set_yticks(at, labels)
        ax.invert_yaxis()
    else:
        ax.bar(at, v, color=color or COLORS[0])
        ax.set_xticks(at, labels)
    return ax


def histogram(
    values,
    *,
    ax: Axes | None = None,
    bins: int = 60,
) -> Axes:
    """Distribution of a tensor, or of several given as a dict by name."""
    ax = _axes(ax)
    named = values if isinstance(values, Mapping) else {"": values}
    arrays = {k: _array(v).ravel() for k, v in named.items()}
    low = min(a.min() for a in arrays.values())
    high = max(a.max() for a in arrays.values())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for i, (name, a) in enumerate(arrays.items()):
        density, _ = np.histogram(a, edges, density=True)
        ax.stairs(
            density,
            edges,
            label=name or None,
            color=COLORS[i % len(COLORS)],
            ls=LINESTYLES[i % len(LINESTYLES)],
            fill=len(arrays) == 1,
            lw=1.5,
        )
    ax.set_ylabel("density")
    if any(arrays):
        ax.legend()
    return ax


def scatter_symbols(
    points,
    symbols: Sequence[str],
    *,
    ax: Axes | None = None,
    highlight: Sequence[str] | None = None,
) -> Axes:
    """Points in the plane (N, 2), each drawn as its symbol.

    ``highlight`` names the symbols to set apart, by color and by a ring.
    """
    ax = _axes(ax)
    p = _array(points)
    if p.ndim != 2 or p.shape[1] != 2 or len(p) != len(symbols):
        raise ValueError(
            f"{len(symbols)} symbols need points of shape "
            f"({len(symbols)}, 2), got {p.shape}"
        )
    marked = set(highlight or ())
    ax.scatter(p[:, 0], p[:, 1], s=0)
    for (x, y), s in zip(p, symbols, strict=True):
        on = s in marked
        ax.text(
            x,
            y,
            repr(s)[1:-1] if s.isspace() else s,
            ha="center",
            va="center",
            color=COLORS[1] if on else COLORS[0],
            weight="bold" if on or not s.isalnum() else "normal",
            size=10 if s.isalnum() or s.isspace() else 16,
            bbox=dict(boxstyle="circle,pad=0.15", fc="white", ec=COLORS[1])
            if on
            else None,
        )
    return ax


def lines(
    curves: Mapping[str, tuple],
    *,
    ax: Axes | None = None,
    xlabel: str = "",
    ylabel: str = "",
    logx: bool = False,
    logy: bool = False,
    marker: bool = False,
) -> Axes:
    """Several curves, name -> (x, y), told apart by color and dashes."""
    ax = _axes(ax)
    for i, (name, (x, y)) in enumerate(curves.items()):
        ax.plot(
            _array(x),
            _array(y),
            label=name,
            color=COLORS[i % len(COLORS)],
            ls=LINESTYLES[i % len(LINESTYLES)],
            marker=MARKERS[i % len(MARKERS)] if marker else None,
            ms=4,
        )
    if logx:
        ax.set_xscale("log")
    if logy:
        ax.set_yscale("log")
    for log, axis, (low, high) in (
        (logx, ax.xaxis, ax.get_xlim()),
        (logy, ax.yaxis, ax.get_ylim()),
    ):
        if log and high < 100 * low:  # few powers of ten: plain numbers
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if len(curves) > 1 or any(curves):
        ax.legend()
    return ax
