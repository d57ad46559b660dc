"""House rules for the prose of the chapters, checked on their source.

Each rule yields ``(line number, what is wrong)``. The build turns every
finding into a failure, and ``tests/test_book.py`` shows that each can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from execution import CELL, OPTIONS

#: What a cell's tags may say: how it is shown, never that it may fail.
TAGS = {"hide-input", "remove-input", "remove-output", "plate"}
MYSTNB = {"image", "figure"}
#: A cell that calls one of these (and defines nothing) shows a figure.
DRAWS = re.compile(
    r"\A(?!.*\bdef )"
    r".*(\bplots\.(?!use_style|COLORS)\w+\(|\bcanvas\(|\bplt\.subplots\()",
    re.S,
)
NOTEBOOK = {
    "jupytext": {
        "text_representation": {"extension": ".md", "format_name": "myst"}
    },
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
}

UNITS = (
    "nats|bits|ms|milliseconds?|seconds?|minutes?|hours?|KB|MB|GB|kB|"
    "bytes|parameters|weights|steps|characters|letters|tokens|words|names|"
    "times faster|times slower|×|x faster|epochs|FLOPs?|GFLOPs?"
)
#: What a number in prose may not be: measured, or big enough to be.
TYPED = re.compile(
    r"(?<![\w.,:/#-])"
    r"(?:"
    r"\d+\.\d+(?!\.\d)(?![\w]*\.\w)"  # a decimal
    r"|\d[\d,]*(?:\.\d+)?\s?(?:%|percent\b)"  # a percentage
    r"|\d{1,3}(?:,\d{3})+"  # 32,033
    r"|(?!(?:1[5-9]|20)\d\d\b)\d{4,}"  # 32033, but not a year
    r"|\d{3,}\s(?:" + UNITS + r")\b"  # 300 seconds
    r"|\d+\s?(?:ms|MB|GB|KB|kB|seconds?|minutes?|hours?|nats|bits per)\b"
    r")"
)
#: Numbers that are names, with the reason why each may be typed.
ALLOWED = {
    "GPT-2": "name of a model",
    "GPT-3": "name of a model",
    "GPT-4": "name of a model",
    "UTF-8": "name of an encoding",
    "2 GB": "the memory that a Binder session is given",
    "Jupyter Book 1": "name of a tool",
}
#: One picture of a piece of source: what is not prose becomes blanks.
NOT_PROSE = [
    (CELL, "code cell"),
    (re.compile(r"\A---\n.*?\n---\n", re.S), "front matter"),
    (re.compile(r"^(`{3,}|~{3,})(?!\{)[^\n]*\n.*?^\1\s*$", re.S | re.M), ""),
    (re.compile(r"\$\$.*?\$\$", re.S), "mathematics"),
    (re.compile(r"^```\{math\}.*?^```\s*$", re.S | re.M), "mathematics"),
    (re.compile(r"(?<!\\)\$[^$\n]+(?:\n[^$\n]+)?\$"), "mathematics"),
    (re.compile(r"\{[\w:.+-]+\}`[^`]*`"), "role"),
    (re.compile(r"``[^`]+``|`[^`\n]+(?:\n[^`\n]+)?`"), "code"),
    (re.compile(r"\]\([^)\s]*\)"), "link target"),
    (re.compile(r"<?https?://[^\s>)]+>?"), "link"),
    (re.compile(r"^:[\w-]+:[^\n]*$", re.M), "directive option"),
    (re.compile(r"^\([\w-]+\)=\s*$", re.M), "label"),
    (re.compile(r"<!--.*?-->", re.S), "comment"),
    (re.compile(r"\b\d{1,2}(?::\d\d){1,2}\b"), "time stamp"),
    (re.compile(r"\{math\}`[^`]*`"), "mathematics"),
]


def prose(text: str) -> str:
    """The text with all that is not prose blanked out, line for line."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    for pattern, _ in NOT_PROSE:
        text = pattern.sub(blank, text)
    return text


def typed_numbers(text: str) -> Iterator[tuple[int, str]]:
    """Decimals, percentages, times, sizes, counts typed into prose."""
    for number, line in enumerate(prose(text).split("\n"), 1):
        for name in ALLOWED:
            line = line.replace(name, " " * len(name))
        for match in TYPED.finditer(line):
            yield (
                number,
                f"typed number {match[0]!r}: glue it from the run that "
                "measured it, or put a structural constant in mathematics",
            )


def figure_alts(text: str) -> Iterator[tuple[int, str]]:
    """Figures given by directive that have no alt text."""
    for match in re.finditer(
        r"^(`{3,}|:{3,})\{(?:figure|image)\}[^\n]*\n(.*?)^\1\s*$",
        text,
        re.S | re.M,
    ):
        if not re.search(r"^:alt:\s*\S+ \S+", match[2], re.M):
            line = text.count("\n", 0, match.start()) + 1
            yield line, "figure without alt text"


def long_lines(text: str) -> Iterator[tuple[int, str]]:
    """Code that a reader would have to scroll sideways."""
    for match in CELL.finditer(text):
        body = match["body"]
        options = OPTIONS.match(body)
        skip = options.end() if options else 0
        first = text.count("\n", 0, match.start("body") + skip) + 1
        for i, line in enumerate(body[skip:].split("\n")):
            if len(line) > 79:
                yield first + i, f"code line of {len(line)} columns (max 79)"


def options(cell: re.Match) -> dict:
    """The options of a code cell, from either of their two forms."""
    head = OPTIONS.match(cell["body"])
    if not head:
        return {}
    if head[0].startswith("---"):
        return yaml.safe_load(head[0].strip().strip("-")) or {}
    lines = (line[1:] for line in head[0].strip().split("\n"))
    return yaml.safe_load("\n".join(lines)) or {}


def cell_options(text: str) -> Iterator[tuple[int, str]]:
    """Tags that keep a cell from running, figures without a finding."""
    for cell in CELL.finditer(text):
        line = text.count("\n", 0, cell.start()) + 1
        try:
            given = options(cell)
            tags, mystnb = given.get("tags", []), given.get("mystnb", {})
            alt = mystnb.get("image", {}).get("alt", "")
        except (yaml.YAMLError, AttributeError) as error:
            yield line, f"options that cannot be read: {error}"
            continue
        for tag in set(tags) - TAGS:
            yield line, f"tag {tag!r}: every cell runs, and runs without error"
        for key in {*given} - {"tags", "mystnb"} | {*mystnb} - MYSTNB:
            yield line, f"unknown option {key!r} of a cell"
        drawn = "figure" in mystnb or "image" in mystnb or (
            DRAWS.search(cell["body"]) and "remove-output" not in tags)
        if drawn and len(str(alt).split()) < 4:
            yield line, "figure without an alt text that says much"


def front_matter(text: str) -> Iterator[tuple[int, str]]:
    """A page with cells is a notebook that is executed like all others."""
    if not CELL.search(text):
        return
    try:
        head = yaml.safe_load(text.split("---\n")[1])
    except (IndexError, yaml.YAMLError):
        head = None
    head = head if isinstance(head, dict) else {}
    own = head.pop("zerobook", {})
    if head != NOTEBOOK:
        yield 1, f"the front matter of a page with cells must be {NOTEBOOK}"
    if own and {*own} - {"budget", "threads", "after"}:
        yield 1, f"unknown setting for the build in {own}"


RULES = [typed_numbers, figure_alts, long_lines, cell_options, front_matter]


def check(text: str) -> list[tuple[int, str]]:
    """All findings of all rules, in the order of the lines."""
    return sorted(f for rule in RULES for f in rule(text))
