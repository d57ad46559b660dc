"""Execute the chapters: in parallel, measured, cached by all they depend on.

jupyter-cache keys a notebook by its code alone, so that a change in
``zerohero`` would leave stale pages. Here a fingerprint of everything that a
chapter's cells import, read and run on goes into the key.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import nbclient
import psutil
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "zerohero"
# Memory of a kernel, as in binder/start. glibc would keep what training has
# freed, up to hundreds of megabytes; told so, it would fetch every larger
# tensor from the system anew (a step then takes twice as long) but for the
# second line. oneDNN keeps a kernel for each shape of a 16-bit product, and
# a text that grows has many shapes: half a gigabyte after a few samples.
LEAN = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "50000000",
    "MALLOC_MMAP_THRESHOLD_": "4000000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}
#: Seconds that one cell may take.
CELL_TIMEOUT = 900
#: Megabytes that one chapter may take (Binder gives 2 GB at most).
MEMORY_MB = 800
#: A chapter over its budget by this factor fails. Judged is the processor's
#: time for each thread; two chapters that share a physical core take nearly
#: twice as much of it as one alone.
BUDGET_SLACK = 2.5
#: Kernels at work, and whether the build is being given up.
RUNNING: set = set()
INTERRUPTED = threading.Event()


@dataclass
class Chapter:
    """One notebook of the book on its way through the build."""

    docname: str
    path: Path
    notebook: NotebookNode
    lines: list[int]
    settings: dict
    key: str
    data: dict = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of the package that this one imports, itself included."""
    path = PACKAGE / f"{module}.py"
    if not path.is_file():
        return frozenset()
    seen = {module}
    for name in _imported(path.read_text(encoding="utf-8")):
        if name != module:
            seen |= _imports(name)
    return frozenset(seen)


def _imported(code: str) -> set[str]:
    """Stems of the ``zerohero`` modules that a piece of code imports."""
    found = set()
    try:
        tree = ast.parse(code)
    except SyntaxError:  # the run will say so, with its place
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names.append(node.module)
        else:
            continue
        for name in names:
            head, _, tail = name.partition(".")
            if head == "zerohero":
                found.add("__init__")
                if tail:
                    found.add(tail.split(".")[0])
    return found


def _digest(*parts: bytes) -> str:
    h = hashlib.sha256()
    for part in parts:
        h.update(hashlib.sha256(part).digest())
    return h.hexdigest()[:16]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@cache
def _environment() -> bytes:
    """Versions and files that every chapter runs on."""
    versions = {p: version(p) for p in ("torch", "numpy", "matplotlib")}
    versions["python"] = ".".join(map(str, sys.version_info[:2]))
    data = [_digest(_bytes(p)) for p in sorted((ROOT / "data").glob("*.txt"))]
    pins = _digest(_bytes(ROOT / "constraints.txt"))
    return json.dumps([versions, data, pins], sort_keys=True).encode()


def fingerprint(code: str, extra: bytes = b"") -> str:
    """A short hash of all that the result of this code depends on."""
    modules = set()
    for name in _imported(code):
        modules |= _imports(name)
    sources = [_bytes(PACKAGE / f"{m}.py") for m in sorted(modules)]
    return _digest(_environment(), extra, *sources)


CELL = re.compile(
    r"^(?P<fence>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$",
    re.S | re.M,
)
OPTIONS = re.compile(r"\A(---\n.*?\n---\n|(?::[^\n]*\n)+)", re.S)


def cells(text: str) -> list[tuple[int, str]]:
    """(line number, code) of every code cell of a MyST text."""
    found = []
    for match in CELL.finditer(text):
        body = match["body"]
        options = OPTIONS.match(body)
        start = options.end() if options else 0
        line = text.count("\n", 0, match.start("body") + start) + 1
        found.append((line, body[start:]))
    return found


def mark(text: str, extra: bytes = b"") -> str:
    """The chapter's text with its fingerprint in the kernelspec.

    It goes into the display name, so that no line moves.
    """
    code = "\n".join(code for _, code in cells(text))
    parts = [c for c in code.split("\n") if not c.lstrip().startswith("%")]
    print_ = fingerprint("\n".join(parts), extra)
    return re.sub(
        r"^(kernelspec:\n  display_name: Python 3)$",
        rf"\1 ({print_})",
        text,
        count=1,
        flags=re.M,
    )


