"""Every chapter as a notebook that any Jupyter shows as it is meant.

The text of a MyST notebook holds directives and roles that only the build
can resolve. Here the resolved page is written as plain Markdown: numbers,
references, equations, exercises. The code cells keep their outputs, and
the first one makes the package and its texts available.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from urllib.parse import urljoin

import launch
import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx

SETUP = '''\
# Run this first: it gets the book's package and texts where they are missing.
import importlib
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("zerohero") is None:
    source = os.environ.get("ZEROHERO_SOURCE") or (
        "{archive}"
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", source]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()

from zerohero import data

data.prepare()
'''
SPECIAL = re.compile(r"([\\*_`\[\]<$#|])")
DOWNLOAD = "download-notebook-button"  # the theme's name for it


def without_glue(code: str) -> str:
    """The code without the lines that only keep numbers for the prose."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # magics: nothing is taken out
        return code
    doomed: list[ast.stmt] = []
    empty: list[ast.stmt] = []

    def goes(stmt: ast.stmt) -> bool:
        if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
            name = stmt.value.func
            return isinstance(name, ast.Name) and name.id == "glue"
        if isinstance(stmt, ast.ImportFrom):
            return [a.name for a in stmt.names] == ["glue"]
        if isinstance(stmt, ast.For | ast.If) and not stmt.orelse:
            return all(goes(s) for s in stmt.body)
        return False

    def sweep(body: list[ast.stmt]) -> None:
        if body and body is not tree.body and all(map(goes, body)):
            empty.append(body[0])  # needs something in its place
        for stmt in body:
            if goes(stmt):
                doomed.append(stmt)
                continue
            for part in ("body", "orelse", "finalbody"):
                sweep(getattr(stmt, part, []))

    sweep(tree.body)
    if not doomed:
        return code
    lines = code.split("\n")
    for stmt in doomed:
        for i in range(stmt.lineno - 1, stmt.end_lineno):
            lines[i] = None
    for stmt in empty:
        lines[stmt.lineno - 1] = " " * stmt.col_offset + "pass"
    kept = "\n".join(line for line in lines if line is not None).strip("\n")
    rest = [s for s in tree.body if s not in doomed]
    if rest and tree.body[-1] in doomed and isinstance(rest[-1], ast.Expr):
        kept += "" if kept.rstrip().endswith(";") else ";"  # stay silent
    return kept


