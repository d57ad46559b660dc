"""The built site in a real browser: what a reader meets on every page."""

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PAGES = sorted(
    p.relative_to(SITE).as_posix() for p in SITE.glob("book/*.html")
)
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
        pytest.fail(
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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def url():
    assert PAGES, "no pages: build the book first (`make book`)"
    handler = functools.partial(Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def visit(browser, address, *, dark=False, width=1280, script=None):
    """Open a page; return what went wrong, and what a script finds there."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page, trouble = context.new_page(), []
    home = address.split("/book/")[0]
    page.on(
        "request",
        lambda r: None
        if r.url.startswith((home, "data:", "blob:"))
        else trouble.append(f"asks another host: {r.url}"),
    )
    page.on("pageerror", lambda e: trouble.append(f"script error: {e}"))
    page.on(
        "console",
        lambda m: trouble.append(f"console: {m.text}")
        if m.type == "error"
        else None,
    )
    page.goto(address, wait_until="load")
    try:
        return trouble, script(page) if script else None
    finally:
        context.close()


BROKEN = """() => [...document.images].filter(i => i.loading !== "lazy" &&
  !(i.complete && i.naturalWidth)).map(i => i.src)"""


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_over_http(browser, url, page):
    trouble, broken = visit(
        browser, f"{url}/{page}", script=lambda p: p.evaluate(BROKEN)
    )
    assert trouble == []
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole_from_a_file(browser, page):
    trouble, _ = visit(browser, f"{SITE.as_uri()}/{page}")
    assert trouble == []


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(browser, url, page):
    def width(p):
        return p.evaluate("document.documentElement.scrollWidth")

    _, wide = visit(browser, f"{url}/{page}", width=390, script=width)
    assert wide <= 390


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_is_accessible(browser, url, page, dark):
    def violations(p):
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
        options = {"runOnly": {"type": "tag", "values": rules}}
        p.wait_for_timeout(300)
        found = Axe().run(p, options=options).response["violations"]
        if found:  # a color on its way to another is none of the page's
            p.wait_for_timeout(2000)
            found = Axe().run(p, options=options).response["violations"]
        return [
            (v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found
        ]

    _, found = visit(
        browser, f"{url}/{page}", dark=dark, script=violations
    )
    assert found == []


def test_mathematics_is_rendered_without_a_script():
    html = "".join(p.read_text(encoding="utf-8") for p in SITE.rglob("*.html"))
    assert 'class="katex' in html
    assert "katex-error" not in html
    sources = re.findall(r'<script[^>]*src="([^"]*)"', html)
    for heavy in ("fontawesome", "thebe", "mathjax", "require.js"):
        assert not [x for x in sources if heavy in x.lower()], heavy


def test_the_site_begins_at_its_root(browser, url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/index.html")
    page.wait_for_url("**/book/index.html")
    context.close()


def test_figures_are_turned_around_in_dark_mode(browser, url):
    def filters(p):
        return p.evaluate(
            "[...document.querySelectorAll('div.cell_output img')]"
            ".map(i => getComputedStyle(i).filter)"
        )

    page = f"{url}/book/bigrams.html"
    _, light = visit(browser, page, script=filters)
    _, dark = visit(browser, page, dark=True, script=filters)
    assert light and set(light) == {"none"}
    assert any("invert(1)" in f for f in dark)


def test_the_footer_tells_the_versions(browser, url):
    import torch

    def footer(p):
        return p.inner_text("footer.bd-footer-content, .bd-footer-content")

    _, text = visit(browser, f"{url}/book/bigrams.html", script=footer)
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert "Zero-Hero 1." in text