def is_notebook(text: str) -> bool:
    """Whether this MyST text is to be executed."""
    head = re.match(r"---\n(.*?)\n---\n", text, re.S)
    return bool(head and re.search(r"^kernelspec:", head[1], re.M))


class _Watch(threading.Thread):
    """Peak memory (bytes) and processor time (seconds) of a kernel."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.done = client, threading.Event()
        self.peak, self.busy = 0, 0.0

    def run(self) -> None:
        while not self.done.wait(0.1):
            try:
                pid = self.client.km.provisioner.process.pid
                process = psutil.Process(pid)
                self.peak = max(self.peak, process.memory_info().rss)
                times = process.cpu_times()
            except (AttributeError, psutil.Error):
                continue
            self.busy = max(self.busy, times.user + times.system)


def execute(chapter: Chapter, threads: int, environ: dict) -> None:
    """Run all cells; fill in the outputs, the costs and the problems."""
    client = nbclient.NotebookClient(
        chapter.notebook,
        timeout=CELL_TIMEOUT,
        startup_timeout=300,
        record_timing=False,  # it would change the key of the cache
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(chapter.path.parent)}},
    )
    watch = _Watch(client)
    watch.start()
    RUNNING.add(client)
    start = time.perf_counter()
    env = {**os.environ, **environ, "OMP_NUM_THREADS": str(threads)}
    for name, value in LEAN.items():
        env.setdefault(name, value)
    try:
        client.execute(env=env)
    except (CellExecutionError, CellTimeoutError) as error:
        done = [
            i
            for i, c in enumerate(chapter.notebook.cells)
            if c.cell_type == "code" and c.get("execution_count") is not None
        ]
        place = chapter.lines[done[-1] if done else 0]
        chapter.problems.append((place, f"a cell failed\n{error}"))
    except RuntimeError as error:
        chapter.problems.append((1, f"the kernel failed: {error}"))
    finally:
        RUNNING.discard(client)
        watch.done.set()
        watch.join()
    seconds = time.perf_counter() - start
    chapter.data = {
        "execution_seconds": seconds,
        "busy_seconds": watch.busy,
        "peak_mb": watch.peak / 2**20,
        "ladder": list(_ladder(chapter.notebook)),
    }
    if chapter.problems:
        return
    chapter.problems.extend(_output_problems(chapter))
    chapter.data["over"] = [*_over(chapter, watch.busy / threads)]
    if os.environ.get("ZEROHERO_STRICT"):  # a reader's machine may be slower
        chapter.problems.extend((1, over) for over in chapter.data["over"])


def _over(chapter: Chapter, work: float):
    """What the chapter took beyond its budget of time and memory."""
    budget, peak = chapter.settings.get("budget"), chapter.data["peak_mb"]
    if budget and work > BUDGET_SLACK * budget:
        yield f"computed for {work:.0f} s, its budget is {budget} s"
    if peak > MEMORY_MB and sys.platform == "linux":  # what Binder runs
        yield f"took {peak:.0f} MB at its peak, at most {MEMORY_MB} MB"


def _ladder(notebook: NotebookNode):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            row = output.get("metadata", {}).get("zerohero_ladder")
            if row:
                yield dict(row)


def _is_glue(output: NotebookNode) -> bool:
    """Kept for the prose or the ladder, not shown under the cell."""
    glued = output.get("metadata", {}).get("scrapbook", {})
    return bool(glued.get("mime_prefix"))


def _output_problems(chapter: Chapter):
    """Figures without alt text, and anything written to stderr."""
    for line, cell in zip(
        chapter.lines, chapter.notebook.cells, strict=False
    ):
        if cell.cell_type != "code":
            continue
        shown = [o for o in cell.get("outputs", []) if not _is_glue(o)]
        if "figure" in cell.metadata.get("mystnb", {}) and len(shown) != 1:
            yield line, f"a figure cell with {len(shown)} outputs: it needs 1"
        for output in shown:
            if output.get("name") == "stderr":
                yield line, f"output on stderr: {output.text.strip()[:300]}"
            mimes = output.get("data", {})
            if any(m.startswith("image/") for m in mimes):
                image = cell.metadata.get("mystnb", {}).get("image", {})
                if len(image.get("alt", "").split()) < 4:
                    yield line, "figure without an alt text that says much"


def jobs() -> int:
    """How many chapters to run side by side."""
    return int(os.environ.get("ZEROHERO_JOBS", "0")) or min(4, cores())


def cores(root: str = "/sys/fs/cgroup") -> int:
    """Cores that this process may use: its own, or a container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        count = os.cpu_count() or 1
    try:
        quota, period = Path(root, "cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max": no quota
        return count


def list_fonts(environ: dict) -> None:
    """Let matplotlib list its fonts, in a folder that the build owns.

    A list in the reader's home may name fonts of an installation that is
    gone, and one that is made while a chapter runs may warn into its page.
    """
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        env={**os.environ, **environ},
        check=True,
        stderr=subprocess.DEVNULL,
    )


