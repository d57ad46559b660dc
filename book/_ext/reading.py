"""What a reader of the site has beyond the pages of Jupyter Book.

Time to read and to run under each title; glossary terms that tell their
meaning; links between chapter, module and test in every direction; an index
for the search in the browser; a helpful page for wrong addresses; and, last,
the small assets of :mod:`assets`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import assets
import execution
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.osutil import relative_uri

ROOT = execution.ROOT
SETUP = "python3 book/_ext/setup_env.py book"
#: Words a minute, and visible lines of code a minute, of somebody who learns.
WORDS, LINES = 220, 25
GIVES = re.compile(r"^- \*\*Gives\*\*:(.*?)(?=^- |^:::)", re.M | re.S)
GLOSSARY, API = "book/glossary", "book/api"


# --- who uses what -------------------------------------------------------


@cache
def modules() -> list[str]:
    """Stems of the package, in the order of the reference."""
    api = ROOT / f"{API}.md"
    if not api.is_file():
        return []
    text = api.read_text(encoding="utf-8")
    return re.findall(r"automodule:: zerohero\.(\w+)", text)


@cache
def chapters() -> dict[str, tuple[set[str], set[str]]]:
    """For every page with cells: (modules it gives, modules it imports)."""
    found = {}
    for path in sorted((ROOT / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if not execution.is_notebook(text):
            continue
        code = [code for _, code in execution.cells(text)]
        used = set().union(*map(execution._imported, code))
        line = GIVES.search(text)
        given = re.findall(r"zerohero\.(\w+)", line[1]) if line else []
        found[f"book/{path.stem}"] = (
            {m for m in given if m in modules()},
            {m for m in used if m in modules()},
        )
    return found


@cache
def tests() -> dict[str, list[str]]:
    """Test files of every module: the one of its name, else all users."""
    users = defaultdict(list)
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        code = path.read_text(encoding="utf-8")
        for module in execution._imported(code):
            users[module].append(path.stem)
    own = {m: [f"test_{m}"] for m in modules() if f"test_{m}" in users[m]}
    return {m: own.get(m, users[m]) for m in modules()}


def _title(app: Sphinx, docname: str) -> str:
    return app.env.titles[docname].astext()


def _order(app: Sphinx) -> list[str]:
    """Pages in the order of the book."""
    return [d for d in app.env.external_site_map if d in app.env.titles]


def _repository(app: Sphinx) -> str:
    options = app.config.html_theme_options
    url = options.get("repository_url", "").rstrip("/")
    branch = options.get("repository_branch", "main")
    return f"{url}/blob/{branch}" if url else ""


def _link(app: Sphinx, page: str, target: str, text: str) -> str:
    """HTML link from one page of the site to another one's place."""
    name, _, anchor = target.partition("#")
    uri = app.builder.get_relative_uri(page, name)
    uri += f"#{anchor}" if anchor else ""
    return f'<a class="reference internal" href="{uri}">{text}</a>'


def _module_links(app: Sphinx, page: str, module: str) -> str:
    """The reference and the tests of a module, as one line."""
    name = f"<code>zerohero.{module}</code>"
    proof = ", ".join(
        _link(app, page, f"_modules/tests/{t}", f"<code>tests/{t}.py</code>")
        for t in tests()[module]
    )
    where = _link(app, page, f"{API}#module-zerohero.{module}", name)
    return f"{where}, proven by {proof}" if proof else where


def chapter_box(app: Sphinx, page: str) -> str:
    """The end of a chapter: the code it built and used, and its proof."""
    given, used = chapters()[page]
    rows = []
    if not given:  # no chapter
        return ""
    for label, chosen in (
        ("Built here", given),
        ("Used here", used - given),
    ):
        items = [m for m in modules() if m in chosen]
        if items:
            lines = "".join(
                f"<li>{_module_links(app, page, m)}</li>" for m in items
            )
            rows.append(f"<dt>{label}</dt><dd><ul>{lines}</ul></dd>")
    if not rows:
        return ""
    return (
        '<aside class="zh-code" aria-label="Code and proof">'
        '<p class="rubric">The code of this chapter, and its proof</p>'
        f"<dl>{''.join(rows)}</dl></aside>"
    )


