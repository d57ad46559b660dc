"""Run the project's checks, each to its end, and report them together.

    python tests/run.py check    lint, unit tests, house rules (a minute)
    python tests/run.py coverage the unit tests, with the lines they reach
    python tests/run.py coverage --chapters [STEM...]
                                 the lines that chapters reach (all: minutes)
    python tests/run.py all      the same as check, then a cold build of the
                                 book, its notebooks and launch links, faults
                                 planted in a copy of it, and the built site
                                 in a real browser

Weekly, because they are slow:

    python tests/run.py binder     every chapter in Binder's environment
    python tests/run.py notebooks  notebooks with nothing beside them
    python tests/run.py hardships  the build where it is hard to build
    python tests/run.py lighthouse Lighthouse on every page of the built site
    python tests/run.py axe        axe on every page in all four ways

`make check` and `make test` set up the environment first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
BUILD = ["jupyter-book", "build", ".", "-W", "--keep-going", "-n"]
#: Tests that need a built book.
APART = ("browser", "build", "launch")


def ruff() -> int:
    return _run([sys.executable, "-m", "ruff", "check", "."])


def spelling() -> int:
    files = ["README.md", "CONTRIBUTING.md", "book", "zerohero", "data"]
    return _run(["codespell", *files])


def unit() -> int:
    ignore = [f"--ignore=tests/{name}" for name in APART]
    return _run([*PYTEST, *ignore, "tests", "zerohero"])


def coverage() -> int:
    """Lines of zerohero that the unit tests reach (slow, on demand)."""
    tool = [sys.executable, "-m", "coverage"]
    ignore = [f"--ignore=tests/{name}" for name in APART]
    code = _run([*tool, "run", "-m", "pytest", "-q", *ignore, "tests"])
    return code or _run([*tool, "report", "--skip-covered"])


def chapter_coverage(stems: list[str]) -> int:
    """Lines of zerohero that the chapters reach, run in their kernels."""
    pages = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"file: book/(\w+)", pages.split("Back matter")[0])
    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "coveragerc"
        settings.write_text(
            "[run]\nsource = zerohero\nparallel = true\nsigterm = true\n"
            "patch = subprocess\ndisable_warnings = no-data-collected\n"
            f"data_file = {place}/coverage\n",
            encoding="utf-8",
        )
        tool = [sys.executable, "-m", "coverage"]
        rc = [f"--rcfile={settings}"]
        code = _run([*tool, "run", *rc, "tests/chapters.py",
                     *(stems or listed)])
        _run([*tool, "combine", *rc, "--quiet"])
        return code or _run([*tool, "report", *rc])


def cold_build() -> int:
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    return _run(BUILD, ZEROHERO_STRICT="1")


def launch() -> int:
    return _run([*PYTEST, "tests/launch"])


def build_faults() -> int:
    return _run([*PYTEST, "tests/build"])


def browser() -> int:
    return _run([*PYTEST, "tests/browser"])


def binder() -> int:
    return _run([sys.executable, "tests/launch/binder.py"])


def notebooks() -> int:
    return _run([sys.executable, "tests/launch/plain.py"])


def hardships() -> int:
    return _run([sys.executable, "tests/launch/hardships.py"])


def lighthouse() -> int:
    return _run([sys.executable, "tests/browser/lighthouse.py"])


def axe() -> int:
    os.environ["ZEROHERO_AXE"] = "all"
    return _run([*PYTEST, "tests/browser/test_site.py", "-k", "accessible"])


STEPS = {
    "binder": [binder],
    "notebooks": [notebooks],
    "hardships": [hardships],
    "lighthouse": [lighthouse],
    "axe": [axe],
    "coverage": [coverage],
    "check": [ruff, spelling, unit],
    "all": [
        ruff,
        spelling,
        unit,
        cold_build,
        launch,
        build_faults,
        browser,
    ],
}


def _run(command: list[str], **settings: str) -> int:
    env = {**os.environ, **settings}
    here = str(Path(sys.executable).parent)
    env["PATH"] = here + os.pathsep + env.get("PATH", "")
    command = [shutil.which(command[0], path=env["PATH"]) or command[0]] + (
        command[1:]
    )
    return subprocess.run(command, cwd=ROOT, env=env).returncode


def main(name: str, *options: str) -> int:
    if name == "coverage" and "--chapters" in options:
        return chapter_coverage([o for o in options if o != "--chapters"])
    if name not in STEPS or options:
        print(__doc__)
        return 2
    report = []
    for step in STEPS[name]:
        print(f"\n=== {step.__name__}", flush=True)
        start = time.perf_counter()
        code = step()
        seconds = time.perf_counter() - start
        report.append((step.__name__, code, seconds))
        if step is cold_build and code:
            break  # there is no site to look at
    print("\n=== summary")
    for step, code, seconds in report:
        word = "ok" if code == 0 else f"FAILED ({code})"
        print(f"{step:14}{word:14}{seconds:7.1f} s")
    return int(any(code for _, code, _ in report))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [""]))