class Writer:
    """One resolved page, turned into the cells of a notebook."""

    def __init__(self, app: Sphinx, docname: str, executed):
        self.app, self.docname, self.executed = app, docname, executed
        self.stem = docname.rpartition("/")[2]
        self.page = urljoin(
            app.config.html_baseurl, app.builder.get_target_uri(docname)
        )
        self.cells: list = []
        self.open: list[str] = []
        self.table = self.said = False

    # -------------------------------------------------------------- cells
    def _add(self, cell) -> None:
        cell["id"] = f"{self.stem}-{len(self.cells)}"
        self.cells.append(cell)

    def flush(self, **metadata) -> None:
        """End the current Markdown cell."""
        text = "\n\n".join(b for b in self.open if b.strip())
        self.open = []
        if text:
            cell = nbformat.v4.new_markdown_cell(text)
            cell.metadata.update(metadata)
            self._add(cell)

    def code(self, node) -> None:
        """A code cell with its outputs; captions follow as text."""
        cell = self.executed.cells[node["cell_index"]]
        source = without_glue(cell.source)
        if not source.strip():
            return
        self.flush()
        new = nbformat.v4.new_code_cell(source)
        new.execution_count = cell.execution_count
        new.outputs = [
            out
            for out in cell.outputs
            if not out.get("metadata", {}).get("scrapbook")
        ]
        tags = cell.metadata.get("tags", [])
        if {"hide-input", "hide-cell", "remove-input"} & set(tags):
            new.metadata["jupyter"] = {"source_hidden": True}
        self._add(new)
        for caption in node.findall(nodes.caption):
            number = self._number("figure", caption.parent)
            label = f"Fig. {number}: " if number else ""
            self.open.append(f"*{label}{self.line(caption)}*")

    # ------------------------------------------------------------- blocks
    def blocks(self, parent, depth: int) -> list[str]:
        """The block children of a node as pieces of Markdown."""
        outer, self.open = self.open, []
        for child in parent.children:
            self.block(child, depth)
        inner, self.open = self.open, outer
        return [b for b in inner if b.strip()]

    def block(self, node, depth: int) -> None:
        """Append one block to the open Markdown cell."""
        say = self.open.append
        if isinstance(node, nodes.section):
            for child in node.children:
                self.block(child, depth + 1)
        elif node.get("nb_element") == "cell_code":
            self.code(node)
        elif node.get("nb_element") == "cell_code_output":
            pass
        elif isinstance(node, nodes.title):
            marks = "#" * max(1, depth)
            say(f"{marks} {self._section(node)}{self.line(node)}")
            if depth == 1 and not self.said:
                home = self.app.config.html_baseurl
                say(
                    f"*A page of [Zero-Hero]({home}), a textbook that runs: "
                    f"[read it there]({self.page}).*"
                )
                self.said = True
        elif isinstance(node, nodes.Invisible | nodes.target):
            pass
        elif type(node).__name__.startswith("exercise"):
            say(f"#### {self._exercise(node)}")
            self._rest(node, depth)
        elif type(node).__name__ == "solution_node":
            self._solution(node, depth)
        elif isinstance(node, nodes.math_block):
            self._math(node)
        elif isinstance(node, nodes.literal_block):
            fence = "`" * max(3, 1 + _ticks(node.astext()))
            language = node.get("language", "")
            language = "python" if "python" in language else language
            language = "" if language in ("default", "none") else language
            say(f"{fence}{language}\n{node.astext()}\n{fence}")
        elif isinstance(node, nodes.bullet_list | nodes.enumerated_list):
            self._list(node, depth)
        elif isinstance(node, nodes.definition_list):
            for item in node.children:
                terms = [c for c in item if isinstance(c, nodes.term)]
                say("**" + ", ".join(map(self.line, terms)) + "**")
                for part in item:
                    if isinstance(part, nodes.definition):
                        say("\n\n".join(self.blocks(part, depth)))
        elif isinstance(node, nodes.table):
            self._table(node)
        elif isinstance(node, nodes.block_quote):
            say(_quote(self.blocks(node, depth)))
        elif isinstance(node, nodes.Admonition):
            self._admonition(node, depth)
        elif isinstance(node, nodes.image):
            say(self.inline(node))
        elif isinstance(node, nodes.transition):
            say("---")
        elif isinstance(node, nodes.raw):
            if node.get("format") == "html":
                say(node.astext())
        elif isinstance(node, nodes.TextElement | nodes.Text):
            say(self.inline(node))
        else:  # a container of one kind or another
            for child in node.children:
                self.block(child, depth)

    def _titles(self, node):
        return [c for c in node if isinstance(c, nodes.title | nodes.subtitle)]

    def _exercise(self, node) -> str:
        number = self._number("exercise", node)
        title = " ".join(self.line(t) for t in self._titles(node))
        return f"Exercise {number} {title}"

    def _rest(self, node, depth: int) -> None:
        for child in node.children:
            if not isinstance(child, nodes.title | nodes.subtitle):
                self.block(child, depth)

    def _has_code(self, node) -> bool:
        return any(
            c.get("nb_element") == "cell_code"
            for c in node.findall(nodes.container)
        )

    def _admonition(self, node, depth: int) -> None:
        titles = self._titles(node)
        title = self.line(titles[0]) if titles else node.tagname.title()
        if self._has_code(node):
            self.open.append(f"**{title}**")
            self._rest(node, depth)
            return
        parts = self.blocks(node, depth)[len(titles) :]
        self.open.append(_quote([f"**{title}**", *parts]))

    def _solution(self, node, depth: int) -> None:
        """Folded: as details where it is text, else under a heading."""
        title = " ".join(self.line(t) for t in self._titles(node))
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        if not self._has_code(node):
            body = self.blocks(node, depth)[len(self._titles(node)) :]
            inside = "\n\n".join(body)
            plain = re.sub(r"\\([*_#|$\[\]<])", r"\1", title)
            plain = plain.replace("<", "&lt;")
            self.open.append(
                f"<details><summary>{plain}</summary>\n\n"
                f"{inside}\n\n</details>"
            )
            return
        self.flush()
        self.open.append(f"#### {title}")
        self.flush(
            **{"jp-MarkdownHeadingCollapsed": True, "heading_collapsed": True}
        )
        self._rest(node, depth)
        self.flush()

    def _list(self, node, depth: int) -> None:
        lines, start = [], int(node.get("start", 1))
        for i, item in enumerate(node.children):
            mark = "- "
            if isinstance(node, nodes.enumerated_list):
                mark = f"{start + i}. "
            text = "\n\n".join(self.blocks(item, depth))
            pad = "\n" + " " * len(mark)
            lines.append(mark + text.replace("\n", pad))
        loose = any(len(item.children) > 1 for item in node.children)
        text = ("\n\n" if loose else "\n").join(lines)
        self.open.append(re.sub(r"(?m)^ +$", "", text))

    def _math(self, node) -> None:
        body = "\n".join(
            line for line in node.astext().strip().split("\n") if line.strip()
        )
        number = self._number("displaymath", node)
        tag = f" \\tag{{{number}}}" if number and node.get("number") else ""
        if node.get("nowrap"):
            self.open.append(body)
        elif "\\\\" in body and "\\begin" not in body:
            body = f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
            self.open.append(f"$$\n{body}{tag}\n$$")
        else:
            self.open.append(f"$$\n{body}{tag}\n$$")

    def _table(self, node) -> None:
        outer, self.table = self.table, True
        rows = [
            [
                " ".join(" ".join(self.blocks(entry, 0)).split())
                for entry in row.children
            ]
            for row in node.findall(nodes.row)
        ]
        self.table = outer
        if not rows:
            return
        for title in node.children:
            if isinstance(title, nodes.title):
                self.open.append(f"*{self.line(title)}*")
        head, *body = rows
        lines = [head, ["---"] * len(head), *body]
        self.open.append("\n".join(f"| {' | '.join(r)} |" for r in lines))

    # ------------------------------------------------------------ numbers
    def _section(self, title) -> str:
        if not isinstance(title.parent, nodes.section):
            return ""
        table = self.app.env.toc_secnumbers.get(self.docname, {})
        for ident in title.parent["ids"]:
            number = table.get(f"#{ident}")
            if number:
                break
        else:
            number = None
            if isinstance(title.parent.parent, nodes.document):
                number = table.get("")
        return ".".join(map(str, number)) + ". " if number else ""

    def _number(self, kind: str, node) -> str:
        table = self.app.env.toc_fignumbers.get(self.docname, {})
        for ident in node.get("ids", []):
            if ident in table.get(kind, {}):
                return ".".join(map(str, table[kind][ident]))
        return str(node.get("number") or "")

    # ------------------------------------------------------------- inline
    def line(self, node) -> str:
        """The children of a node in one line."""
        return " ".join("".join(map(self.inline, node.children)).split())

    def inline(self, node) -> str:
        """A piece of running text."""
        if isinstance(node, nodes.Text):
            return SPECIAL.sub(r"\\\1", node.astext())
        inner = "".join(map(self.inline, node.children))
        if isinstance(node, nodes.literal):
            return self._code(node.astext())
        if isinstance(node, nodes.math):
            return self._formula(node.astext())
        if isinstance(node, nodes.image):
            alt = SPECIAL.sub(r"\\\1", node.get("alt", ""))
            name = Path(node["uri"]).name
            address = urljoin(self.app.config.html_baseurl, f"_images/{name}")
            return f"![{alt}]({address})"
        if isinstance(node, nodes.reference):
            return self._link(node, inner)
        if isinstance(node, nodes.emphasis | nodes.title_reference):
            return _around("*", inner)
        if isinstance(node, nodes.strong):
            return _around("**", inner)
        if isinstance(node, nodes.subscript):
            return f"<sub>{inner}</sub>"
        if isinstance(node, nodes.superscript):
            return f"<sup>{inner}</sup>"
        if isinstance(node, nodes.raw | nodes.Invisible):
            return node.astext() if node.get("format") == "html" else ""
        return inner

    def _code(self, text: str) -> str:
        if self.table:
            text = text.replace("|", "\\|")
        ticks = "`" * (1 + _ticks(text)) if "`" in text else "`"
        space = " " if text.startswith("`") or text.endswith("`") else ""
        return f"{ticks}{space}{text}{space}{ticks}"

    def _formula(self, text: str) -> str:
        if self.table:
            text = text.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
        return f"${' '.join(text.split())}$"

    def _link(self, node, inner: str) -> str:
        if node.get("refuri"):
            target = urljoin(self.page, node["refuri"])
        elif node.get("refid"):
            target = f"{self.page}#{node['refid']}"
        else:
            return inner
        return f"[{inner}]({target.replace(' ', '%20').replace(')', '%29')})"


