"""House rules of the chapters, and that each rule can speak up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import execution  # noqa: E402
import rules  # noqa: E402

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = {TOC["root"]: ROOT / f"{TOC['root']}.md"} | {
    page["file"]: ROOT / f"{page['file']}.md"
    for part in TOC["parts"]
    for page in part["chapters"]
}
CHAPTERS = {
    page["file"]: PAGES[page["file"]]
    for part in TOC["parts"]
    if part.get("numbered", True)
    for page in part["chapters"]
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_page_keeps_the_rules(name):
    assert rules.check(read(PAGES[name])) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_all_its_parts(name):
    text, stem = read(CHAPTERS[name]), name.rpartition("/")[2]
    assert re.match(r"---\n.*?\n---\n\n\(" + stem + r"\)=\n# ", text, re.S)
    for role in ("{cost}`seconds`", "{cost}`memory`"):
        assert role in text, f"no {role}: what does the chapter cost?"
    for heading in (
        "What could go wrong",
        "Where we stand",
        "Summary",
        "Questions",
        "Exercises",
        "Further reading",
    ):
        assert re.search(rf"^## .*{heading}", text, re.M | re.I) or (
            heading in text
        ), f"no part {heading!r}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_exercise_has_a_solution_and_some_check_themselves(name):
    text = read(CHAPTERS[name])
    exercises = set(
        re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text)
    )
    solved = set(re.findall(r"\{solution-start\} (\S+)", text))
    assert len([e for e in exercises if "q-" not in e[:3]]) >= 5
    assert len([e for e in exercises if e.startswith("q-")]) >= 3
    assert exercises == solved
    for gate in re.findall(r"\{solution-start\}[^`]*", text):
        assert ":class: dropdown" in gate, f"not hidden: {gate}"
    assert len(re.findall(r"\bassert check\(", text)) >= 3


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_module_and_test(name):
    stem = name.rpartition("/")[2]
    if stem in ("learning", "embeddings"):  # their code lies in others
        return
    if stem == "initialization":
        stem = "diagnostics"
    assert (ROOT / "zerohero" / f"{stem}.py").is_file()
    assert (ROOT / "tests" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize("name", CHAPTERS)
def test_cells_are_readable(name):
    text = read(CHAPTERS[name])
    too_long = []
    for match in execution.CELL.finditer(text):
        body = match["body"]
        if re.search(r"hide-input|hide-cell|remove-input", body[:200]):
            continue
        options = execution.OPTIONS.match(body)
        lines = body[options.end() if options else 0 :].strip().split("\n")
        if len(lines) > 25:
            line = text.count("\n", 0, match.start()) + 1
            too_long.append((line, len(lines)))
    assert not too_long, "visible cells of more than 25 lines"


def test_code_cells_are_linted(tmp_path):
    """Ruff does not look into MyST notebooks: give it plain files."""
    for name, path in PAGES.items():
        text = read(path)
        if not execution.is_notebook(text):
            continue
        lines = [""] * (text.count("\n") + 1)
        for first, code in execution.cells(text):
            for i, line in enumerate(code.rstrip("\n").split("\n")):
                lines[first - 1 + i] = line
        target = tmp_path / f"{name.replace('/', '_')}.py"
        target.write_text("\n".join(lines), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet",
         "--select", "E9,F,B,UP",
         "--ignore", "B007,B015,B018,B023,B905,E741,F704,F811,UP012",
         "--output-format", "concise", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    "line",
    [
        "The loss falls to 2.45 after that.",
        "It takes 30 seconds to run.",
        "About 20% of the names repeat.",
        "There are 32,257 names in it.",
        "There are 228146 pairs in it.",
        "A model of 729 parameters does it.",
        "It needs 200 MB of memory.",
        "| bigram | 2.45 | 729 |",
        "  * - 32,033",
        "## A loss of 2.45",
        ":::{tip} It is 2.45.",
    ],
)
def test_a_typed_number_is_found(line):
    text = f"# A title\n\nSome prose.\n\n{line}\n"
    assert [n for n, _ in rules.typed_numbers(text)] == [5]


@pytest.mark.parametrize(
    "line",
    [
        "We use three letters, 27 symbols and chapter 5 of the book.",
        "Bengio and others wrote it in 2003; see [18:35](https://a.b/1.5).",
        "The loss is {glue:text}`bigrams-nll:.2f` nats for $\\ln 27 = 3.3$.",
        "`x = 2.5` and GPT-2 and UTF-8 are code and names.",
    ],
)
def test_what_may_be_typed(line):
    assert list(rules.typed_numbers(line)) == []


def test_numbers_in_cells_and_front_matter_are_not_prose():
    text = (
        "---\nversion: 0.13\n---\n\n```{code-cell}\nx = 2.45\n```\n\n"
        "It is 2.45.\n"
    )
    assert [n for n, _ in rules.typed_numbers(text)] == [9]


def test_a_figure_without_alt_text_is_found():
    good = "```{figure} a.png\n:alt: The curve falls.\n```\n"
    bad = "```{figure} a.png\n:width: 3\n```\n"
    assert not list(rules.figure_alts(good))
    assert [n for n, _ in rules.figure_alts(good + "\n" + bad)] == [5]


def test_a_long_code_line_is_found():
    cell = "```{code-cell}\n:tags: [x]\nshort = 1\n" + "y" * 80 + "\n```\n"
    assert [n for n, _ in rules.long_lines(cell)] == [4]


def cell(options: str, code: str = "x = 1") -> str:
    return f"\n```{{code-cell}}\n{options}{code}\n```\n"


@pytest.mark.parametrize(
    "options, code",
    [
        (":tags: [skip-execution]\n", "x = 1"),
        (":tags: [hide-input, raises-exception]\n", "x = 1"),
        (":tag: [hide-input]\n", "x = 1"),
        ("---\nmystnb:\n  execution_mode: off\n---\n", "x = 1"),
        ("---\nmystnb:\n figure:\n  bad indent: [\n---\n", "x = 1"),
        ("---\nmystnb:\n  figure:\n    name: fig-a\n---\n", "x = 1"),
        ("---\nmystnb:\n  image:\n    alt: A curve\n---\n", "x = 1"),
        ("", "plots.loss_curve(losses);"),
        (":tags: [hide-input]\n", "fig, ax = plt.subplots()"),
    ],
)
def test_a_cell_that_hides_something_is_found(options, code):
    assert list(rules.cell_options(cell(options, code)))


def test_what_a_cell_may_say():
    for options, code in [
        ("", "x = 1"),
        (":tags: [remove-output]\n", "plots.loss_curve(losses);"),
        ("---\ntags: [hide-input, plate]\nmystnb:\n  image:\n"
         '    alt: "The curve falls: twice"\n---\n', "plots.bars(a, b);"),
    ]:
        assert not list(rules.cell_options(cell(options, code)))


GOOD = read(PAGES["book/tensors"])


@pytest.mark.parametrize(
    "old, new",
    [
        ("format_name: myst", "format_name: markdown"),
        ("name: python3", "name: python2"),
        ("kernelspec:\n", "mystnb:\n  execution_mode: 'off'\nkernelspec:\n"),
        ("  budget:", "  skip: true\n  budget:"),
        ("---\njupytext", "jupytext"),
    ],
)
def test_a_page_that_would_not_run_as_the_others_is_found(old, new):
    assert not list(rules.front_matter(GOOD))
    assert list(rules.front_matter(GOOD.replace(old, new, 1)))


def test_every_page_is_in_the_table_of_contents():
    there = {f"book/{p.stem}" for p in (ROOT / "book").glob("*.md")}
    assert there == set(PAGES)


def test_the_build_executes_everything_and_forgives_nothing():
    config = yaml.safe_load(read(ROOT / "_config.yml"))
    assert config["execute"] == {
        "execute_notebooks": "cache",
        "raise_on_error": False,  # report all failures, as warnings
        "stderr_output": "warn",
        "show_tb": True,
    }
    assert config["only_build_toc_files"] is True
    hidden = [p for p in config["exclude_patterns"] if "book" in p]
    settings = {k for k in config["sphinx"]["config"] if "suppress" in k
                or "allow_errors" in k or "excludepatterns" in k}
    assert not hidden and not settings
    for name in ("Makefile", "tests/run.py"):  # warnings are failures
        text = read(ROOT / name)
        assert re.search(r"build\W+\.\W+-W\W+--keep-going", text), name


def without_code(text: str) -> str:
    return execution.CELL.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def targets() -> dict[str, set[str]]:
    """What the pages' cross references may point to."""
    texts = {n.rpartition("/")[2]: read(p) for n, p in PAGES.items()}
    labels = set()
    for text in texts.values():
        for pattern in (
            r"^\(([\w-]+)\)=$",
            r"^:(?:label|name): +(\S+)",
            r"^ +name: +[\"']?([\w-]+)",
            r"\$\$ *\(([\w-]+)\)",
        ):
            labels |= set(re.findall(pattern, text, re.M))
    terms = re.findall(r"^([^\s`{:(#-].*)\n  \S", texts["glossary"], re.M)
    keys = re.findall(r"^@\w+\{([^,\s]+)", read(
        ROOT / "book" / "references.bib"), re.M)
    return {
        "ref": labels, "numref": labels, "eq": labels, "doc": set(texts),
        "term": {t.strip().lower() for t in terms},
        "cite:t": set(keys), "cite:p": set(keys),
    }


