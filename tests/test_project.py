"""The files around the book agree with each other."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def pins(path: str) -> dict[str, str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s+]+)", text, re.M)
    return {re.sub(r"[-_.]+", "-", n.lower()): v for n, v in found}


def test_binder_installs_what_the_book_is_built_with():
    pinned, binder = pins("constraints.txt"), pins("binder/requirements.txt")
    assert {"torch", "numpy", "matplotlib", "jupyterlab"} <= binder.keys()
    for name, version in binder.items():
        assert pinned[name] == version, name


def test_binder_has_no_local_path_and_no_tool_chain():
    text = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8")
    lines = [x for x in text.split("\n") if x and not x.startswith("#")]
    assert not [x for x in lines if re.match(r"-e|\.|/", x)]
    for tool in ("jupyter-book", "sphinx", "myst-nb"):
        assert tool not in text


def test_binder_keeps_kernels_as_lean_as_the_build():
    start = (ROOT / "binder/start").read_text(encoding="utf-8")
    build = (ROOT / "book/_ext/execution.py").read_text(encoding="utf-8")
    table = re.search(r"^LEAN = (\{.*?^\})", build, re.M | re.S)[1]
    exported = dict(re.findall(r"^export (\w+)=(\d+)$", start, re.M))
    assert exported == ast.literal_eval(table)


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binder_scripts_can_run(name):
    path = ROOT / "binder" / name
    assert os.access(path, os.X_OK) or os.name == "nt"
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash")


def workflows():
    return sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", workflows(), ids=lambda p: p.name)
def test_workflow_is_pinned_and_may_only_read(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_only_the_package_decides_the_version():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([\d.]+)"', text, re.M)[1]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {version}" in citation


def test_lower_bounds_in_the_package_exact_pins_in_one_place():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "==" not in text.split("[tool.")[0]
    assert pins("constraints.txt")["torch"] == "2.13.0"


def test_every_dependency_is_pinned_and_set_up_so():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = project["project"]
    wanted = [*project["dependencies"],
              *sum(project["optional-dependencies"].values(), [])]
    pinned = pins("constraints.txt")
    for line in wanted:
        name = re.match(r"[A-Za-z0-9_.-]+", line)[0].lower()
        assert re.sub(r"[-_.]+", "-", name) in pinned, f"{line}: no pin"
        assert re.search(r">=\d", line), f"{line}: no lower bound"
    for line in (ROOT / "constraints.txt").read_text("utf-8").split("\n"):
        assert not line or line[0] == "#" or re.fullmatch(
            r"[\w.-]+==[\w.+!-]+( ?;.*)?", line), line
    setup = (ROOT / "book/_ext/setup_env.py").read_text("utf-8")
    assert "constraints.txt" in setup


def test_the_package_needs_only_torch_numpy_and_matplotlib():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.M)[1]
    names = re.findall(r'"([a-z]+)', listed)
    assert sorted(names) == ["matplotlib", "numpy", "torch"]


def run(*command, **kwargs):
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, **kwargs
    )


def test_setup_explains_itself_and_refuses_nonsense():
    script = "book/_ext/setup_env.py"
    for arguments in ([], ["boook"]):
        done = run(sys.executable, script, *arguments)
        assert done.returncode != 0
        assert "usage" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="make is for Unix")
def test_every_make_target_is_explained():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()
    told = run("make", "help").stdout
    for target in phony:
        assert re.search(rf"^{target}:.*##", text, re.M), target
        assert re.search(rf"^{target}\b", told, re.M), target


def test_fonts_and_scripts_of_others_are_not_committed():
    listed = run("git", "ls-files").stdout
    if not listed:  # a copy without its history
        pytest.skip("not a git checkout")
    assert "_vendor" not in listed and ".woff" not in listed


def test_importing_the_package_is_cheap():
    """`zerohero` itself imports nothing; matplotlib only where drawn."""
    code = (
        "import sys, zerohero; assert 'torch' not in sys.modules;"
        "import zerohero.nn; assert 'matplotlib' not in sys.modules"
    )
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_installed_package_brings_what_a_notebook_needs():
    """Every file that pyproject.toml packs beside the code is there."""
    import tomllib

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tools = tomllib.loads(text)["tool"]["setuptools"]
    folder = ROOT / tools["package-dir"]["zerohero.corpora"]
    packed = tools["package-data"]["zerohero.corpora"]
    assert sorted(packed) == ["names.txt", "requirements.txt"]
    assert all((folder / name).is_file() for name in packed)
    assert "zerohero.corpora" in tools["packages"]
