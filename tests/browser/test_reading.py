"""What makes the site pleasant: light, findable, linked, usable by keys."""

import gzip
import io
import json
import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import execution
import launch
import pytest
import yaml
from conftest import BASE, ROOT, SITE
from PIL import Image
from weigh import weigh

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [
    Path(page["file"]).stem
    for part in TOC["parts"]
    if part.get("numbered", True)
    for page in part["chapters"]
]
BACK = [
    Path(page["file"]).stem
    for part in TOC["parts"]
    if not part.get("numbered", True)
    for page in part["chapters"]
]
ALL = ["index", *CHAPTERS, *BACK]


@cache
def html(path: str) -> str:
    return (SITE / path).read_text(encoding="utf-8")


# --- light ---------------------------------------------------------------


@pytest.mark.parametrize("stem", ALL)
def test_page_weighs_little_and_asks_nobody_else(browser, url, stem):
    weights, foreign = weigh(browser, f"{url}/book/{stem}.html")
    assert foreign == []
    assert weights["page"] > 1000 and weights["style"] > 1000
    assert sum(weights.values()) - weights["figures"] <= 300_000


def test_page_has_one_stylesheet_and_one_script():
    text = html("book/gpt.html")
    assert len(re.findall(r'rel="stylesheet"', text)) == 1
    assert len(re.findall(r"<script[^>]*\bsrc=", text)) == 1


# --- search --------------------------------------------------------------

#: What a reader types, and the chapters that answer it.
QUESTIONS = {
    "why is my loss nan": "learning gradients",
    "cross entropy from logits": "learning",
    "keepdim broadcasting": "tensors bigrams",
    "batchnorm eval mode": "initialization nn",
    "BPE merges": "tokens",
    "how do I sample with temperature": "gpt bigrams",
    "view size is not compatible with input tensor's size and stride":
        "tensors",
    "why does the gradient accumulate": "gradients",
    "dead relu neurons": "initialization",
    "choosing a learning rate": "sequences",
    "residual connection why": "gpt",
    "dilated convolution": "wavenet",
    "how big should the loss be at the start": "initialization",
    "one hot encoding versus embedding": "embeddings",
    "why divide by square root of head size": "attention",
    "why can't GPT count letters in a word": "tokens",
    "backward pass of batch norm by hand": "backprop",
    "add-one smoothing zero probability": "bigrams",
    "torch.nn.Module parameters state_dict": "nn",
    "minibatch stochastic gradient descent": "learning",
}


def found(page, question: str) -> list[str]:
    """The first three pages that the search shows for a question."""
    page.fill(".bd-search-container input", question)
    page.wait_for_function(
        "q => document.querySelector('#search-results').dataset.q === q",
        arg=question,
    )
    links = page.locator("ol.zh-found a.zh-page").all()[:3]
    return [Path(urlsplit(x.get_attribute("href")).path).stem for x in links]


def test_search_answers_what_readers_ask(context):
    """From a file, so that no server helps."""
    assert len(QUESTIONS) == 20
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/search.html")
    answers = {q: found(page, q) for q in QUESTIONS}
    wrong = {
        q: seen
        for q, seen in answers.items()
        if not set(seen) & set(QUESTIONS[q].split())
    }
    assert len(wrong) <= 2, wrong


