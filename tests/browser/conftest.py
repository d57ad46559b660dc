"""One browser and one server for all tests of the built site."""

import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright
from serve import serving

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import launch  # noqa: E402

BASE = launch.place().site
PREFIX = urlsplit(BASE).path
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


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url():
    """Address of the site, served below its prefix and compressed."""
    assert (SITE / "book").is_dir(), "build the book first (`make book`)"
    with serving(SITE, PREFIX) as address:
        yield address


@pytest.fixture
def context(browser):
    """A fresh window of a desktop without animations."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
    )
    yield context
    context.close()