def module_line(app: Sphinx, page: str, module: str) -> str:
    """Where a module is built, used and tested."""
    def pages(which):
        return ", ".join(
            _link(app, page, d, escape(_title(app, d)))
            for d in _order(app)
            if d in chapters() and module in chapters()[d][which]
            and (which == 0 or module not in chapters()[d][0])
        )

    built, used = pages(0), pages(1)
    proof = ", ".join(
        _link(app, page, f"_modules/tests/{t}", f"<code>tests/{t}.py</code>")
        for t in tests()[module]
    )
    home = _repository(app)
    source = _link(
        app, page, f"_modules/zerohero/{module}", "source"
    )
    if home:
        source += (
            f' (<a class="reference external" href="{home}/zerohero/'
            f'{module}.py">in the repository</a>)'
        )
    parts = [f"Built in {built}." if built else ""]
    parts += [f"Used in {used}." if used else ""]
    parts += [f"Proven by {proof}." if proof else "", f"Read the {source}."]
    return f'<p class="zh-where">{" ".join(p for p in parts if p)}</p>'


def test_pages(app: Sphinx):
    """Every test of the package as a page, with the way back."""
    if app.builder.format != "html" or app.builder.name == "epub":
        return
    home = _repository(app)
    of = defaultdict(list)
    for module, names in tests().items():
        for name in names:
            of[name].append(module)
    for name, proven in sorted(of.items()):
        page = f"_modules/tests/{name}"
        code = (ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8")
        lines = "".join(
            f"<li>{_link(app, page, f'{API}#module-zerohero.{m}', m_name(m))}"
            + _built(app, page, m)
            + "</li>"
            for m in proven
        )
        html = app.builder.highlighter.highlight_block(code, "python")
        link = f"{home}/tests/{name}.py"
        away = (
            f'<p><a class="reference external" href="{link}">This file in '
            "the repository</a></p>"
            if home
            else ""
        )
        body = (
            f"<h1>tests/{name}.py</h1><p>What these tests prove:</p>"
            f"<ul>{lines}</ul>{away}{html}"
        )
        context = {"title": f"tests/{name}.py", "body": body, "parents": []}
        yield page, context, "page.html"


def m_name(module: str) -> str:
    return f"<code>zerohero.{module}</code>"


def _built(app: Sphinx, page: str, module: str) -> str:
    found = [
        _link(app, page, d, escape(_title(app, d)))
        for d in _order(app)
        if d in chapters() and module in chapters()[d][0]
    ]
    return f", built in {', '.join(found)}" if found else ""


# --- glossary ------------------------------------------------------------


def glossary(app: Sphinx) -> dict[str, tuple[str, str, list]]:
    """Term -> (anchor, meaning as HTML, chapters that build it)."""
    if hasattr(app, "zh_terms"):
        return app.zh_terms
    app.zh_terms = {}
    if GLOSSARY not in app.env.found_docs:
        return app.zh_terms
    tree = app.env.get_and_resolve_doctree(GLOSSARY, app.builder)
    for item in tree.findall(nodes.definition_list_item):
        meaning = next(item.findall(nodes.paragraph)).deepcopy()
        homes = []
        for link in list(meaning.findall(nodes.reference)):
            address = link.get("refuri", "").partition("#")[0]
            homes.append(posixpath.basename(address).removesuffix(".html"))
            link.replace_self(link.children)
        html = app.builder.render_partial(meaning)["fragment"].strip()
        html = re.sub(r"\s*See [^.]*\.(?=</p>$)", "", html)
        html = re.sub(r"^<p>|</p>$", "", html)
        for term in item.findall(nodes.term):
            app.zh_terms[term.astext()] = (term["ids"][0], html, homes)
    return app.zh_terms


#: Terms that mean other things elsewhere: explained in their own chapter.
EVERYDAY = set(
    "block buffer calibration channel discount gain generator head key layer "
    "leaf leak merge module novelty offset query schedule shape smoothing "
    "storage symmetry twin value view interpolation".split()
)
#: Nodes whose text is no prose to explain.
SILENT = (
    nodes.reference, nodes.title, nodes.literal, nodes.literal_block,
    nodes.math, nodes.math_block, nodes.strong, nodes.term, nodes.caption,
    nodes.table, nodes.rubric, addnodes.pending_xref, nodes.raw,
    nodes.footnote, nodes.citation, nodes.bullet_list, addnodes.desc,
)


def explain_terms(app: Sphinx, doctree, docname: str) -> None:
    """Link the first mention of each term of the glossary on a page."""
    if app.builder.format != "html" or docname == GLOSSARY:
        return
    if docname not in chapters():
        return
    terms = glossary(app)
    if not terms:
        return
    names = {t.lower(): t for t in terms}
    pattern = re.compile(
        r"(?<![\w-])("
        + "|".join(map(re.escape, sorted(terms, key=len, reverse=True)))
        + r")(s?)(?![\w-]|\s+norm\b)",
        re.I,
    )
    used = set()
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, nodes.paragraph):
            continue
        parents, node = [], text.parent
        while node is not None:
            parents.append(node)
            node = node.parent
        if any(isinstance(p, SILENT) for p in parents):
            continue
        new, last, words = [], 0, text.astext()
        for match in pattern.finditer(words):
            name = names[match[1].lower()]
            stem = posixpath.basename(docname)
            if name in used or (
                name.lower() in EVERYDAY and stem not in terms[name][2]
            ):
                continue
            used.add(name)
            new.append(nodes.Text(words[last : match.start()]))
            uri = relative_uri(
                app.builder.get_target_uri(docname),
                app.builder.get_target_uri(GLOSSARY),
            )
            anchor = terms[name][0]
            link = nodes.reference(
                "", match[0], internal=True, refuri=f"{uri}#{anchor}",
                classes=["zh-term"],
            )
            new.append(link)
            last = match.end()
        if new:
            new.append(nodes.Text(words[last:]))
            text.parent.replace(text, new)