def test_search_starts_from_any_page_and_leads_to_the_place(context, url):
    page = context.new_page()
    page.goto(f"{url}/book/tensors.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("Kneser-Ney")
    page.keyboard.press("Enter")
    page.wait_for_selector("ol.zh-found a.zh-page")
    first = page.locator("ol.zh-found .zh-hit a").first
    assert "Kneser-Ney" in first.inner_text()
    first.click()
    page.wait_for_url("**/book/bigrams.html#*")


def test_search_says_when_it_finds_nothing(context):
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/search.html?q=xylophonequartet")
    page.wait_for_selector("#search-results [role=status]")
    assert "Nothing found" in page.inner_text("#search-results")


# --- glossary ------------------------------------------------------------


def test_terms_tell_their_meaning_on_hover_and_on_focus(context):
    page = context.new_page()
    page.goto(f"{SITE.as_uri()}/book/bigrams.html")
    term = page.locator("a.zh-term", has_text="perplexity").first
    tip = page.locator("#" + term.get_attribute("aria-describedby"))
    assert tip.get_attribute("role") == "tooltip" and not tip.is_visible()
    term.hover()
    assert tip.is_visible() and "loss" in tip.inner_text()
    box = tip.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # it may be pointed at
    page.wait_for_timeout(500)
    assert tip.is_visible()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.mouse.move(0, 0)
    term.focus()
    assert tip.is_visible()
    term.evaluate("t => t.blur()")
    assert not tip.is_visible()
    assert term.get_attribute("href").startswith("glossary.html#term-")


@pytest.mark.parametrize("stem", CHAPTERS)
def test_chapter_explains_its_terms_briefly(stem):
    text = html(f"book/{stem}.html")
    named = re.findall(r'class="zh-term[^"]*"[^>]*aria-describedby="([^"]+)"',
                       text)
    tips = text[text.find('<div class="zh-tips">') :]
    assert len(named) >= 5
    assert sorted(named) == sorted(re.findall(r'id="(tip-[^"]+)"', tips))
    boxes = re.findall(r'role="tooltip".*?</div>', tips, re.S)
    assert len(gzip.compress("".join(boxes).encode())) < 8_000


# --- links ---------------------------------------------------------------


def pages() -> list[str]:
    return sorted(
        p.relative_to(SITE).as_posix()
        for p in SITE.rglob("*.html")
        if "_static" not in p.parts
    )


@cache
def anchors(path: str) -> frozenset[str]:
    return frozenset(re.findall(r'\bid="([^"]+)"', html(path)))


def test_every_internal_link_leads_somewhere():
    broken = []
    for page in pages():
        if page in ("404.html", "index.html"):
            continue
        for raw in set(re.findall(r'<a\b[^>]*\bhref="([^"]+)"', html(page))):
            link = urlsplit(unescape(raw))
            if link.scheme or link.netloc:
                continue
            target = (SITE / page).parent / unquote(link.path)
            target = (target if link.path else SITE / page).resolve()
            if not target.is_file():
                broken.append((page, raw))
            elif link.fragment and target.suffix == ".html":
                name = target.relative_to(SITE.resolve()).as_posix()
                if unquote(link.fragment) not in anchors(name):
                    broken.append((page, raw))
    assert broken == []


def targets(path: str) -> set[str]:
    """Files of the site that a page's text links to."""
    links = re.findall(r'<a class="reference[^>]*href="([^"#]+)', html(path))
    here = (SITE / path).parent
    return {
        (here / x).resolve().relative_to(SITE.resolve()).as_posix()
        for x in links
        if not urlsplit(x).scheme and (here / x).resolve().is_file()
    }


@pytest.mark.parametrize("stem", CHAPTERS)
def test_chapter_module_and_test_link_to_each_other(stem):
    box = html(f"book/{stem}.html").partition('<aside class="zh-code"')[2]
    modules = re.findall(r'href="api\.html#module-zerohero\.(\w+)"', box)
    proofs = re.findall(r'href="\.\./_modules/tests/(\w+)\.html"', box)
    assert modules and proofs
    for name in set(modules):
        assert f'id="module-zerohero.{name}"' in html("book/api.html")
    for name in set(proofs):
        assert "book/api.html" in targets(f"_modules/tests/{name}.html")
    assert f"book/{stem}.html" in targets("book/api.html")


def test_every_module_of_the_reference_tells_where_it_lives():
    text = html("book/api.html")
    source = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    modules = re.findall(r"automodule:: zerohero\.(\w+)", source)
    lines = re.findall(
        r'<span id="api-(\w+)"></span>(?:(?!<span id="api-).)*?</h3>'
        r'<p class="zh-where">(.*?)</p>', text, re.S
    )
    assert [name for name, _ in lines] == modules
    for name, line in lines:
        assert f"/blob/main/zerohero/{name}.py" in line
        assert f'_modules/zerohero/{name}.html"' in line
        assert "Used in" in line or "Built in" in line or "Proven" in line


def test_test_pages_name_the_chapter_and_the_file():
    text = html("_modules/tests/test_bigrams.html")
    assert "book/bigrams.html" in targets("_modules/tests/test_bigrams.html")
    home = launch.place().url
    assert f'href="{home}/blob/main/tests/test_bigrams.py"' in text


# --- every page ----------------------------------------------------------


@pytest.mark.parametrize("stem", CHAPTERS)
def test_chapter_tells_what_it_takes_and_where_to_go(stem):
    text = html(f"book/{stem}.html")
    facts = re.search(r'<p class="zh-facts">(.*?)</p>', text)[1]
    minutes = int(re.search(r"(\d+) min to read", facts)[1])
    assert 8 <= minutes <= 90
    assert re.search(r"\d+ (s|min) to run", facts)
    assert 'class="left-prev"' in text or stem == CHAPTERS[0]
    assert 'class="right-next"' in text
    assert 'class="page-toc' in text


def meta(stem: str) -> dict[str, str]:
    head = html(f"book/{stem}.html").partition("<body")[0]
    tags = re.findall(
        r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', head
    )
    return {name: unescape(content) for name, content in tags}


@pytest.mark.parametrize("stem", ALL)
def test_page_introduces_itself(stem):
    told = meta(stem)
    assert told["og:url"] == f"{BASE}book/{stem}.html"
    assert told["og:site_name"] == "Zero-Hero"
    assert 20 <= len(told["description"]) <= 320
    assert told["og:image"].startswith(BASE)
    assert (SITE / told["og:image"].removeprefix(BASE)).is_file()
    canonical = f'<link rel="canonical" href="{BASE}book/{stem}.html"'
    assert canonical in html(f"book/{stem}.html")
    assert f"<loc>{BASE}book/{stem}.html</loc>" in html("sitemap.xml")


def test_descriptions_and_cards_differ():
    for key in ("description", "og:image", "og:title"):
        assert len({meta(stem)[key] for stem in ALL}) == len(ALL), key


def test_code_can_be_copied(context, url):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{url}/book/tensors.html")
    cell = page.locator("div.cell_input:visible").first
    cell.hover()
    cell.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_a_wrong_address_is_met_with_help(context, url):
    page, missing = context.new_page(), []
    page.on(
        "response",
        lambda r: missing.append(r.url) if r.status == 404 else None,
    )
    answer = page.goto(f"{url}/book/deep/bigrms.html")
    assert answer.status == 404
    assert missing == [answer.url]  # its style and script were found
    listed = page.locator("article a").evaluate_all("x => x.map(a => a.href)")
    for stem in CHAPTERS:
        assert f"{url}/book/{stem}.html" in listed
    page.fill("#zh-lost", "softmax")
    page.keyboard.press("Enter")
    page.wait_for_selector("ol.zh-found a.zh-page")


# --- keyboard ------------------------------------------------------------

SEEN = """() => {
  const shown = (e) => e.checkVisibility({visibilityProperty: true}) &&
    e.getClientRects().length > 0;
  const all = [...document.querySelectorAll("a[href], button, input, " +
    "summary, select, textarea, [tabindex='0']")];
  return all.filter((e) => shown(e) && e.tabIndex >= 0 && !e.disabled &&
    !e.closest("[inert], dialog:not([open]), details:not([open]) > " +
               ":not(summary)"))
    .map((e) => { e.dataset.reach = "no"; return e.outerHTML.slice(0, 90); });
}"""
STEP = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return "end";
  const again = e.dataset.reach === "yes";
  e.dataset.reach = "yes";
  const s = getComputedStyle(e), b = e.getBoundingClientRect();
  const ring = (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0)
    || s.boxShadow !== "none" || e.matches(".bd-search input");
  return {again, ring, html: e.outerHTML.slice(0, 120),
          seen: b.width > 0 && b.height > 0};
}"""


def walk(page):
    """Press Tab until the end; what was left out, what has no ring."""
    page.wait_for_function("document.documentElement.dataset.boxes")
    page.evaluate(SEEN)
    dull = []
    for _ in range(2000):
        page.keyboard.press("Tab")
        step = page.evaluate(STEP)
        if step == "end" or step["again"]:
            break
        if not step["ring"]:
            dull.append(step["html"])
    left = page.evaluate(
        "[...document.querySelectorAll('[data-reach=no]')]"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    return left, dull


@pytest.mark.parametrize("stem", ["index", "tokens"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_keyboard_reaches_everything(browser, url, stem, width):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{url}/book/{stem}.html")
    left, dull = walk(page)
    context.close()
    assert left == []
    assert dull == []


def test_the_first_tab_skips_to_the_text(context, url):
    page = context.new_page()
    page.goto(f"{url}/book/bigrams.html")
    page.keyboard.press("Tab")
    link = page.locator(":focus")
    assert "Skip to main content" in link.inner_text()
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")


def test_a_phone_opens_its_menus_by_keys(browser, url):
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(f"{url}/book/bigrams.html")
    button = page.locator("button.primary-toggle").first
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pst-primary-sidebar-modal[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector(
        "#pst-primary-sidebar-modal:not([open])", state="attached"
    )
    context.close()


# --- wide things, print --------------------------------------------------


@pytest.mark.parametrize("stem", ALL)
def test_print_cuts_no_code(context, url, stem):
    page = context.new_page()
    page.set_viewport_size({"width": 700, "height": 900})  # A4's text
    page.emulate_media(media="print")
    page.goto(f"{url}/book/{stem}.html")
    cut = page.evaluate(
        "[...document.querySelectorAll('pre, table, .katex-display, img')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth"
        " || e.getBoundingClientRect().right > innerWidth + 2)"
        ".map(e => [e.outerHTML.slice(0, 80), e.scrollWidth, e.clientWidth])"
    )
    assert cut == []
    for gone in ("#pst-primary-sidebar", "button.copybtn", ".zh-tips > *"):
        assert not page.locator(gone).first.is_visible()


def test_chapter_prints_to_pdf_with_all_its_text(context, url, tmp_path):
    from pypdf import PdfReader

    page = context.new_page()
    page.goto(f"{url}/book/bigrams.html")
    page.pdf(path=tmp_path / "chapter.pdf", format="A4")
    text = "".join(
        p.extract_text() for p in PdfReader(tmp_path / "chapter.pdf").pages
    )
    source = (ROOT / "book" / "bigrams.md").read_text(encoding="utf-8")
    flat = re.sub(r"\s", "", text)
    cells = _cells(source)
    missing = [
        line
        for line in cells
        if re.sub(r"\s", "", line) not in flat
    ]
    assert len(cells) > 100
    assert missing == []


def _cells(source: str) -> list[str]:
    """Visible lines of code of a chapter."""
    lines = []
    for match in execution.CELL.finditer(source):
        if re.search(r"hide-|remove-", match["body"][:200]):
            continue
        options = execution.OPTIONS.match(match["body"])
        code = match["body"][options.end() if options else 0 :]
        lines += [x for x in code.split("\n") if x.strip()]
    return lines


def test_wide_things_scroll_inside_themselves(browser, url):
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(f"{url}/book/gpt.html")
    page.wait_for_function("document.documentElement.dataset.boxes")
    boxes = page.evaluate(
        "[...document.querySelectorAll('pre, .katex-display, table')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => getComputedStyle(e).overflowX)"
    )
    context.close()
    assert boxes and set(boxes) <= {"auto", "scroll"}


@pytest.mark.parametrize("width", [390, 1280])
def test_far_cells_are_laid_out_in_the_end(browser, url, width):
    """Whoever captures the whole page must not find holes in it."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(f"{url}/book/bigrams.html")
    far = """n => [...document.querySelectorAll("div.cell, div.math")].filter(
        e => getComputedStyle(e).contentVisibility === "auto").length === n"""
    page.wait_for_function(far, arg=0)
    assert page.locator("div.cell").count() > 20
    context.close()


