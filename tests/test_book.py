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
    if stem == "scaling":
        stem = "generate"
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
