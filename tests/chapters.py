"""Run chapters in kernels, under coverage: python tests/chapters.py STEM...

`python tests/run.py coverage --chapters` calls this. It takes as long as a
cold build of the same chapters, and a good deal more where plain Python
loops are long.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat.v4 as v4

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import execution  # noqa: E402


def chapter(path: Path) -> execution.Chapter:
    """A page's cells as a notebook that has not been run."""
    cells = execution.cells(path.read_text(encoding="utf-8"))
    notebook = v4.new_notebook(
        cells=[v4.new_code_cell(code) for _, code in cells]
    )
    lines = [line for line, _ in cells]
    return execution.Chapter(path.stem, path, notebook, lines, {}, "")


def main(stems: list[str]) -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        environ = {"ZEROHERO_LADDER": str(Path(place) / "ladder.json")}
        for stem in stems:
            page = chapter(ROOT / "book" / f"{stem}.md")
            execution.execute(page, 1, environ)
            errors = [p for p in page.problems if "failed" in p[1]]
            failed += bool(errors)
            seconds = page.data["execution_seconds"]
            print(f"{stem:16}{seconds:7.1f} s", *errors, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
