"""One browser and one server for all tests of the built site."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright
from serve import serving

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "tests")]

import launch  # noqa: E402
from chromium import FLAGS, chromium  # noqa: E402

BASE = launch.place().site
PREFIX = urlsplit(BASE).path


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
