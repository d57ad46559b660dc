"""Launch links name what exists; the built notebooks stand on their own."""

import ast
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import execution  # noqa: E402
import launch  # noqa: E402
import notebooks  # noqa: E402

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [
    page["file"]
    for part in TOC["parts"]
    if part.get("numbered", True)
    for page in part["chapters"]
]
HERE = launch.place()


def stem(name):
    return name.rpartition("/")[2]


@pytest.fixture(scope="module", autouse=True)
def built():
    assert (SITE / "index.html").is_file(), "build the book first: `make book`"


class Links(HTMLParser):
    """Addresses on a page, and the words of its article."""

    def __init__(self, html):
        super().__init__()
        self.links, self.words, self.stack = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[k] for k in ("href", "src") if attrs.get(k)]


def page(name):
    return (SITE / f"{name}.html").read_text(encoding="utf-8")


def notebook(name):
    path = SITE / launch.NOTEBOOK_FOLDER / f"{stem(name)}.ipynb"
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def prose(book):
    return "\n\n".join(
        c.source for c in book.cells if c.cell_type == "markdown"
    )


# ------------------------------------------------------------------ links
@pytest.mark.parametrize("name", CHAPTERS)
def test_launch_buttons_name_what_exists(name):
    links = Links(page(name)).links
    [binder] = {x for x in links if "mybinder.org" in x}
    path = parse_qs(urlparse(binder).query)["urlpath"][0]
    assert (ROOT / path.removeprefix("lab/tree/")).is_file()
    assert urlparse(binder).path == f"/v2/gh/{HERE.slug}/{HERE.branch}"
    [colab] = {x for x in links if "colab.research" in x}
    start = f"https://colab.research.google.com/github/{HERE.slug}/blob/"
    assert colab.startswith(f"{start}{launch.NOTEBOOK_BRANCH}/")
    file = colab.removeprefix(f"{start}{launch.NOTEBOOK_BRANCH}/")
    assert (SITE / launch.NOTEBOOK_FOLDER / file).is_file()
    [space] = {x for x in links if "codespaces.new" in x}
    assert space.startswith(f"https://codespaces.new/{HERE.slug}?")
    [download] = {x for x in links if x.endswith(".ipynb") and "//" not in x}
    assert (SITE / name).parent.joinpath(download).resolve().is_file()
    assert f"{launch.NOTEBOOK_FOLDER}/{stem(name)}.ipynb" in download


def test_every_link_home_comes_from_the_one_setting():
    """No page, notebook or picture card names another repository or site."""
    owner = HERE.slug.split("/")[0].lower()
    hosts, seen = "github.com|github.io|mybinder.org|codespaces", set()
    for path in [*SITE.glob("book/*.html"), *SITE.glob("notebooks/*.ipynb")]:
        text = path.read_text(encoding="utf-8").replace("\\n", " ")
        found = re.findall(rf"https://[\w.-]*(?:{hosts})[^\s\"'<>)]*", text)
        seen |= {x for x in found if owner in x.lower()}
    known = (HERE.url, HERE.site, "https://mybinder.org/v2/gh/" + HERE.slug,
             HERE.codespaces().split("?")[0])
    strange = [x for x in seen if not x.startswith(known)]
    assert seen and strange == []


def test_pages_that_need_the_whole_build_have_no_rocket():
    for path in (ROOT / "book").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if "after: all" in text[:400]:
            html = page(f"book/{path.stem}")
            assert "mybinder.org" not in html
            assert not (SITE / "notebooks" / f"{path.stem}.ipynb").exists()
    assert not list(SITE.glob("_sources/**/*.ipynb"))


def test_a_fork_names_itself_once(monkeypatch):
    monkeypatch.setenv("ZEROHERO_REPOSITORY", "https://github.com/Ann/book/")
    fork = launch.place()
    assert fork.slug == "Ann/book"
    assert fork.site == "https://ann.github.io/book/"
    assert fork.binder("book/x.md").endswith(
        "/v2/gh/Ann/book/main?urlpath=lab/tree/book/x.md"
    )
    assert "/Ann/book/" in fork.colab("x")
    assert "/Ann/book?" in fork.codespaces()
    assert fork.archive().startswith("https://github.com/Ann/book/archive/")


