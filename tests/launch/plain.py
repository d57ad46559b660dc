"""A chapter's notebook with nothing beside it but Jupyter.

    python tests/launch/plain.py [--env FOLDER] [chapter ...]
    python tests/run.py notebooks      a few chapters (some minutes)

A new virtual environment gets a kernel and nothing of the book; the built
`.ipynb` lies alone in an empty folder. Run from top to bottom, its first
cell has to bring the package and the texts. Where the package comes from is
set to this checkout, for the built version may not be published yet. Build
the book first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "_build" / "html" / "notebooks"
#: Short ones that between them need every kind of data.
STEMS = ("tensors", "bigrams", "embeddings")

sys.path[:0] = [str(ROOT / "book" / "_ext"), str(Path(__file__).parent)]

import setup_env  # noqa: E402

import binder  # noqa: E402


def environment(place: Path, env: Path) -> dict[str, str]:
    """An environment with a kernel only, and a home without caches."""
    python = env / "bin" / "python"
    if not python.exists():
        venv.create(env, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        needs = ["nbclient", "ipykernel"]
        subprocess.run([*pip, *needs], check=True, stderr=subprocess.DEVNULL)
    drop = ("PYTHONPATH", "VIRTUAL_ENV", "ZEROHERO_DATA", "XDG_CACHE_HOME")
    out = {k: v for k, v in os.environ.items() if k not in drop}
    out["PATH"] = f"{env / 'bin'}{os.pathsep}{out['PATH']}"
    out["HOME"] = str(place / "home")
    checkout = place / "checkout"
    binder.checkout(checkout)
    out["ZEROHERO_SOURCE"] = str(checkout)
    index = setup_env.torch_index()
    if index:
        out["PIP_EXTRA_INDEX_URL"] = index
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stems", nargs="*", default=STEMS)
    parser.add_argument("--env", type=Path, help="environment to (re)use")
    args = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "home").mkdir()
        folder = (args.env or place / "env").absolute()
        env = environment(place, folder)
        for stem in args.stems or STEMS:
            alone = place / stem
            alone.mkdir()
            shutil.copy(NOTEBOOKS / f"{stem}.ipynb", alone)
            start = time.perf_counter()
            run = [folder / "bin" / "jupyter-execute", f"{stem}.ipynb"]
            run += ["--timeout=900"]
            done = subprocess.run(
                run, cwd=alone, env=env, capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
            word = "ok" if done.returncode == 0 else "FAILED"
            print(f"{stem:15}{word:8}{seconds:7.1f} s", flush=True)
            if done.returncode:
                failed.append(stem)
                print(done.stderr[-2000:])
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