TERM = re.compile(r'<a class="zh-term ([^"]*)" href="([^"#]*)#([\w-]+)"')


def tips(app: Sphinx, body: str) -> str:
    """The page with the meanings of just its terms at its end."""
    meaning = {a: html for a, html, _ in glossary(app).values()}
    needed = []

    def describe(match):
        needed.append(match[3])
        return (
            f'<a class="zh-term {match[1]}" href="{match[2]}#{match[3]}" '
            f'aria-describedby="tip-{match[3]}"'
        )

    body = TERM.sub(describe, body)
    if not needed:
        return body
    boxes = "".join(
        f'<div class="zh-tip" role="tooltip" id="tip-{a}" hidden>'
        f"{meaning[a]}</div>"
        for a in needed
    )
    return f'{body}<div class="zh-tips">{boxes}</div>'


def reread_all(app: Sphinx, env):
    """A changed glossary is written into every page that explains terms."""
    path = ROOT / f"{GLOSSARY}.md"
    mark = path.read_bytes() if path.is_file() else b""
    if getattr(env, "zh_glossary", None) != mark:
        env.zh_glossary = mark
        return sorted(d for d in chapters() if d in env.found_docs)
    return []


# --- head of a page ------------------------------------------------------


def reading_minutes(doctree) -> int:
    """Minutes for the prose and for the code that is not folded away."""
    words = lines = 0
    for node in doctree.findall(nodes.Text):
        if isinstance(node.parent, (nodes.paragraph, nodes.title)):
            words += len(node.astext().split())
    for block in doctree.findall(nodes.literal_block):
        node, folded = block.parent, False
        shown = False
        while node is not None:
            classes = node.get("classes", []) if hasattr(node, "get") else []
            folded |= any("hide" in c or "dropdown" in c for c in classes)
            shown |= "cell_input" in classes
            node = node.parent
        if shown and not folded:
            lines += block.astext().count("\n") + 1
    return max(1, round(words / WORDS + lines / LINES))


def head_line(app: Sphinx, page: str, doctree) -> str:
    if page not in chapters():
        return ""
    told = [f"{reading_minutes(doctree)} min to read"]
    chapter = getattr(app, "zerobook", {}).get(page)
    seconds = chapter.data.get("execution_seconds") if chapter else None
    if seconds and chapter.settings.get("after") != "all":
        run = (
            f"{max(1, round(seconds))} s"
            if seconds < 90
            else f"{seconds / 60:.0f} min"
        )
        told.append(f"{run} to run")
    return f'<p class="zh-facts">{" · ".join(told)}</p>'


def page_context(app: Sphinx, pagename, templatename, context, doctree):
    if app.builder.format != "html":
        return
    if pagename == "404":
        context["body"] = lost(app)
        return
    if doctree is None or "body" not in context:
        return
    body = context["body"]
    facts = head_line(app, pagename, doctree)
    if facts:
        body = body.replace("</h1>", f"</h1>\n{facts}", 1)
    if pagename in chapters():
        # the space before the name of an exercise is not part of the link
        body = re.sub(r"(Solution to)(<a [^>]*>) ", r"\1 \2", body)
        body = tips(app, body)
        body += chapter_box(app, pagename)
    if pagename == API:
        for module in modules():
            line = module_line(app, pagename, module)
            body = re.sub(
                rf'(<span id="api-{module}"></span>.*?</h3>)',
                lambda m, line=line: m[1] + line,
                body,
                count=1,
                flags=re.S,
            )
    context["body"] = body


