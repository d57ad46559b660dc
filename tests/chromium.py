"""Where the browser is that the checks of the site drive."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def chromium() -> str:
    """Path of the browser: $CHROMIUM, or the first known name on the path."""
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if not found:
        raise SystemExit(
            "no Chromium found. Install one (Debian: `apt-get install "
            "chromium`; elsewhere: `python -m playwright install chromium`) "
            "or set CHROMIUM to the path of yours."
        )
    return found
