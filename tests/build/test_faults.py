"""Faults planted in a copy of the project: the build must fail each time.

The copy is built once as it is and must be good; then one fault at a time
goes in, the same command that CI uses must fail and name the place.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["jupyter-book", "build", ".", "-W", "--keep-going", "-n"]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", "html", "*.egg-info", ".hypothesis"
)


def build(folder: Path) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    here = str(Path(sys.executable).parent)
    env["PATH"] = here + os.pathsep + env["PATH"]
    done = subprocess.run(
        [shutil.which(COMMAND[0], path=env["PATH"]), *COMMAND[1:]],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A good build of a copy, with what was executed taken over."""
    copy = tmp_path_factory.mktemp("project") / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    code, log = build(copy)
    assert code == 0, log[-3000:]
    shutil.copytree(copy / "_build", copy.parent / "good")
    return copy


def first_cell(text: str) -> int:
    """Where the code of the first cell without options begins."""
    cells = list(re.finditer(r"^```\{code-cell\}\n(?![:-])", text, re.M))
    return cells[0].end()


def raising_cell(text):
    at = first_cell(text)
    return text[:at] + "1 / 0\n" + text[at:]


def broken_reference(text):
    return text + "\nSee {ref}`no-such-label` for more.\n"


def missing_glue(text):
    return text + "\nThe loss is {glue:text}`no-such-key:.2f` nats.\n"


def typed_number(text):
    return text + "\nThe loss is 2.4543 nats.\n"


def no_alt_text(text):
    return re.sub(r"^    alt: .*$", '    alt: ""', text, count=1, flags=re.M)


def undefined_term(text):
    return text + "\nThis is a {term}`no such term`.\n"


def stderr_output(text):
    at = first_cell(text)
    line = 'import sys; print("a warning", file=sys.stderr)\n'
    return text[:at] + line + text[at:]


def wrong_number(text):
    """The slope of tanh, 1 - t * t, becomes 1 + t * t."""
    return text.replace("(1 - t * t,)", "(1 + t * t,)")


FAULTS = {
    "raising cell": ("book/tensors.md", raising_cell, "ZeroDivisionError"),
    "broken reference": ("book/tensors.md", broken_reference, "no-such-label"),
    "missing glue key": ("book/tensors.md", missing_glue, "no-such-key"),
    "wrong number": ("zerohero/gradients.py", wrong_number, "gradients.md"),
    "typed number": ("book/tensors.md", typed_number, "2.4543"),
    "no alt text": ("book/tensors.md", no_alt_text, "alt text"),
    "undefined term": ("book/tensors.md", undefined_term, "no such term"),
    "stderr": ("book/tensors.md", stderr_output, "a warning"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_build_fails_and_names_the_place(project, fault):
    name, plant, message = FAULTS[fault]
    path = project / name
    good = path.read_text(encoding="utf-8")
    planted = plant(good)
    assert planted != good
    try:
        path.write_text(planted, encoding="utf-8")
        code, log = build(project)
        again, _ = build(project) if fault == "broken reference" else (1, "")
    finally:
        path.write_text(good, encoding="utf-8")
        shutil.rmtree(project / "_build")
        shutil.copytree(project.parent / "good", project / "_build")
    place = "gradients.md" if name.startswith("zerohero") else name
    assert code != 0, f"{fault}: the build came out green"
    assert again != 0, f"{fault}: a second build forgot the failure"
    lines = [line for line in log.split("\n") if "WARNING" in line]
    assert any(place in line for line in lines), log[-3000:]
    assert re.search(rf"{place}:\d+", log), "no line number"
    assert message in log