def test_the_sitemap_is_of_the_same_site():
    text = (SITE / "sitemap.xml").read_text(encoding="utf-8")
    places = re.findall(r"<loc>([^<]*)</loc>", text)
    assert places and all(p.startswith(HERE.site) for p in places)


def test_publishing_fills_the_branch_that_colab_reads():
    path = ROOT / ".github" / "workflows" / "publish.yml"
    text = path.read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["notebooks"]
    assert job["permissions"] == {"contents": "write"}
    steps = yaml.dump(job["steps"], width=1000)
    assert f"--initial-branch {launch.NOTEBOOK_BRANCH}" in steps
    assert re.search(rf"git push .* {launch.NOTEBOOK_BRANCH}\b", steps)
    assert f"path: _build/html/{launch.NOTEBOOK_FOLDER}" in text


def test_codespaces_set_up_the_same_book():
    path = ROOT / ".devcontainer" / "devcontainer.json"
    box = json.loads(path.read_text(encoding="utf-8"))
    python = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8")
    assert f":{python.strip().removeprefix('python-')}-" in box["image"]
    script = box["onCreateCommand"].split()[1]
    assert (ROOT / script).is_file()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verb, target = box["postAttachCommand"].split()
    assert verb == "make" and re.search(rf"^{target}:", makefile, re.M)