def test_the_whole_page_can_be_captured_in_the_dark(browser, url):
    """Blended figures once left all below the first 16,384 pixels black."""
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, color_scheme="dark"
    )
    page = context.new_page()
    page.goto(f"{url}/book/bigrams.html")
    page.wait_for_function(
        "[...document.querySelectorAll('div.cell')].every("
        "e => getComputedStyle(e).contentVisibility !== 'auto')"
    )
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    context.close()
    assert shot.height > 20_000
    bands = range(0, shot.height - 400, 400)
    grays = shot.convert("L")
    for y in bands:
        low, high = grays.crop((0, y, 390, y + 400)).getextrema()
        assert low < high, f"nothing from {y} on"


def test_the_map_of_the_book_agrees_with_its_chapters():
    """The opening page's table names only what a chapter says it needs."""
    costs = json.loads(
        (SITE.parent / "costs.json").read_text(encoding="utf-8")
    )
    source = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \{ref\}`(\w+)` \|[^|]*\| ([^|]*) \|", source, re.M)
    assert [stem for stem, _ in rows] == CHAPTERS
    for stem, needs in rows:
        said = set(costs[f"book/{stem}"]["needs"])
        named = set(re.findall(r"\w+", needs)) - {"nothing"}
        assert named <= said | {stem}, stem

