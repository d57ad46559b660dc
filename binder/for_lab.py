"""Write the chapters as JupyterLab shows them best; the image's last step.

    python binder/for_lab.py [folder of the chapters]

JupyterLab knows neither the labels and citations of other pages nor the
tags that fold cells away. So, in the image only: references become links to
the other notebook, citations names and years; drawing code and solutions
start folded; numbers in the prose come from the session. Code stays as it
is, but for the import of `glue`. Plain Python, no packages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CELL = re.compile(
    r"^(?P<fence>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.S | re.M,
)
LABEL = re.compile(r"^\((?P<label>[\w-]+)\)=\n#+ (?P<title>.*)$", re.M)
EXERCISE = re.compile(
    r"^`{3,}\{exercise-start\} *(?P<title>[^\n]*)\n(?P<options>.*?)^`{3,}\n",
    re.S | re.M,
)
SOLUTION = re.compile(
    r"^`{3,}\{solution-start\} *(?P<label>\S+)\n.*?^`{3,}\n", re.S | re.M
)
END = re.compile(r"^`{3,}\{(exercise|solution)-end\}\n`{3,}(?:\n|\Z)", re.M)
ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<text>[^`]+)`")
COSTS = re.compile(r"^- \*\*Costs\*\*:.*\n(?:  .*\n)*", re.M)
FOLDED = '+++ {"jp-MarkdownHeadingCollapsed": true}\n'
GLUE = "from myst_nb import glue\n"


def works(bib: str) -> dict[str, tuple[str, str]]:
    """(names, year) of every entry of a BibTeX file."""
    found = {}
    for entry in re.split(r"^@\w+\{", bib, flags=re.M)[1:]:
        key = entry.split(",")[0].strip()
        fields = dict(
            re.findall(r"^\s*(author|year)\s*=\s*[{\"](.*)[}\"],?$",
                       entry, re.M)
        )
        authors = fields.get("author", key).split(" and ")
        last = [re.sub(r"[{}]", "", a.split(",")[0].split()[-1])
                if "," not in a else a.split(",")[0] for a in authors]
        names = last[0] if len(last) == 1 else f"{last[0]} et al."
        if len(last) == 2:
            names = " and ".join(last)
        found[key] = (re.sub(r"[{}\\]", "", names), fields.get("year", ""))
    return found


def options(body: str) -> tuple[str, str]:
    """The options of a cell in their long form, and its code."""
    if body.startswith("---\n"):
        head, code = body[4:].split("\n---\n", 1)
        return head, code
    head = re.match(r"(?::[^\n]*\n)*", body)[0]
    return re.sub(r"^:", "", head, flags=re.M).rstrip("\n"), body[len(head):]


def cell(match: re.Match, folded: bool) -> str:
    """A code cell, folded away where the page folds it."""
    head, code = options(match["body"])
    code = code.replace(GLUE, "from prose import glue, glued\n")
    if folded or re.search(r"hide-input|hide-cell|remove-input", head):
        head = (head + "\njupyter: {source_hidden: true}").strip("\n")
    if head:
        code = f"---\n{head}\n---\n{code}"
    fence = match["fence"]
    return f"{fence}{{code-cell}}\n{code}{fence}\n"


class Page:
    """A chapter among the others."""

    def __init__(self, stem: str, labels: dict, cited: dict):
        self.stem, self.labels, self.cited = stem, labels, cited

    def role(self, match: re.Match) -> str:
        """A role, as something that JupyterLab can show."""
        role, text = match["role"], match["text"]
        named = re.fullmatch(r"(.*?)\s*<(.+)>", text, re.S)
        title, target = named.groups() if named else ("", text)
        if role.startswith("py:"):
            short = title or target.removeprefix("~").rsplit(".", 1)[-1]
            if not title and not target.startswith("~"):
                short = target
            return f"`{short}{'()' if role == 'py:func' else ''}`"
        if role in ("ref", "doc"):
            page, heading = self.labels.get(target, ("", ""))
            if not page or page == self.stem and target != page:
                return match[0]  # JupyterLab finds it itself
            return f"[{title or heading}]({page}.md)"
        if role in ("cite:t", "cite:p"):
            told = [self.cited.get(k.strip(), (k, "")) for k in
                    target.split(",")]
            if role == "cite:t":
                return ", ".join(f"{n} ({y})" for n, y in told)
            return "(" + "; ".join(f"{n}, {y}" for n, y in told) + ")"
        if role == "numref":
            before = match.string[: match.start()].rstrip()
            return "The figure" if before[-1:] in ("", ".") else "the figure"
        if role == "term":
            return f"[{title or target}](glossary.md)"
        if role == "glue:text":
            key, _, form = target.partition(":")
            return f'{{eval}}`glued("{key}", "{form}")`'
        return match[0]

    def prose(self, text: str) -> str:
        """The text between two code cells."""
        text = COSTS.sub("", text)
        text = EXERCISE.sub(lambda m: f"#### Exercise: {m['title']}\n", text)
        text = END.sub(lambda m: "+++\n" * (m[1] == "solution"), text)
        return ROLE.sub(self.role, text)

    def write(self, text: str) -> str:
        """The whole chapter."""
        titles = dict(
            (re.search(r":label: (\S+)", m["options"])[1], m["title"])
            for m in EXERCISE.finditer(text)
        )
        out, at, folded = [], 0, False
        for match in [*CELL.finditer(text), None]:
            between = text[at : match.start() if match else len(text)]
            opens = between.rfind("{solution-start}")
            closes = between.rfind("{solution-end}")
            if opens != closes:
                folded = opens > closes
            between = SOLUTION.sub(
                lambda m: f"{FOLDED}#### Solution: "
                f"{titles.get(m['label'], m['label'])}\n\n+++\n",
                between,
            )
            out.append(self.prose(between))
            if match:
                out.append(cell(match, folded))
                at = match.end() + 1
        return "".join(out)


def main(folder: Path) -> None:
    pages = {p.stem: p.read_text("utf-8") for p in folder.glob("*.md")}
    labels = {
        m["label"]: (stem, m["title"])
        for stem, text in pages.items()
        for m in LABEL.finditer(text)
    }
    labels |= {stem: labels.get(stem, (stem, stem)) for stem in pages}
    cited = works((folder / "references.bib").read_text("utf-8"))
    for stem, text in pages.items():
        if re.match(r"---\n.*?^kernelspec:", text, re.S | re.M):
            written = Page(stem, labels, cited).write(text)
            (folder / f"{stem}.md").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "book"))
