"""The ladder: one row for every model of the book, recorded by its run.

A chapter calls :func:`record` with what it has just measured; the build
reads the rows out of the executed notebooks, so that the table of results
cannot be older than the runs. Outside a notebook a row is only returned.
"""

import json
import math
import os
from html import escape
from pathlib import Path

#: Rows recorded in this session, oldest first.
ROWS: list[dict] = []
CORPORA = ("names", "shakespeare")
COLUMNS = (
    "model",
    "corpus",
    "context",
    "parameters",
    "train (nats)",
    "val (nats)",
    "val (bits)",
    "spread",
    "seconds",
)


def record(
    model: str,
    corpus: str,
    *,
    context: int,
    params: int,
    train: float,
    val: float,
    seconds: float,
    spread: float | None = None,
    seeds: int = 1,
    sample: str | None = None,
) -> dict:
    """Put one model on the ladder and return its row.

    Args:
        model: what it is, in a few words, told apart from every other row.
        corpus: ``"names"`` or ``"shakespeare"``.
        context: symbols that a prediction can look back on.
        params: numbers learned or counted.
        train, val: mean loss in nats per character.
        seconds: of training or counting, on this machine.
        spread: largest minus smallest validation loss over ``seeds`` runs.
        sample: a piece of generated text, kept with the row.

    Raises:
        ValueError: unknown corpus, a loss that is not finite or negative,
            or a spread without at least two seeds.
    """
    if corpus not in CORPORA:
        raise ValueError(f"corpus is {corpus!r}, must be one of {CORPORA}")
    for name, loss in (("train", train), ("val", val)):
        if not (math.isfinite(float(loss)) and float(loss) >= 0):
            raise ValueError(
                f"{name} loss of {model!r} is {loss}: a row of the ladder "
                "needs a finite loss in nats per character"
            )
    if (spread is not None) != (seeds > 1):
        raise ValueError(
            f"{model!r}: spread={spread} with seeds={seeds}; a spread "
            "belongs to two seeds or more, and they to a spread"
        )
    row = {
        "model": model,
        "corpus": corpus,
        "context": int(context),
        "params": int(params),
        "train": float(train),
        "val": float(val),
        "bits": float(val) / math.log(2),
        "seconds": float(seconds),
        "spread": None if spread is None else float(spread),
        "seeds": int(seeds),
        "sample": sample,
    }
    ROWS[:] = [
        r for r in ROWS if (r["model"], r["corpus"]) != (model, corpus)
    ]
    ROWS.append(row)
    _publish(row)
    return row


def _publish(row: dict) -> None:
    """Leave the row in the notebook's output, where the build finds it."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if getattr(get_ipython(), "kernel", None) is None:
        return
    # the form of a glued value: nothing to see, metadata to be found
    prefix = "application/papermill.record/"
    name = f"ladder: {row['model']} on {row['corpus']}"
    display(
        {prefix + "text/plain": repr(row)},
        raw=True,
        metadata={
            "scrapbook": {"name": name, "mime_prefix": prefix},
            "zerohero_ladder": row,
        },
    )


class Table:
    """Rows of the ladder that show themselves as text and as HTML.

    The corpus has a column of its own only where the rows have several.
    """

    def __init__(self, rows: list[dict]):
        self.rows = rows
        self.several = len({r["corpus"] for r in rows}) > 1

    def _lines(self) -> list[list[str]]:
        """The head and one line of cells for every row."""
        lines = [list(COLUMNS)]
        for r in self.rows:
            spread = "" if r["spread"] is None else f"{r['spread']:.3f}"
            brief = ".2g" if r["seconds"] < 10 else ".0f"
            lines.append(
                [
                    r["model"],
                    r["corpus"],
                    str(r["context"]),
                    f"{r['params']:,}",
                    f"{r['train']:.3f}",
                    f"{r['val']:.3f}",
                    f"{r['bits']:.3f}",
                    spread,
                    format(r["seconds"], brief),
                ]
            )
        if self.several:
            return lines
        return [line[:1] + line[2:] for line in lines]

    def __repr__(self) -> str:
        lines, words = self._lines(), 2 if self.several else 1
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i < words else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        def kind(i: int) -> str:
            return ' class="word"' if self.several and i == 1 else ""

        head, *body = self._lines()
        top = "".join(
            f'<th scope="col"{kind(i)}>{c}</th>' for i, c in enumerate(head)
        )
        rest = "".join(
            f'<tr><th scope="row">{escape(cells[0])}</th>'
            + "".join(
                f"<td{kind(i)}>{escape(c)}</td>"
                for i, c in enumerate(cells[1:], 1)
            )
            + "</tr>"
            for cells in body
        )
        return (
            f'<table class="ladder"><thead><tr>{top}</tr></thead>'
            f"<tbody>{rest}</tbody></table>"
        )


def table(corpus: str | None = None, rows: list[dict] | None = None) -> Table:
    """The recorded rows, best validation loss last, as a table.

    Args:
        corpus: only this corpus; both by default.
        rows: rows to show instead of those of this session.
    """
    rows = ROWS if rows is None else rows
    chosen = [r for r in rows if corpus in (None, r["corpus"])]
    return Table(sorted(chosen, key=lambda r: (r["corpus"], -r["val"])))


def load() -> list[dict]:
    """All rows of the last build of the book.

    Raises:
        FileNotFoundError: the book has not been built in this checkout.
    """
    default = Path(__file__).parent.parent / "_build" / "ladder.json"
    path = Path(os.environ.get("ZEROHERO_LADDER", default))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it is written by the build of the book; "
            "run `make book` first"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def recorded(model: str, corpus: str) -> list[float]:
    """Validation losses of a run that is too long to repeat in a chapter.

    ``benchmarks/spread.py`` trains it with several seeds, once, and keeps
    losses, date, machine and versions in ``benchmarks/spread.json``; the
    chapter asserts that its own run lies among them.

    Raises:
        ValueError: no such run was recorded.
    """
    path = Path(__file__).parent.parent / "benchmarks" / "spread.json"
    runs = {}
    if path.is_file():
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    name = f"{model} on {corpus}"
    if name not in runs:
        raise ValueError(
            f"no run {name!r} in {path}: add it to benchmarks/spread.py and "
            "run that"
        )
    return list(runs[name]["val"])
