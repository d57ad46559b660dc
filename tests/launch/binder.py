"""Binder without a hub: its environment, its start, its launch paths.

    python tests/launch/binder.py [--env FOLDER] [--keep] [chapter ...]
    python tests/run.py binder         all chapters (a quarter of an hour)

What `repo2docker` does on mybinder.org is done here in a copy of what git
tracks: install `binder/requirements.txt` into a new virtual environment,
run `postBuild`, start JupyterLab through `start`, on one core and with 2 GB
of memory. Then each chapter is opened in Chromium through the path of its
launch button and run to the end. Prints a table; fails if a chapter does
not open as a notebook, a cell fails, or a kernel needs over 800 MB. Before
that the Dockerfile that repo2docker would build is looked at, and after it
`make lab` is tried with the same environment.
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
from urllib.parse import parse_qs, urlparse

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(Path(__file__).parent)]

import launch  # noqa: E402
import reader  # noqa: E402
import setup_env  # noqa: E402

KERNEL_MB = 800
MEMORY = 2 * 2**30


def chapters() -> list[str]:
    """Stems in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [
        page["file"].rpartition("/")[2]
        for part in toc["parts"]
        if part.get("numbered", True)
        for page in part["chapters"]
    ]


def path_of(stem: str) -> str:
    """The path that a chapter's launch button asks JupyterLab for."""
    link = urlparse(launch.place().binder(f"book/{stem}.md"))
    return parse_qs(link.query)["urlpath"][0]


def checkout(target: Path) -> None:
    """A clone as Binder has it: nothing but what git would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def install(folder: Path) -> float:
    """The environment of binder/requirements.txt; seconds it took."""
    start = time.perf_counter()
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    text = (ROOT / "binder" / "requirements.txt").read_text("utf-8")
    if not setup_env.torch_index():  # the pins without the index of builds
        lines = [x for x in text.split("\n") if not x.startswith("--")]
        text = "\n".join(lines).replace("+cpu", "")
    with tempfile.TemporaryDirectory() as place:
        listed = Path(place, "requirements.txt")
        listed.write_text(text, encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "-r", listed]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def dockerfile(place: Path) -> str:
    """What mybinder.org would build: the slow layer before the sources."""
    venv.create(place / "r2d", with_pip=True)
    python = place / "r2d" / "bin" / "python"
    listed = Path(__file__).with_name("requirements.txt")
    pip = [python, "-m", "pip", "install", "--quiet", "-r", listed]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    tool = [python, "-m", "repo2docker", "--no-build", "--debug", ROOT]
    told = subprocess.run(tool, capture_output=True, text=True, check=True)
    text = told.stdout + told.stderr
    runtime = (ROOT / "binder" / "runtime.txt").read_text("utf-8")
    version = runtime.strip().removeprefix("python-")
    order = [
        f"py-2d{version.replace('.', '-2e')}",  # the base environment
        "COPY --chown=0:0 src/binder/requirements.txt",
        "pip install --no-cache-dir -r",
        "COPY --chown=0:0 src/ ",
        "RUN ./binder/postBuild",
        "binder/start",
    ]
    at = [text.find(line) for line in order]
    assert -1 not in at and at == sorted(at), list(zip(order, at, strict=True))
    assert text.count("pip install") == 1, "the reader waits twice"
    return f"Dockerfile: Python {version}, environment before the sources"


def make_lab(book: Path, env: dict, folder: Path) -> dict:
    """`make lab`: the first chapter opens by itself, as a notebook.

    Its environment has the book's tools besides, so nothing is run here.
    """
    command = [folder / "bin" / "python", "book/_ext/lab.py"]
    server = reader.Lab(command, book, env)
    try:
        server.wait()
        with reader.browser() as window:
            row = reader.run_chapter(server, window, "", run=False)
    finally:
        server.stop()
    if row.get("opened") != "book/tensors.md":
        row["trouble"].append(f"opened {row.get('opened')}")
    return row


def environment(folder: Path) -> dict[str, str]:
    """What a session on Binder has; nothing of this process's Python."""
    drop = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS")
    env = {k: v for k, v in os.environ.items() if k not in drop}
    env["NB_PYTHON_PREFIX"] = str(folder)
    env["PATH"] = f"{folder / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stems", nargs="*", default=[])
    parser.add_argument("--env", type=Path, help="environment to (re)use")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = (args.env or Path(place, "env")).absolute()
        if not args.stems:
            print(dockerfile(Path(place)))
        book = Path(place, "book")
        seconds = install(folder)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"environment: {seconds:.0f} s, {size / 2**20:.0f} MB")
        checkout(book)
        env = environment(folder)
        env["JUPYTER_CONFIG_DIR"] = str(Path(place, "config"))
        env["JUPYTERLAB_WORKSPACES_DIR"] = str(Path(place, "workspaces"))
        subprocess.run(["./binder/postBuild"], cwd=book, env=env, check=True)
        server = reader.Lab(
            ["./binder/start", "jupyter", "lab"],
            book,
            env,
            MEMORY,
            Path(place, "lab.log"),
        )
        try:
            print(f"JupyterLab answers after {server.wait():.1f} s\n")
            print(f"{'chapter':15}{'cells':>6}{'opens':>8}{'runs':>8}"
                  f"{'kernel':>9}{'session':>9}")
            with reader.browser() as window:
                for stem in args.stems or chapters():
                    picture = args.pictures and args.pictures / f"{stem}.png"
                    row = reader.run_chapter(
                        server, window, path_of(stem), picture=picture
                    )
                    rows.append(row)
                    report(stem, row)
        finally:
            server.stop()
        if not args.stems:
            rows.append(make_lab(book, env, folder))
            report("make lab", rows[-1])
    bad = [r for r in rows if r["trouble"] or r["kernel_mb"] > KERNEL_MB]
    print(f"\n{len(rows) - len(bad)} of {len(rows)} chapters in order")
    return int(bool(bad))


def report(stem: str, row: dict) -> None:
    """One line of the table, and what went wrong below it."""
    print(
        f"{stem:15}{row.get('cells', 0):>6}"
        f"{row.get('launch', float('nan')):>6.1f} s"
        f"{row.get('run', float('nan')):>6.1f} s"
        f"{row['kernel_mb']:>6.0f} MB{row['all_mb']:>6.0f} MB",
        flush=True,
    )
    for trouble in row["trouble"]:
        print(f"    {trouble}")
    if row["kernel_mb"] > KERNEL_MB:
        print(f"    over {KERNEL_MB} MB")


if __name__ == "__main__":
    sys.exit(main())