@pytest.mark.skipif(os.name == "nt", reason="Binder runs Linux")
@pytest.mark.parametrize(
    ("quota", "threads"),
    [("150000 100000", "1"), ("400000 100000", "4"), ("50000 100000", "1"),
     ("max 100000", ""), ("", ""), (None, "")],
)
def test_binder_starts_as_many_threads_as_it_has_cores(
    tmp_path, quota, threads
):
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota and quota + "\n")
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    told = subprocess.run(
        [ROOT / "binder" / "start", "bash", "-c",
         'echo "$OMP_NUM_THREADS|$PYTHONPATH"'],
        env={**env, "CGROUP": str(tmp_path), "PYTHONPATH": "x"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == f"{threads}|{ROOT}:{ROOT}/binder:x"
    assert told.stderr == ""


# ------------------------------------------------------------ Binder's Lab
sys.path.insert(1, str(ROOT / "binder"))
import for_lab  # noqa: E402
import prose as lab_prose  # noqa: E402


@pytest.fixture(scope="module")
def for_binder(tmp_path_factory):
    """The chapters as the image for Binder has them."""
    folder = tmp_path_factory.mktemp("lab")
    for path in (ROOT / "book").glob("*.[mb][di]*"):
        (folder / path.name).write_bytes(path.read_bytes())
    for_lab.main(folder)
    return folder


@pytest.mark.parametrize("name", CHAPTERS)
def test_lab_runs_the_same_code(for_binder, name):
    """Only `glue` comes from elsewhere: no book tools are installed."""
    ours = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    theirs = (for_binder / f"{stem(name)}.md").read_text(encoding="utf-8")
    assert "myst_nb" not in theirs
    changed = [
        (_, code.replace(for_lab.GLUE, "from prose import glue, glued\n"))
        for _, code in execution.cells(ours)
    ]
    assert [c for _, c in changed] == [c for _, c in execution.cells(theirs)]


@pytest.mark.parametrize("name", CHAPTERS)
def test_lab_shows_what_it_can_and_folds_the_rest(for_binder, name):
    text = (for_binder / f"{stem(name)}.md").read_text(encoding="utf-8")
    prose = execution.CELL.sub("", text)
    bare = re.sub(r"``[^`]+``", "", prose)
    unknown = r"\{(?:py:\w+|cite:\w|cost|glue:\w+|term|numref)\}`"
    assert not re.findall(unknown, bare)
    assert "-start}" not in prose and "-end}" not in prose
    for page in re.findall(r"\]\((\w+\.md)\)", prose):
        assert (for_binder / page).is_file(), page
    solved = (ROOT / f"{name}.md").read_text("utf-8").count("{solution-start}")
    assert prose.count("#### Solution: ") == solved
    hidden = len(re.findall(r"^jupyter: \{source_hidden: true\}$", text, re.M))
    ours = (ROOT / f"{name}.md").read_text("utf-8")
    gates = re.split(r"^`+\{solution-(?:start|end)\}", ours, flags=re.M)
    within = sum(len(execution.CELL.findall(part)) for part in gates[1::2])
    tagged = re.compile(r"tags: \[[^]]*(?:hide-input|remove-input)")
    outside = len(tagged.findall("".join(gates[0::2])))
    assert hidden == within + outside > within > 0
    asked = re.findall(r"\{eval\}`glued\(\"([^\"]+)\", \"([^\"]*)\"\)`", prose)
    for _, form in asked:
        format("x" if form.endswith("s") else 1, form)


def test_numbers_of_the_session_go_into_the_prose():
    lab_prose.glue("a-loss", 2.4567, display=False)
    assert lab_prose.glued("a-loss", ".2f") == "2.46"
    assert lab_prose.glued("unknown", ".2f") == "..."


def test_citations_are_read():
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    cited = for_lab.works(bib)
    assert cited["bengio2003neural"] == ("Bengio et al.", "2003")
    assert all(re.fullmatch(r"\d{4}", year) for _, year in cited.values())


# -------------------------------------------------------------- notebooks
@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_is_valid_and_brings_its_package(name):
    book = notebook(name)
    nbformat.validate(book)
    first, code = book.cells[0], [
        c for c in book.cells if c.cell_type == "code"
    ]
    assert first.cell_type == "code" and "pip" in first.source
    assert f"{HERE.url}/archive/" in first.source
    assert sum(bool(c.outputs) for c in code) > 10, "outputs are not kept"
    for cell in code:
        if not re.search(r"^\s*[%!]", cell.source, re.M):
            ast.parse(cell.source)
        assert "glue" not in cell.source


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_has_every_code_cell_once(name):
    text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    written = [
        bare for _, code in execution.cells(text)
        if (bare := notebooks.without_glue(code).strip())
    ]
    found = [
        c.source.strip() for c in notebook(name).cells[1:]
        if c.cell_type == "code"
    ]
    assert found == written


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_shows_no_directive(name):
    text = prose(notebook(name))
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    assert not re.findall(r"\{[\w:+-]+\}`|^:{3,}.*$|^\(\S+\)=$", plain, re.M)
    assert "{glue" not in text and "{ref}" not in text
    assert not re.search(r"\]\((?!https?://)", plain), "a relative link"


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_leaves_no_sentence_out(name):
    """Every longer word of the chapter's prose is in the notebook."""
    import rules

    source = rules.prose((ROOT / f"{name}.md").read_text(encoding="utf-8"))
    source = re.sub(r"^[`:]{3,}.*$|\{[\w:-]+\}", " ", source, flags=re.M)
    ours = set(re.findall(r"[A-Za-z]{4,}", prose(notebook(name)).lower()))
    words = re.findall(r"(?<![\w#/.-])[a-z]{4,}(?![\w.-]*\w)", source.lower())
    missing = sorted({w for w in words if w not in ours})
    assert missing == []


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ('x = 1\nglue("a", x, display=False)', "x = 1"),
        ("from myst_nb import glue\nimport torch", "import torch"),
        ('f(x)\nglue("a", x)', "f(x);"),
        ('f(x);\nglue("a",\n     x)', "f(x);"),
        ('for k in y:\n    glue(k, 1)\nz = 2', "z = 2"),
        ('for k in y:\n    p(k)\n    glue(k, 1)', "for k in y:\n    p(k)"),
        ('glue("a", 1)', ""),
        ('def f(k):\n    glue(k, 1)\nf(2)', "def f(k):\n    pass\nf(2)"),
        ("%timeit x\nglue", "%timeit x\nglue"),
    ],
)
def test_lines_for_the_prose_are_taken_out(code, kept):
    assert notebooks.without_glue(code) == kept
