"""The built site in a real browser: what a reader meets on every page."""

import os
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import SITE

PAGES = sorted(
    p.relative_to(SITE).as_posix() for p in SITE.glob("book/*.html")
)
#: Pages beside the book's own, one of each kind.
OTHERS = [
    "search.html?q=softmax",
    "404.html",
    "_modules/zerohero/nn.html",
    "_modules/tests/test_nn.html",
]


def visit(browser, address, *, dark=False, width=1280, script=None):
    """Open a page; return what went wrong, and what a script finds there."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    page, trouble = context.new_page(), []
    home = re.match(r"file://|https?://[^/]+", address)[0]
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


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_page_is_whole_over_http(browser, url, page):
    trouble, broken = visit(
        browser, f"{url}/{page}", script=lambda p: p.evaluate(BROKEN)
    )
    assert trouble == []
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS[:1], *OTHERS[2:]])
def test_page_is_whole_from_a_file(browser, page):
    trouble, _ = visit(browser, f"{SITE.as_uri()}/{page}")
    assert trouble == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_page_fits_a_phone(browser, url, page):
    def width(p):
        return p.evaluate("document.documentElement.scrollWidth")

    _, wide = visit(browser, f"{url}/{page}", width=360, script=width)
    assert wide <= 360


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


#: In `make test` each page once wide and light, once narrow and dark; with
#: ZEROHERO_AXE=all, as every week, in all four ways.
WAYS = [(1280, False), (360, True), (1280, True), (360, False)]
WAYS = WAYS if os.environ.get("ZEROHERO_AXE") == "all" else WAYS[:2]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
@pytest.mark.parametrize("width, dark", WAYS)
def test_page_is_accessible(browser, url, page, width, dark):
    """No violation of WCAG 2.1 A and AA."""

    def violations(p):
        options = {"runOnly": {"type": "tag", "values": RULES}}
        p.wait_for_function("document.documentElement.dataset.boxes")
        found = Axe().run(p, options=options).response["violations"]
        if found:  # a color on its way to another is none of the page's
            p.wait_for_timeout(1500)
            found = Axe().run(p, options=options).response["violations"]
        return [
            (v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found
        ]

    _, found = visit(
        browser, f"{url}/{page}", dark=dark, width=width, script=violations
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
