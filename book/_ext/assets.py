"""One small stylesheet, one script and only the used glyphs of the fonts.

The theme asks for a dozen stylesheets, a dozen scripts and whole icon and
mathematics fonts: most of a megabyte that no page uses. After the build this
module reads what the pages ask for, lets PurgeCSS drop the selectors that
match nothing, esbuild join and minify the rest and fontTools keep the glyphs
that occur, and points all pages at the result in ``_static/site``.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from fontTools import subset
from fontTools.ttLib import TTFont

STYLE = re.compile(r'[ \t]*<link\b[^>]*\brel="stylesheet"[^>]*>\n?')
SCRIPT = re.compile(r'[ \t]*<script\b[^>]*\bsrc="[^"]*"[^>]*></script>\n?')
PRELOAD = re.compile(r'[ \t]*<link\b[^>]*\brel="preload"[^>]*>\n?')
#: Inline settings that only Sphinx's own search reads, too early.
SETTING = re.compile(
    r"[ \t]*<script>DOCUMENTATION_OPTIONS\.\w+ = [^<]*</script>\n?"
)
ADDRESS = re.compile(r'\b(?:href|src)="([^"]*)"')
#: Not for us: the icons are drawn by fonts, and search has its own script.
UNUSED = ("fontawesome.js", "searchtools.js", "searchindex.js")
#: Only where a page asks for it.
APART = ("language_data.js",)
#: Tokens in the color of all code: a third of the elements of a chapter.
PLAIN = re.compile(r'<span class="(?:n|p|w|nn|nx)">([^<]*)</span>')
IMAGE = re.compile(r'<img\b[^>]*\bsrc="([^"]+\.(?:svg|png))"[^>]*>')


def bundle(out: Path, node: str, vendor: Path, extra_js: dict) -> None:
    """Give every page of the site in ``out`` the small assets."""
    static, target = out / "_static", out / "_static" / "site"
    pages = {
        page: page.read_text(encoding="utf-8") for page in _pages(out)
    }
    remembered = static / "assets.json"
    asked = {"css": [], "js": []}
    if remembered.is_file():
        asked = json.loads(remembered.read_text(encoding="utf-8"))
    for text in pages.values():
        for kind, pattern in (("css", STYLE), ("js", SCRIPT)):
            for tag in pattern.findall(text):
                name = _name(tag)
                if name and name not in asked[kind]:
                    asked[kind].append(name)
    asked["css"].sort(key=lambda n: n.endswith("book.css"))
    remembered.write_text(json.dumps(asked, indent=1), encoding="utf-8")
    css = [static / n for n in asked["css"]]
    js = [static / n for n in asked["js"] if not n.endswith(APART)]
    task = {
        "css": [str(p) for p in css],
        "js": [str(p) for p in js],
        "scripts": {k: str(v) for k, v in extra_js.items()},
        "words": "\n".join(sorted(_words(pages.values(), js, extra_js))),
        "vendor": str(vendor),
        "target": str(target),
    }
    script = Path(__file__).parent / "tools" / "bundle.mjs"
    done = subprocess.run(
        [node, str(script)],
        input=json.dumps(task),
        text=True,
        encoding="utf-8",
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(f"bundling the site failed:\n{done.stderr}")
    fonts(target, pages.values())
    for template in static.glob("*webpack-macros.html"):
        template.unlink()  # the theme's own source, no page
    for page, text in pages.items():
        new = rewrite(text, page, out, target)
        if new != text:
            page.write_text(new, encoding="utf-8")


def _pages(out: Path) -> list[Path]:
    return sorted(
        p for p in out.rglob("*.html") if "_static" not in p.parts
    )


def _name(tag: str) -> str:
    """Path below ``_static`` of a file of the theme, or nothing."""
    address = ADDRESS.search(tag)[1].split("?")[0]
    name = address.rpartition("_static/")[2]
    skip = "_static/" not in address or name.startswith("site/")
    return "" if skip or name.endswith(UNUSED) else name


WORD = re.compile(r"[A-Za-z0-9_-]+")
TAG = re.compile(r"<([a-zA-Z][\w-]*)((?:\s[^<>]*)?)>")
VALUE = re.compile(r'([\w:-]+)(?:="([^"]*)")?')


def _words(texts, scripts, extra) -> set[str]:
    """Tags, attributes, classes, ids, and every word of the scripts."""
    found = set()
    for text in texts:
        for tag, attributes in set(TAG.findall(text)):
            found.add(tag.lower())
            for name, value in VALUE.findall(attributes):
                found.add(name)
                if name in ("class", "id", "role", "type", "rel"):
                    found.update(value.split())
                elif len(value) < 40:
                    found.update(WORD.findall(value))
                    found.add(value)
        for inline in re.findall(r"<script[^>]*>(.*?)</script>", text, re.S):
            found.update(WORD.findall(inline))
    for path in [*scripts, *extra.values()]:
        source = Path(path).read_text(encoding="utf-8")
        found.update(w for w in WORD.findall(source) if len(w) < 40)
    return found


ICON = re.compile(r'\\([ef][0-9a-f]{3,4})\b')


def fonts(target: Path, texts) -> None:
    """Keep the glyphs that the pages or the stylesheet can show."""
    css = (target / "site.css").read_text(encoding="utf-8")
    named = set(re.findall(r"([\w-]+\.woff2)", css))
    icons = {int(code, 16) for code in ICON.findall(css)}
    icons |= {ord(c) for c in css if ord(c) > 0xE000}
    shown = set(icons)
    for text in texts:
        shown |= {ord(c) for c in html.unescape("".join(set(text)))}
        for entity in set(re.findall(r"&#?\w+;", text)):
            shown |= {ord(c) for c in html.unescape(entity)}
    for path in target.glob("*.woff2"):
        if path.name not in named:
            path.unlink()
            continue
        options = subset.Options(
            flavor="woff2", layout_features=["*"], notdef_outline=True,
            desubroutinize=True,
        )
        font = TTFont(path)
        cutter = subset.Subsetter(options)
        cutter.populate(
            unicodes=icons if path.name.startswith("fa-") else shown
        )
        cutter.subset(font)
        font.flavor = "woff2"
        font.save(path)


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


@cache
def size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture in CSS pixels."""
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        box = [root.get("width", ""), root.get("height", "")]
        numbers = [re.fullmatch(r"([\d.]+)(pt|px)?", x) for x in box]
        if not all(numbers):
            return None
        return tuple(
            round(float(m[1]) * (4 / 3 if m[2] == "pt" else 1))
            for m in numbers
        )
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def rewrite(text: str, page: Path, out: Path, target: Path) -> str:
    """The page with one stylesheet, one script and pictures that wait."""
    home = re.search(r'data-content_root="([^"]*)"', text)
    root = home[1] if home else "./"
    if page.name == "404.html":
        script = SCRIPT.search(text)
        if script:
            root = ADDRESS.search(script[0])[1].partition("_static/")[0]
    elif not home:  # the redirect at the root
        return text
    css, js = target / "site.css", target / "site.js"
    link = (
        f'<link rel="stylesheet" href="{root}_static/site/site.css'
        f'?v={_digest(css)}" />\n'
    )
    tag = (
        f'<script defer src="{root}_static/site/site.js'
        f'?v={_digest(js)}"></script>\n'
    )
    text = SETTING.sub("", text)
    text = PLAIN.sub(r"\1", text)
    text = PRELOAD.sub("", text)
    text = _once(STYLE, text, link, lambda t: True)
    keep = APART if page.name == "search.html" else ()
    text = _once(SCRIPT, text, tag, lambda t: _bundled(t, keep))
    return _pictures(text, page)