def _around(mark: str, text: str) -> str:
    body = text.strip()
    if not body:
        return text
    left, right = text.split(body)[0], text.rsplit(body, 1)[1]
    return f"{left}{mark}{body}{mark}{right}"


def _quote(parts: list[str]) -> str:
    text = "\n\n".join(parts)
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def convert(app: Sphinx, docname: str, doctree, executed):
    """The notebook of one resolved page."""
    here = launch.place()
    writer = Writer(app, docname, executed)
    writer._add(
        nbformat.v4.new_code_cell(SETUP.format(archive=here.archive()).rstrip())
    )
    for child in doctree.children:
        writer.block(child, 0)
    writer.flush()
    notebook = nbformat.v4.new_notebook(cells=writer.cells)
    notebook.metadata.update(
        kernelspec={
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python"},
        colab={"name": f"{writer.stem}.ipynb", "toc_visible": True},
    )
    return notebook


def executed_notebook(app: Sphinx, docname: str):
    """The notebook of a page with its outputs, out of the cache, or None."""
    chapter = getattr(app, "zerobook", {}).get(docname)
    if chapter is None:
        return None
    cache = get_cache(app.env.mystnb_config.execution_cache_path)
    try:
        return cache.merge_match_into_notebook(chapter.notebook)[1]
    except KeyError:  # its run has failed
        return None


def write(app: Sphinx, docname: str, doctree) -> Path | None:
    """Write the notebook of a page into the site; return where."""
    executed = executed_notebook(app, docname)
    if executed is None:
        return None
    notebook = convert(app, docname, doctree, executed)
    nbformat.validate(notebook)
    folder = Path(app.outdir) / launch.NOTEBOOK_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{docname.rpartition('/')[2]}.ipynb"
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return path


def add_to_page(app: Sphinx, pagename, templatename, context, doctree):
    """The rocket and the download button of a chapter.

    Runs after the theme's own, whose links know one provider and whose
    notebook still holds the directives.
    """
    group = {b.get("label"): b for b in context.get("header_buttons", [])}
    rocket = group.get("launch-buttons")
    if doctree is None or rocket is None:
        return
    metadata = app.env.metadata.get(pagename, {})
    settings = metadata.get("zerobook") or {}
    if isinstance(settings, str):
        settings = json.loads(settings)
    raw = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    raw.unlink(missing_ok=True)
    downloads = group.get("download-buttons", {}).get("buttons", [])
    ours = None
    if settings.get("after") != "all":  # needs a build of the whole book
        ours = write(app, pagename, doctree)
    if ours is None:
        context["header_buttons"].remove(rocket)
        downloads[:] = [
            b for b in downloads if b.get("label") != DOWNLOAD
        ]
        return
    rocket["buttons"][:] = launch.buttons(launch.place(), pagename)
    where = f"{launch.NOTEBOOK_FOLDER}/{ours.name}"
    for button in downloads:
        if button.get("label") == DOWNLOAD:
            button["url"] = context["pathto"](where, 1)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", launch.configure)
    app.connect("html-page-context", add_to_page, priority=700)
