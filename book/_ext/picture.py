"""Redraw the picture of the README from the last build of the book.

    python book/_ext/picture.py      after `make book`
"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402

from zerohero import ladder, plots  # noqa: E402

TARGET = Path(__file__).resolve().parents[1] / "_static" / "ladder.png"


def draw(rows: list[dict], target: Path = TARGET) -> None:
    """Validation loss of all models, corpus by corpus, worst first."""
    plots.use_style()
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for ax, corpus in zip(axes, ladder.CORPORA, strict=True):
        best = sorted(
            (r for r in rows if r["corpus"] == corpus),
            key=lambda r: -r["val"],
        )
        ax.plot(range(len(best)), [r["val"] for r in best], "o-", ms=4)
        for i in (0, len(best) // 2, len(best) - 1):
            ax.annotate(
                best[i]["model"],
                (i, best[i]["val"]),
                xytext=(0, 10),
                textcoords="offset points",
                ha="left" if i < len(best) - 1 else "right",
                fontsize=8,
            )
        ax.set_xticks([])
        ax.set_xlabel(f"models on {corpus}, from the worst to the best")
    axes[0].set_ylabel("validation loss (nats)")
    fig.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(ladder.load())