def _bundled(tag: str, keep: tuple[str, ...]) -> bool:
    address = ADDRESS.search(tag)[1].split("?")[0]
    if keep and address.endswith(keep):
        return False
    if address.endswith(UNUSED) or address.endswith("site/site.js"):
        return True
    return "_static/site/" not in address


def _once(pattern, text: str, new: str, ours) -> str:
    """Put ``new`` where the first of our tags stood, drop the others."""
    used = False

    def replace(match):
        nonlocal used
        if not ours(match[0]):
            return match[0]
        first, used = not used, True
        return new if first else ""

    return pattern.sub(replace, text)


def _pictures(text: str, page: Path) -> str:
    """Sizes, so that nothing jumps; all but the first load when near."""
    seen = 0

    def replace(match):
        nonlocal seen
        tag, path = match[0], (page.parent / match[1])
        if "_images/" not in match[1]:  # logos have their size from CSS
            return tag
        seen += 1
        if not path.is_file() or " width=" in tag:
            return tag
        box = size(path.resolve())
        add = f' width="{box[0]}" height="{box[1]}"' if box else ""
        if seen > 1 and "loading=" not in tag:
            add += ' loading="lazy"'
        return tag.replace("<img", f'<img decoding="async"{add}', 1)

    return IMAGE.sub(replace, text)