def lost(app: Sphinx) -> str:
    """The page for an address that does not exist."""
    prefix = app.config.notfound_urls_prefix
    parts = "".join(
        f'<li><a href="{prefix}{d}.html">{escape(_title(app, d))}</a></li>'
        for d in _order(app)
    )
    return (
        "<h1>This page does not exist</h1>"
        "<p>The address may be old or mistyped. Search for what you were "
        "after, or pick a chapter.</p>"
        f'<form class="zh-lost" action="{prefix}search.html" method="get" '
        'role="search"><label for="zh-lost">Search the book</label> '
        '<input type="search" id="zh-lost" name="q" autocomplete="off"> '
        '<button type="submit">Search</button></form>'
        f"<h2>All pages</h2><ul>{parts}</ul>"
    )


# --- search --------------------------------------------------------------

#: Pages that repeat what chapters explain come after them.
MINOR = set(
    "api glossary phrasebook bibliography notation results".split()
)


def search_data(app: Sphinx) -> dict:
    """Every section of every page: what the search in the browser reads."""
    pages, parts = [], []
    for docname in _order(app):
        tree = app.env.get_doctree(docname)
        stem = posixpath.basename(docname)
        page = len(pages)
        pages.append(
            {
                "t": _title(app, docname),
                "u": app.builder.get_target_uri(docname),
                "m": int(stem in MINOR),
            }
        )
        for section in tree.findall(nodes.section):
            if not _is_part(section):
                continue
            title, text, code = _words(section)
            parts.append([page, section["ids"][0], title, text, code])
    return {"pages": pages, "parts": parts}


def _is_part(node) -> bool:
    """A section with a title of its own; boxes have sections without."""
    return isinstance(node, nodes.section) and any(
        isinstance(child, nodes.title) for child in node.children
    )


def _words(section) -> tuple[str, str, str]:
    """Title, prose and code of a section without its subsections."""
    title, text, code = "", [], []

    def walk(node):
        nonlocal title
        if _is_part(node):
            return
        if isinstance(node, nodes.title) and node.parent is section:
            title = node.astext()
        elif isinstance(node, nodes.literal_block):
            code.append(node.astext()[:600])
        elif isinstance(node, (nodes.math, nodes.math_block, nodes.comment)):
            text.append("")
        elif isinstance(node, nodes.raw):
            return
        elif isinstance(node, nodes.TextElement):
            text.append(_plain(node))
        else:
            for child in node.children:
                walk(child)

    for child in section.children:
        walk(child)
    prose = re.sub(r"\s+", " ", " ".join(t for t in text if t))
    return title, prose.strip(), re.sub(r"\s+", " ", " ".join(code))[:4000]


def _plain(node) -> str:
    if isinstance(node, nodes.math):
        return "…"
    if isinstance(node, nodes.Text):
        return node.astext()
    return "".join(_plain(child) for child in node.children)


# --- at the end ----------------------------------------------------------


def finish(app: Sphinx, exception) -> None:
    if exception or app.builder.name not in ("html", "dirhtml"):
        return
    import zerobook

    out = Path(app.outdir)
    target = out / "_static" / "site"
    target.mkdir(parents=True, exist_ok=True)
    data = json.dumps(
        search_data(app), ensure_ascii=False, separators=(",", ":")
    )
    data = data.replace("</", "<\\/")
    (target / "search-data.js").write_text(
        f"window.zhSearch={data};\n", encoding="utf-8"
    )
    sitemap(app)
    vendor = ROOT / "book" / "_vendor" / "tools"
    scripts = {
        "minisearch.js": vendor / "node_modules/minisearch/dist/umd/index.js",
        "search.js": out / "_static" / "js" / "search.js",
    }
    if not (vendor / "DONE").is_file():
        raise ExtensionError(
            f"{vendor} is missing: run `{SETUP}` once, with network"
        )
    assets.bundle(out, zerobook.node(), vendor, scripts)


def sitemap(app: Sphinx) -> None:
    """All pages of the book, also those that this build left as they were."""
    base = app.config.html_baseurl
    places = "".join(
        f"<url><loc>{base}{app.builder.get_target_uri(d)}</loc></url>\n"
        for d in _order(app)
    )
    (Path(app.outdir) / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{places}</urlset>\n",
        encoding="utf-8",
    )


def addresses(app: Sphinx, config) -> None:
    """Cards and the page for wrong addresses follow the site's address."""
    config.ogp_site_url = config.html_baseurl
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path or "/"


def setup(app: Sphinx) -> dict:
    # after the one setting of the repository has named the site
    app.connect("config-inited", addresses, priority=700)
    app.connect("env-updated", reread_all)
    app.connect("doctree-resolved", explain_terms, priority=900)
    app.connect("html-collect-pages", test_pages)
    app.connect("html-page-context", page_context, priority=600)
    # after the theme has written its colors of code
    app.connect("build-finished", finish, priority=900)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": False,
        "parallel_write_safe": True,
    }