def execute_all(chapters: list[Chapter], cache_path: str, say) -> None:
    """Run the chapters that the cache does not know; store good ones.

    A chapter that asks for several threads runs alone; the others run side
    by side with one thread each. A failure stops no other chapter.
    """
    if not chapters:
        return
    total, width = len(chapters), jobs()
    place = Path(cache_path).parent
    environ = {
        "ZEROHERO_LADDER": str(place / "ladder.json"),
        "MPLCONFIGDIR": str(place / "matplotlib"),
    }
    list_fonts(environ)
    lock = threading.Lock()
    left = [total]

    def one(chapter: Chapter, threads: int) -> None:
        name = chapter.docname.rpartition("/")[2]
        with lock:
            say(f"executing {name} ...")
        execute(chapter, threads, environ)
        if INTERRUPTED.is_set():
            return
        with lock:
            left[0] -= 1
            say(
                f"{'FAILED' if chapter.problems else 'executed'} {name}: "
                f"{chapter.data['execution_seconds']:.1f} s, "
                f"{chapter.data['busy_seconds']:.1f} s of computing, "
                f"{chapter.data['peak_mb']:.0f} MB; "
                f"{left[0]} of {total} left"
                + "".join(f"; {o}" for o in chapter.data.get("over", []))
            )
            if not chapter.problems:
                store(chapter, cache_path)

    wide = [c for c in chapters if c.settings.get("threads", 1) > 1]
    narrow = [c for c in chapters if c not in wide]
    narrow.sort(key=lambda c: -c.settings.get("budget", 10))
    _side_by_side([(one, c, 1) for c in narrow], width)
    _side_by_side([(one, c, min(cores(), 4)) for c in wide], 1)


def _side_by_side(tasks: list[tuple], width: int) -> None:
    """Run all; when interrupted, end the kernels instead of waiting."""
    pool = ThreadPoolExecutor(width)
    try:
        for future in [pool.submit(*task) for task in tasks]:
            future.result()
    except BaseException:
        INTERRUPTED.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for client in list(RUNNING):
            _kill(client)
        raise
    finally:
        pool.shutdown()


def _kill(client) -> None:
    try:
        psutil.Process(client.km.provisioner.process.pid).kill()
    except (AttributeError, psutil.Error):  # not begun, or over
        pass


def store(chapter: Chapter, cache_path: str) -> None:
    """Put an executed chapter where myst-nb looks for it."""
    get_cache(cache_path).cache_notebook_bundle(
        CacheBundleIn(
            chapter.notebook, str(chapter.path), data=chapter.data
        ),
        check_validity=False,
        overwrite=True,
    )


def look_up(chapter: Chapter, cache_path: str) -> bool:
    """Whether the cache holds this chapter; its measurements if so."""
    try:
        record = get_cache(cache_path).match_cache_notebook(chapter.notebook)
    except KeyError:
        return False
    chapter.data = dict(record.data)
    return "ladder" in chapter.data