def dead_links(text: str, known: dict[str, set[str]]) -> list[str]:
    """References to what is not there, and glue that no cell has made."""
    dead = []
    for role, inner in re.findall(
        r"\{([\w:]+)\}`([^`]+)`", without_code(text)
    ):
        named = re.search(r"<([^>]+)>$", inner)
        for target in (named[1] if named else inner).split(","):
            target = target.strip()
            if role == "term":
                target = target.lower()
            if role in known and target not in known[role]:
                dead.append(f"{role} {target}")
    made = [re.sub(r"\\\{.*?\\\}", ".*", re.escape(key)) for key in
            re.findall(r"glue\(\s*f?[\"']([^\"']+)[\"']", text)]
    for key in re.findall(r"\{glue:\w+\}`([^`:]+)", text):
        if not any(re.fullmatch(pattern, key) for pattern in made):
            dead.append(f"glue {key}")
    return dead


@pytest.mark.parametrize("name", PAGES)
def test_no_reference_is_dead(name):
    assert dead_links(read(PAGES[name]), targets()) == []


@pytest.mark.parametrize(
    "link",
    ["{ref}`gone`", "{ref}`text <tensors-gone>`", "{numref}`fig-gone`",
     "{eq}`eq-gone`", "{doc}`gone`", "{term}`gone`", "{term}`x <gone>`",
     "{cite:p}`gone2020gone`", "{glue:text}`tensors-gone:.2f`"],
)
def test_a_dead_reference_is_found(link):
    assert len(dead_links(f"{GOOD}\nSee {link}.\n", targets())) == 1


