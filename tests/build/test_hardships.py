"""Where building is hard: odd paths, edits, interruptions, crowds.

On a small project with two chapters. What needs the network, a full disk
or another Python is in tests/launch/hardships.py, weekly.
"""

import json
import os
import re
import shutil
import signal
import sys
import time

import psutil
import pytest
import small
from matplotlib.font_manager import FontManager

WAITS = """\
import pathlib
import time

pathlib.Path("started").write_text("")
time.sleep(300)"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A project that was built once, at a path with a space and accents."""
    folder = tmp_path_factory.mktemp("hard") / "mein Büchlein für größe"
    code, log = small.build(small.project(folder))
    assert code == 0, log[-3000:]
    assert small.executed(log) == {"one", "two"}
    return folder


def page(folder, stem):
    path = folder / "_build" / "html" / "book" / f"{stem}.html"
    return path.read_text(encoding="utf-8")


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_odd_path_is_no_hindrance(book):
    assert "42" in page(book, "one") and "plays: 9" in page(book, "two")
    assert "Chapter two" in page(book, "one"), "the reference is resolved"


def test_a_word_is_changed_without_running_anything(book):
    edit(book / "book" / "one.md", "A word", "One noun")
    code, log = small.build(book)
    assert code == 0, log[-3000:]
    assert small.executed(log) == set()
    assert "One noun to be changed" in page(book, "one")


def test_a_change_in_the_package_runs_what_imports_it(book):
    path = book / "zerohero" / "shakespeare.py"
    with path.open("a", encoding="utf-8") as file:
        file.write("\nPLAYS = PLAYS[:3]\n")
    code, log = small.build(book)
    assert code == 0, log[-3000:]
    assert small.executed(log) == {"two"}
    assert "plays: 3" in page(book, "two")


def test_a_greedy_chapter_fails_where_it_is_judged(tmp_path):
    folder = small.project(tmp_path)
    told = ["its budget is 0.01 s"]
    if sys.platform == "linux":
        told.append("at most 800 MB")
    for size, env in ((900, {}), (901, {"ZEROHERO_STRICT": "1"})):
        small.write(folder, "one", f'block = b"x" * ({size} << 20)')
        edit(folder / "book" / "one.md", "---\n\n(one)",
             "zerobook:\n  budget: 0.01\n---\n\n(one)")
        code, log = small.build(folder, env=env)
        assert all(what in log for what in told), log[-3000:]
        assert (code != 0) == bool(env), log[-3000:]
        assert not env or re.search(r"one\.md:.*budget", log), log[-3000:]


def test_what_the_reader_has_of_matplotlib_stays_outside(tmp_path):
    """An old list of fonts, settings of one's own: the page is the same."""
    folder = small.project(tmp_path / "book")
    home = tmp_path / "matplotlib"
    home.mkdir()
    (home / "matplotlibrc").write_text("lines.linewidth: 77\n")
    version = FontManager.__version__
    empty = {"_class": "FontManager", "_version": version, "ttflist": [],
             "afmlist": [], "default_size": None,
             "_FontManager__default_weight": "normal",
             "defaultFamily": {"ttf": "DejaVu Sans", "afm": "Helvetica"}}
    listed = home / f"fontlist-v{version}.json"
    listed.write_text(json.dumps(empty))
    small.write(folder, "one", """\
import matplotlib
from matplotlib import font_manager

print("width", matplotlib.rcParams["lines.linewidth"])
names = {f.name for f in font_manager.fontManager.ttflist}
print("fonts", "STIXGeneral" in names)""")
    code, log = small.build(folder, env={"MPLCONFIGDIR": str(home)})
    assert code == 0, log[-3000:]
    assert "width 1.5" in page(folder, "one")
    assert "fonts True" in page(folder, "one")


def test_plain_sphinx_builds_the_same_site(book):
    """The way out, should Jupyter Book 1 no longer be kept."""
    code, log = small.build(book, "jupyter-book", "config", "sphinx", ".")
    assert code == 0, log[-3000:]
    extension = os.pathsep.join([str(book), str(book / "book" / "_ext")])
    code, log = small.build(
        book, "sphinx-build", "-n", "-W", "--keep-going", "-d",
        "_build/.doctrees-plain", ".", "_build/plain",
        env={"PYTHONPATH": extension},
    )  # fmt: skip
    assert code == 0, log[-3000:]
    assert small.executed(log) == set()
    (book / "conf.py").unlink()
    sums = re.compile(r"\?(v|digest)=\w+")  # of style sheets, by their age
    for stem in ("one", "two"):
        name = f"book/{stem}.html"
        plain = (book / "_build" / "plain" / name).read_text("utf-8")
        assert sums.sub("", plain) == sums.sub("", page(book, stem))


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_an_interrupted_build_leaves_nothing_behind(book):
    small.write(book, "one", WAITS)
    process = small.start(book)
    begin = time.monotonic()
    while not (book / "book" / "started").exists():
        assert time.monotonic() - begin < 120 and process.poll() is None
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    log = small.log_of(process)
    small.write(book, "one", small.ONE)
    assert process.returncode not in (0, None)
    assert "Traceback" not in log, log[-3000:]
    assert "interrupted" in log
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "a kernel lives on"
    (book / "book" / "started").unlink()
    code, log = small.build(book)
    assert code == 0, log[-3000:]
    assert small.executed(log) <= {"one"}


def test_two_clones_build_at_the_same_time(book, tmp_path):
    twins = [tmp_path / "a", tmp_path / "b"]
    for twin in twins:
        shutil.copytree(book, twin, ignore=shutil.ignore_patterns("_build"))
    running = [small.start(twin) for twin in twins]
    logs = [small.log_of(process) for process in running]
    for twin, process, log in zip(twins, running, logs, strict=True):
        assert process.returncode == 0, log[-3000:]
        assert small.executed(log) == {"one", "two"}
        assert "42" in page(twin, "one")
