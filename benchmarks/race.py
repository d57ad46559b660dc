"""What the races share: the machine, the corpora, the printed table."""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable

import torch

from zerohero import data
from zerohero.train import number_format, threads


def arguments(description: str, corpora: list[str]) -> argparse.ArgumentParser:
    """Options that every race has."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument(
        "--corpus", metavar="NAME_OR_FILE",
        help=f"{', '.join(corpora)}, or a text file of yours")
    parser.add_argument(
        "--fraction", type=float, default=1.0,
        help="run only this part of the reference's steps; its seconds are "
             "then extrapolated, and marked")
    parser.add_argument(
        "--processor", action="store_true",
        help="one thread, and the seconds that the processor gave to it: "
             "for a machine that is busy with other things")
    parser.add_argument(
        "--seeds", type=int, default=3,
        help="runs of ours; medians count")
    return parser


def corpus(name: str | None, first: str, then: str) -> data.Corpus:
    """The corpus asked for, else the lectures' file, else the book's own."""
    if name:
        kind = "names" if first == "lecture-names" else None
        return data.load(name, kind if os.path.exists(name) else None)
    try:
        return data.load(first)
    except FileNotFoundError:
        return data.load(then)


def begin(name: str, processor: bool = False) -> None:
    """Choose the clock; print where and with what the race is run."""
    n, clock = threads(), "wall clock"
    form = str(number_format()).removeprefix("torch.")
    if processor:  # everything here and in zerohero.train looks at this one
        torch.set_num_threads(1)
        time.perf_counter = time.process_time
        n, clock = 1, "seconds of the processor"
    print(f"{name}: {datetime.date.today()}, {platform.machine()}, "
          f"{os.cpu_count()} cores, {n} threads, {clock}, torch "
          f"{torch.__version__}, ours in {form}", flush=True)


class Table:
    """Rows of one width, printed as they come."""

    def __init__(self, *columns: tuple[str, str]):
        self.formats = [f for _, f in columns]
        self.row(*(name for name, _ in columns))

    def row(self, *values) -> None:
        """Values in the order of the columns; text is set as wide."""
        parts = []
        for value, form in zip(values, self.formats, strict=True):
            width = form.split(".")[0].rstrip("fd,").lstrip("<>")
            side = "<" if form.startswith("<") else ">"
            parts.append(f"{value:{side}{width}}" if isinstance(value, str)
                         else f"{value:{form}}")
        print("  ".join(parts).rstrip(), flush=True)


def median_run(run: Callable[[int], tuple], seeds: int) -> list[float]:
    """Medians, column by column, of what run(seed) returns."""
    rows = torch.tensor([run(seed) for seed in range(1, seeds + 1)],
                        dtype=torch.float64)
    return rows.median(0).values.tolist()
