"""A small project: the book's machinery with two tiny chapters.

Builds in seconds what takes the whole book minutes, so that the build can
be interrupted, starved and repeated.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ["jupyter-book", "build", ".", "-W", "--keep-going", "-n"]
KEPT = ("_config.yml", "pyproject.toml", "constraints.txt", "README.md",
        "LICENSE", "Makefile", "book/references.bib")
FOLDERS = ("book/_ext", "book/_static", "book/_vendor", "zerohero", "data")
HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

({stem})=
# Chapter {stem}

A word to be changed, and the other chapter, {{ref}}`{other}`.

```{{code-cell}}
{code}
```
"""
TOC = """\
format: jb-book
root: book/one
defaults:
  numbered: true
parts:
  - caption: All
    chapters:
      - file: book/two
"""
ONE = "print(6 * 7)"
TWO = """\
from zerohero import shakespeare

print("plays:", len(shakespeare.PLAYS))"""


def project(folder: Path) -> Path:
    """Make the project in a new folder."""
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    skip = shutil.ignore_patterns("__pycache__", "shakespeare*.txt")
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=skip)
    (folder / "_toc.yml").write_text(TOC, encoding="utf-8")
    write(folder, "one", ONE)
    write(folder, "two", TWO)
    return folder


def write(folder: Path, stem: str, code: str) -> None:
    """Give a chapter of the project this code."""
    other = {"one": "two", "two": "one"}[stem]
    text = HEAD.format(stem=stem, other=other, code=code)
    path = folder / "book" / f"{stem}.md"
    path.write_text(text, encoding="utf-8")


def start(folder: Path, *line: str, **options) -> subprocess.Popen:
    """Begin a build (or `line`) in a process group of its own."""
    line = line or tuple(BUILD)
    env = {**os.environ, "PYTHONPATH": str(folder), "ZEROHERO_JOBS": "1"}
    here = str(Path(sys.executable).parent)
    env["PATH"] = here + os.pathsep + env["PATH"]
    command = shutil.which(line[0], path=env["PATH"])
    if os.name != "nt":  # a job in a shell's background is deaf to Ctrl-C
        options["preexec_fn"] = lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )
    return subprocess.Popen(
        [command, *line[1:]],
        cwd=folder,
        env={**env, **options.pop("env", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def log_of(process: subprocess.Popen) -> str:
    """Wait for the end of a build; what it has printed, without colors."""
    out = process.communicate(timeout=600)[0]
    return re.sub(r"\x1b\[[0-9;]*m", "", out)


def build(folder: Path, *line: str, **options) -> tuple[int, str]:
    """Build; return the exit code and the log."""
    process = start(folder, *line, **options)
    log = log_of(process)
    return process.returncode, log


def executed(log: str) -> set[str]:
    """Chapters that a build has run."""
    return set(re.findall(r"executed (\w+):", log))
