"""Rebuild on every change and show the book in the browser (`make live`)."""

import subprocess
import sys
from pathlib import Path

from livereload import Server

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
BUILD = ["jupyter-book", "build", ".", "-W", "--keep-going", "-n"]


def build() -> None:
    """One build; a failure is shown and waited out."""
    code = subprocess.run(BUILD, cwd=ROOT).returncode
    print("[live] built" if code == 0 else "[live] failed: see above")


if __name__ == "__main__":
    build()
    server = Server()
    for pattern in ("book/*.md", "book/*.bib", "zerohero/*.py", "*.yml"):
        server.watch(str(ROOT / pattern), build)
    for pattern in ("book/_static/css/*", "book/_static/js/*"):
        server.watch(str(ROOT / pattern), build)
    sys.exit(server.serve(root=str(SITE), open_url_delay=1))
