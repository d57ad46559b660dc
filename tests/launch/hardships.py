"""The build where it is hard to build: set-up, network, disk, Pythons.

    python tests/launch/hardships.py [case ...]
    python tests/run.py hardships      all cases (some minutes, the network)

Each case builds a small project with two chapters by the commands of the
README, prints what came of it, and checks that it either works or says what
to do, and that the same command works again once the cause is gone.
`tests/build/test_hardships.py` has the quick cases.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "build"))

import small  # noqa: E402

PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")


class Skip(Exception):
    """This machine cannot show it."""


def command(folder: Path, *words, python="python3", alone=False, **env):
    """Run one command of the README; (exit code, output, seconds)."""
    line = [str(w) for w in words]
    if alone:  # a network with nothing in it but the machine itself
        inner = 'ip link set lo up && exec "$@"'
        line = ["unshare", "-n", "bash", "-c", inner, "-", *line]
    drop = ("PYTHONPATH", "VIRTUAL_ENV", "VENV")
    full = {k: v for k, v in os.environ.items() if k not in drop}
    start = time.perf_counter()
    done = subprocess.run(
        line,
        cwd=folder,
        env={**full, "PYTHON": python, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout, time.perf_counter() - start


def need_root() -> None:
    if os.name == "nt" or os.geteuid() or not shutil.which("unshare"):
        raise Skip("needs root on Linux")


def built(folder: Path) -> bool:
    return (folder / "_build" / "html" / "book" / "two.html").is_file()


def setup(place: Path) -> str:
    """A fresh clone at an odd path: first, second, offline, edited."""
    book = small.project(place / "mein Büchlein für größe")
    shutil.rmtree(book / "book" / "_vendor", ignore_errors=True)
    times = []
    for _ in range(2):
        code, log, seconds = command(book, "make", "book")
        assert code == 0 and built(book), log[-3000:]
        times.append(f"{seconds:.0f} s")
    if not os.geteuid() and shutil.which("unshare"):
        shutil.rmtree(book / "_build")
        code, log, seconds = command(book, "make", "book", alone=True)
        assert code == 0 and built(book), log[-3000:]
        times.append(f"{seconds:.0f} s offline")
    return f"works: {', '.join(times)}"


def offline(place: Path) -> str:
    """The first build without a network says what is missing."""
    need_root()
    book = small.project(place / "book")
    away = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place)}
    away |= {"PIP_CONFIG_FILE": os.devnull}
    code, log, seconds = command(book, "make", "book", alone=True, **away)
    assert code != 0 and "network" in log, log[-3000:]
    assert "Traceback" not in log, log[-3000:]
    return f"says so after {seconds:.0f} s: {_last(log)}"


@contextmanager
def tiny_disk(place: Path, size: str):
    """A disk of its own, with a function that makes it larger."""
    need_root()
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        raise Skip("may not mount")
    try:
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=90m", place], check=True
        )
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def disk(place: Path) -> str:
    """A disk that fills up at several moments of a build."""
    whole = small.project(place / "whole")
    code, log = small.build(whole)
    assert code == 0, log[-3000:]
    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}
    failed = 0
    for size in ("1300k", "1500k", "2500k", "4500k", "6500k", "7500k"):
        with tiny_disk(place / size, size) as enlarge:
            book = place / size / "book"
            try:
                small.project(book)
            except OSError:
                continue  # not even a clone fits
            code, log = small.build(book, env=quiet)
            if code:
                failed += 1
                assert "No space left" in log or "disk is full" in log, log
            enlarge()
            code, log = small.build(book, env=quiet)
            assert code == 0, log[-3000:]
            strange = _differences(whole / "_build/html", book / "_build/html")
            assert not strange, strange
    assert failed >= 3
    return f"failed {failed} times for lack of space, each time mended"


def disk_setup(place: Path) -> str:
    """A disk that fills up while the environment is installed."""
    for size in ("12m", "60m"):  # while it is created; while pip installs
        with tiny_disk(place / size, size):
            book = small.project(place / size / "book")
            code, log, seconds = command(
                book, "make", "book", TMPDIR=str(place)
            )
            assert code != 0 and "disk space" in log, log[-3000:]
            assert "Traceback" not in log.split("[setup]")[-1], log[-3000:]
            half = (book / ".venv").exists()
            assert half == (size == "60m"), "half an environment is kept"
    return f"says so after {seconds:.0f} s: {_last(log)}"


def pythons(place: Path) -> str:
    """Every Python on the path for which torch has a wheel."""
    told = []
    for name in PYTHONS:
        if not shutil.which(name):
            told.append(f"{name} not here")
            continue
        book = small.project(place / name)
        code, log, seconds = command(book, "make", "book", python=name)
        assert code == 0 and built(book), f"{name}: {log[-3000:]}"
        told.append(f"{name} {seconds:.0f} s")
    return ", ".join(told)


def _last(log: str) -> str:
    lines = [x for x in log.split("\n") if x.startswith("[setup]")]
    return lines[-1] if lines else ""


def _differences(a: Path, b: Path) -> list[str]:
    """Files of two sites that are not the same, apart from random names."""
    ours = {p.relative_to(a) for p in a.rglob("*") if p.is_file()}
    theirs = {p.relative_to(b) for p in b.rglob("*") if p.is_file()}
    both = [str(p) for p in ours & theirs]
    _, differ, broken = filecmp.cmpfiles(a, b, both, shallow=False)
    random = ("searchindex.js", "environment.pickle", ".buildinfo")
    return sorted(
        x for x in [*map(str, ours ^ theirs), *differ, *broken]
        if not x.endswith(random)
    )


CASES = {f.__name__: f for f in (disk, offline, disk_setup, setup, pythons)}


def main(names: list[str]) -> int:
    failed = 0
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as place:
            try:
                result = CASES[name](Path(place))
            except Skip as reason:
                result = f"skipped: {reason}"
            except AssertionError as error:
                failed += 1
                result = f"FAILED: {error}"
        print(f"{name:12}{result}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