def test_fingerprint_follows_the_imports():
    """What a chapter imports is in its key, through every level."""
    assert "plots" in execution._imports("drawings")
    a = execution.fingerprint("from zerohero import drawings")
    b = execution.fingerprint("from zerohero import plots")
    c = execution.fingerprint("import torch")
    assert len({a, b, c}) == 3
    assert a == execution.fingerprint("import zerohero.drawings")


def test_every_module_is_in_the_reference():
    api = read(ROOT / "book" / "api.md")
    modules = {p.stem for p in (ROOT / "zerohero").glob("*.py")}
    named = set(re.findall(r"automodule:: zerohero\.(\w+)", api))
    assert named == modules - {"__init__", "__main__"}


def test_no_path_of_a_machine_in_the_project():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    suffixes = {".md", ".py", ".yml", ".toml", ".txt", ".css", ".js"}
    here = Path(__file__).relative_to(ROOT).as_posix()
    machine = re.compile(r"(?<![\w.])/(?:root|home|work|opt|tmp)/\w")
    for name in listed:
        path = ROOT / name
        if path.suffix in suffixes and name != here and path.is_file():
            assert not machine.search(read(path)), name


#: What plain Sphinx with MyST, and Jupyter Book 2, know under these names
#: or have a known way for; `eval-rst` and `bibliography` on their own pages.
DIRECTIVES = {
    "admonition", "note", "warning", "tip", "figure", "image", "table",
    "list-table", "math", "code-cell", "glossary", "tab-set", "tab-item",
    "exercise-start", "exercise-end", "solution-start", "solution-end",
}  # fmt: skip
ROLES = {
    "ref", "numref", "eq", "doc", "term", "math", "cite:t", "cite:p",
    "glue:text", "cost", "py:class", "py:func", "py:meth", "py:mod",
    "py:attr", "py:data",
}  # fmt: skip
ONLY_ON = {"eval-rst": "api", "bibliography": "bibliography"}


def unportable(text, stem=""):
    """(line, name) of directives, roles and raw HTML off the list."""
    known = DIRECTIVES | {d for d, page in ONLY_ON.items() if page == stem}
    fences = re.finditer(r"^ *(?:`{3,}|:{3,})\{([^}]*)\}", text, re.M)
    found = [m for m in fences if m[1] not in known]
    text = execution.CELL.sub(lambda m: "\n" * m[0].count("\n"), text)
    span = r"(?:\{([\w:.+-]+)\})?(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)"
    roles = re.finditer(span, text, re.S)  # and plain code, without a name
    found += [m for m in roles if m[1] and m[1] not in ROLES]
    found += re.finditer(r"^</?\w+", text, re.M)
    return [(text.count("\n", 0, m.start()) + 1, m[0]) for m in found]


@pytest.mark.parametrize("name", PAGES)
def test_page_keeps_to_portable_directives(name):
    assert unportable(read(PAGES[name]), name.rpartition("/")[2]) == []


@pytest.mark.parametrize(
    "line", ["```{eval-rst}", ":::{margin}", "{abbr}`x`", "<div>"]
)
def test_an_unportable_directive_is_found(line):
    assert [n for n, _ in unportable(f"# T\n\n{line}\n")] == [3]


@pytest.mark.parametrize(
    ("text", "most"), [("100000 100000", 1), ("50000 100000", 1),
                       ("max 100000", None), ("9900000 100000", None)]
)
def test_the_build_uses_no_more_cores_than_granted(tmp_path, text, most):
    (tmp_path / "cpu.max").write_text(text + "\n")
    every = execution.cores(str(tmp_path / "none"))
    assert execution.cores(str(tmp_path)) == (most or every)
