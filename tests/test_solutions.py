"""The exercises' checks: the solution passes, near misses do not.

Of each chapter only the statements are run that its solutions and their
checks need, so that this takes seconds; the build runs the chapters whole.
"""

import ast
import contextlib
import functools
import io
import re
import symtable

import pytest
import torch
from test_book import CHAPTERS, execution, read
from torch import Tensor

from zerohero import exercises

#: Answers whose checks read what seconds of training left behind, or
#: gradients that a slice of the chapter does not fill in: the build runs them.
SLOW = {"my_val", "Bag", "my_floor", "loss_of_27", "answer", "turn",
        "mixed_loss", "calm", "by_hand", "embedding_by_matmul", "right"}
#: Near misses that are right all the same, with the reason why.
HARMLESS = {
    # scores that are all shifted or doubled: softmax looks the same way
    ("previous_head", "one more"), ("previous_head", "twice as much"),
    # random numbers around zero stay so
    ("prepare", "of the other sign"),
}


# ------------------------------------------------------------- slices
def statements(text: str) -> list[ast.stmt]:
    """The statements of all cells of a chapter, with its line numbers."""
    found = []
    for line, code in execution.cells(text):
        lines = ["" if x.lstrip().startswith("%") else x
                 for x in code.split("\n")]
        for node in ast.parse("\n".join(lines)).body:
            found.append(ast.increment_lineno(node, line - 1))
    return found


