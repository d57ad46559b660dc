"""Set up all that building or testing the book needs, with plain Python.

    python3 book/_ext/setup_env.py book          # then: see `make book`
    python3 book/_ext/setup_env.py book test lab

It creates ``.venv``, installs the pinned versions of ``constraints.txt``,
fetches KaTeX's stylesheet and fonts and the tools of the site, and prepares
the corpora. A step whose inputs have not changed since it last succeeded is
skipped.

Environment:
    TORCH_INDEX   package index to take torch from. On Linux without an
                  NVIDIA driver the default is PyTorch's index of CPU
                  builds, if it can be reached; empty means: the usual one.
    VENV          folder of the virtual environment (default: .venv).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(os.environ.get("VENV") or ROOT / ".venv").absolute()
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
VENDOR = ROOT / "book" / "_vendor"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("book", "lab", "test")
WAY_OUT = (
    "[setup] Nothing half-made is kept: mend the cause (network? "
    "disk space? `df -h .`) and run the same command again."
)


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def run(*command: str | os.PathLike, **kwargs) -> None:
    done = subprocess.run([os.fspath(c) for c in command], **kwargs)
    if done.returncode:
        shown = " ".join(os.fspath(c) for c in command)
        sys.exit(
            f"[setup] failed with exit code {done.returncode}: {shown}\n"
            f"{WAY_OUT}"
        )


def torch_index() -> str:
    """The index of CPU builds where it helps and answers, else nothing."""
    if "TORCH_INDEX" in os.environ:
        return os.environ["TORCH_INDEX"]
    if not sys.platform.startswith("linux") or shutil.which("nvidia-smi"):
        return ""
    try:
        urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5).close()
    except OSError:
        say("PyTorch's index of CPU builds does not answer; using the usual")
        return ""
    return CPU_INDEX


def stamp(name: str, *inputs: str) -> tuple[Path, str]:
    digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
    return VENV / f".zerohero-{name}", digest


def create() -> None:
    """The virtual environment, whole or not at all."""
    say(f"creating {VENV}")
    try:
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    except BaseException as error:
        shutil.rmtree(VENV, ignore_errors=True)
        if isinstance(error, subprocess.CalledProcessError):
            error = "on Debian: `apt-get install python3-venv`, if that lacks"
        elif not isinstance(error, OSError):
            raise
        sys.exit(f"[setup] {VENV} cannot be made ({error})\n{WAY_OUT}")


def install(extras: list[str]) -> None:
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    texts = [f.read_text("utf-8") for f in files]
    path, digest = stamp("installed", *texts, sys.version, str(ROOT))
    done = json.loads(path.read_text()) if path.is_file() else {}
    have = done.get("extras", []) if done.get("digest") == digest else []
    if set(extras) <= set(have) and PYTHON.exists():
        return
    extras = sorted({*extras, *have})
    if not PYTHON.exists():
        create()
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    index = torch_index()
    pinned = [
        line.strip()
        for line in files[1].read_text("utf-8").splitlines()
        if line.startswith("torch==")
    ]
    pinned = pinned or ["torch"]
    say("installing torch")
    where = ["--extra-index-url", index] if index else []
    run(*pip, "--quiet", *pinned, "--constraint", files[1], *where)
    say(f"installing the tools for {', '.join(extras)}")
    what = f"{ROOT}[{','.join(extras)}]"
    run(*pip, "--quiet", "--constraint", files[1], "--editable", what)
    path.write_text(json.dumps({"digest": digest, "extras": extras}))


def katex() -> None:
    """Stylesheet and fonts of the KaTeX that renders the mathematics."""
    import_version = (
        "from sphinxcontrib import katex; print(katex.katex_version)"
    )
    version = subprocess.run(
        [PYTHON, "-c", import_version],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    target = VENDOR / "katex"
    marker = target / "VERSION"
    if marker.is_file() and marker.read_text() == version:
        return
    say(f"fetching KaTeX {version}")
    npm = SCRIPTS / ("npm.exe" if os.name == "nt" else "npm")
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR) as half:
        env = {**os.environ}
        env["PATH"] = f"{SCRIPTS}{os.pathsep}{env['PATH']}"
        pack = [npm, "pack", "--silent", f"katex@{version}"]
        run(*pack, cwd=half, env=env, stdout=subprocess.DEVNULL)
        archive = next(Path(half).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(half, filter="data")
        dist = Path(half) / "package" / "dist"
        fresh = Path(half) / "katex"
        (fresh / "fonts").mkdir(parents=True)
        shutil.copy(dist / "katex.min.css", fresh)
        for font in (dist / "fonts").glob("*.woff2"):
            shutil.copy(font, fresh / "fonts")
        (fresh / "VERSION").write_text(version)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


def site_tools() -> None:
    """What makes the site small and searchable, as package-lock.json pins."""
    source, target = ROOT / "book" / "_ext" / "tools", VENDOR / "tools"
    names = ("package.json", "package-lock.json")
    wanted = [(source / n).read_bytes() for n in names]
    marker = target / "DONE"
    digest = hashlib.sha256(b"".join(wanted)).hexdigest()
    if marker.is_file() and marker.read_text() == digest:
        return
    say("fetching the tools of the site")
    npm = SCRIPTS / ("npm.exe" if os.name == "nt" else "npm")
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR) as half:
        for name, content in zip(names, wanted, strict=True):
            (Path(half) / name).write_bytes(content)
        env = {**os.environ}
        env["PATH"] = f"{SCRIPTS}{os.pathsep}{env['PATH']}"
        run(npm, "ci", "--ignore-scripts", "--silent", cwd=half, env=env)
        (Path(half) / "DONE").write_text(digest)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(half, target, symlinks=True)


def main(extras: list[str]) -> None:
    unknown = set(extras) - set(EXTRAS)
    if unknown or not extras:
        sys.exit(
            f"usage: python {Path(__file__).name} "
            f"{' '.join(f'[{e}]' for e in EXTRAS)}; got {sorted(unknown)}"
        )
    if sys.version_info < (3, 11):  # noqa: UP036  (run by any Python)
        sys.exit(
            "[setup] the book needs Python 3.11 or newer, this is "
            + sys.version.split()[0]
        )
    install(extras)
    if "book" in extras:
        katex()
        site_tools()
    run(PYTHON, "-m", "zerohero.data")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("[setup] interrupted: the same command goes on from here")