@functools.cache
def reads_and_writes(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Global names that a statement reads, and those that it may change."""
    reads, writes = set(), set()

    def walk(table, outermost):
        for name in table.get_symbols():
            if name.is_referenced() and (outermost or name.is_global()):
                reads.add(name.get_name())
            if outermost and (name.is_assigned() or name.is_imported()):
                writes.add(name.get_name())
        for inner in table.get_children():
            walk(inner, False)

    walk(symtable.symtable(ast.unparse(node), "cell", "exec"), True)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        for part in ast.walk(node):
            changed = isinstance(part, ast.Attribute | ast.Subscript) and (
                not isinstance(part.ctx, ast.Load))  # a.b = ..., a[0] = ...
            called = isinstance(part, ast.Expr) and isinstance(
                part.value, ast.Call) and isinstance(
                part.value.func, ast.Attribute)  # a.append(...)
            if changed or called:
                base = part.value.func if called else part
                while not isinstance(base, ast.Name):
                    base = next(ast.iter_child_nodes(base), ast.Name("_"))
                writes.add(base.id)
    return reads, writes


def rebinds(node: ast.stmt) -> set[str]:
    """Names whose earlier values no longer matter after the statement."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return reads_and_writes(node)[1]
    if isinstance(node, ast.Assign):
        stored = {n.id for t in node.targets for n in ast.walk(t)
                  if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return stored - reads_and_writes(node)[0]
    if isinstance(node, ast.For | ast.With):
        read, bound = set(), set()
        for inner in node.body:
            bound |= rebinds(inner) - read
            read |= reads_and_writes(inner)[0]
        return bound
    return set()


def needed(nodes: list[ast.stmt], target: int) -> set[int]:
    """Places of the statements that nodes[target] depends on."""
    later: set[str] = set()  # what functions will read when they are called
    modules = set().union(*(
        reads_and_writes(n)[1] for n in nodes
        if isinstance(n, ast.Import | ast.ImportFrom)))
    while True:
        need, found = later | reads_and_writes(nodes[target])[0], {target}
        grown = set(later)
        for i in range(target - 1, -1, -1):
            reads, writes = reads_and_writes(nodes[i])
            if not isinstance(nodes[i], ast.Import | ast.ImportFrom):
                writes = writes - modules  # torch.f() changes no torch
            if isinstance(nodes[i], ast.Expr | ast.For) and re.search(
                    r"\.(backward|retain_grad)\(", ast.unparse(nodes[i])):
                writes = writes | reads - modules  # it fills in gradients
            if writes & need:
                found.add(i)
                need = need - rebinds(nodes[i]) | reads
                if any(isinstance(n, ast.FunctionDef | ast.Lambda)
                       for n in ast.walk(nodes[i])):
                    grown |= reads
        if grown == later:
            return found
        later = grown


def solutions(nodes: list[ast.stmt]) -> list[int]:
    """Places of `assert check(answer, test)` that are quick to run."""
    return [
        i for i, n in enumerate(nodes)
        if isinstance(n, ast.Assert) and isinstance(n.test, ast.Call)
        and getattr(n.test.func, "id", "") == "check"
        and not SLOW & {x.id for x in ast.walk(n.test.args[0])
                        if isinstance(x, ast.Name)}
    ]


# -------------------------------------------------------- wrong answers
def spoil(value, how):
    """The value with every number in it (or its order) made wrong."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Tensor):
        return ~value if value.dtype == torch.bool else how(value)
    if isinstance(value, int | float):
        return type(value)(how(torch.tensor(value)).item())
    if isinstance(value, str | bytes):
        return value[1:] + (b"?" if isinstance(value, bytes) else "?")
    if hasattr(value, "parameters"):  # a layer: spoil what it has learned
        with torch.no_grad():
            for p in value.parameters():
                p.copy_(how(p))
        return value
    if isinstance(value, tuple | list):
        return type(value)(spoil(v, how) for v in value)
    if isinstance(value, dict):
        return {k: spoil(v, how) for k, v in value.items()}
    raise NotImplementedError(f"no way to spoil a {type(value).__name__}")


WAYS = {
    "one more": lambda x: x + 1,
    "of the other sign": lambda x: -x - (x == 0).to(x.dtype),
    "twice as much": lambda x: 2 * x + (x == 0).to(x.dtype),
    "all zero": lambda x: torch.zeros_like(x) + (x == 0).to(x.dtype),
}


def wrong_answers(right):
    """(name, wrong answer) made from a right one."""
    if isinstance(right, type):
        methods = {k: f for k, f in vars(right).items() if callable(f)}
        yield "stub", type("Stub", (right,), {
            k: lambda *args, **kwargs: ... for k in methods})
        return
    for how, change in WAYS.items():
        if callable(right):
            @functools.wraps(right)
            def wrong(*args, change=change, **kwargs):
                return spoil(right(*args, **kwargs), change)
            yield how, wrong
        else:
            yield how, spoil(right, change)
    if callable(right):
        yield "first argument", lambda *args, **kwargs: args[0]


STUBS = [..., lambda *args, **kwargs: None]


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with torch.random.fork_rng(devices=[]), (
            contextlib.redirect_stdout(io.StringIO())):
        torch.manual_seed(0)
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_wrong_answer_is_refused(name, quiet, monkeypatch):
    nodes = statements(read(CHAPTERS[name]))
    targets = solutions(nodes)
    assert targets, "no self-checking exercise"
    asked = []

    def check(answer, test, hint="", **limits):
        asked.append((answer, test, limits))
        return exercises.check(answer, test, hint, **limits)

    monkeypatch.chdir(CHAPTERS[name].parent)
    passed = []
    scope = {"__name__": "__main__", "display": print}
    for i in sorted(set.union(*(needed(nodes, t) for t in targets))):
        code = ast.Module([nodes[i]], [])
        exec(compile(code, f"{name}.md", "exec"), scope)
        if "check" in scope:
            scope["check"] = check
        if i not in targets:
            continue
        right, test, limits = asked[-1]
        place = f"{name}.md:{nodes[i].lineno}"
        for stub in STUBS:
            if exercises.check(stub, test):
                passed.append((place, stub))
        for how, wrong in wrong_answers(right):
            ok = exercises.check(wrong, test, **limits)
            what = getattr(right, "__name__", "value"), how
            if ok and what not in HARMLESS:
                passed.append((place, *what))
    assert not passed
