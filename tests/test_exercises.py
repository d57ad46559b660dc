import functools
import math

import numpy as np
import pytest
import torch

from zerohero.exercises import check


def said(capsys) -> str:
    """Return what check printed: always exactly one line."""
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return lines[0]


def is_double(f):
    assert f(2) == 4, "f(2) is not 4"
    assert f(5) == 10, "f(5) is not 10"


@pytest.mark.parametrize(
    "answer, test",
    [
        (3, 3),
        (0.5, 0.5 + 4e-4),  # within rtol
        (1000.0, 1000.9),
        (0.0, 9e-5),  # within atol
        (torch.tensor(2.0), 2),
        (2, torch.tensor(2.0)),
        (torch.tensor([[2.0]]), 2),
        (np.float32(2), 2.0),
        (np.ones(3), torch.ones(3)),
        ([1, 1, 1], torch.ones(3)),
        (torch.ones(3), [1, 1, 1]),
        (torch.ones(2, 3, requires_grad=True), torch.ones(2, 3)),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0])),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (math.nan, math.nan),
        (math.inf, math.inf),
        ("emma", "emma"),
        (np.str_("emma"), "emma"),
        (np.array(["a", "b"]), ["a", "b"]),
        (10**400, 10**400),
        ([1, "a", 2.00001], [1, "a", 2.0]),
        ((2, 3), [2, 3]),
        (torch.Size([2, 3]), (2, 3)),
        ({"a": 1}, {"a": 1}),
        (True, True),
        ([], []),
        ([None, 2], [None, 2]),  # answered, at least in part
        (lambda x: 2 * x, is_double),
        (functools.partial(lambda a, x: a * x, 2), is_double),
        (5, lambda x: None),
    ],
)
def test_right(answer, test, capsys):
    assert check(answer, test) is True
    assert said(capsys) == "✔ right"


@pytest.mark.parametrize(
    "answer, test, reason",
    [
        (1.0, math.inf, "expected inf"),
        (math.inf, 1.0, "got inf"),
        (3, 4, "got 3, expected 4"),
        (1.0, 1.002, "expected 1.002"),
        (0.0, 1.5e-4, "expected 0.00015"),
        (True, False, "expected False"),
        (math.nan, 1.0, "got nan"),
        (1.0, math.nan, "expected nan"),
        (math.inf, -math.inf, "expected -inf"),
        ("emma", "ava", "got 'emma', expected 'ava'"),
        ("4", 4, "got '4', expected 4"),
        (np.array(["a", "b"]), ["a", "c"], "expected ['a', 'c']"),
        (10**400, 4, "OverflowError"),
        (object(), 4, "got <object"),
        ([1, 2], [1, 3], "expected [1, 3]"),
        ([1, 2], [1, 2, 3], "expected [1, 2, 3]"),
        ([1, 2, 3], [1, 2], "expected [1, 2]"),
        (7, [1, 2], "expected [1, 2]"),
        (torch.ones(3), torch.ones(4), "shape is (3,), expected (4,)"),
        (torch.ones(3), torch.ones(1, 3), "(3,), expected (1, 3)"),
        (torch.ones(3), 1.0, "expected 1.0"),
        (torch.ones(3), 1.01 * torch.ones(3), "The values are not close"),
        ("x", torch.ones(3), "expected a tensor, got 'x'"),
        (lambda x: x + 2, is_double, "f(5) is not 10"),
        (lambda x: 1 / 0, is_double, "ZeroDivisionError: division by zero"),
        (lambda: 4, is_double, "TypeError"),
        (3, is_double, "TypeError"),
        (print, 4, "expected 4"),
    ],
)
def test_wrong(answer, test, reason, capsys):
    assert check(answer, test) is False
    line = said(capsys)
    assert line.startswith("✘ ") and reason in line and "Hint" not in line


class Grumpy:
    """Refuses to be looked at or compared."""

    def __repr__(self):
        raise RuntimeError("do not look")

    def __eq__(self, other):
        raise RuntimeError("do not compare")

    __hash__ = None


def test_an_answer_that_refuses_everything_is_only_wrong(capsys):
    for test in (4, "emma", [1], torch.ones(2), is_double):
        assert not check(Grumpy(), test, hint="Start again.")
        line = said(capsys)
        assert line.startswith("✘ ") and line.endswith("Hint: Start again.")


class Stub:
    def __call__(self, x): ...


class DocumentedStub:
    def __init__(self):
        self.factor = 2

    def __call__(self, x):
        """Return twice x."""


@pytest.mark.parametrize(
    "answer, test",
    [
        (..., 3),
        (None, 3),
        ([..., 2], [1, 2]),
        ((None, None), (1, 2)),
        (..., is_double),
        (None, is_double),
        (lambda x: ..., is_double),
        (lambda x: None, is_double),
        (lambda x: (x, ...), is_double),
        (Stub, lambda cls: is_double(cls())),
        (DocumentedStub, lambda cls: is_double(cls())),
    ],
)
def test_not_answered(answer, test, capsys):
    assert check(answer, test) is False
    assert said(capsys) == "… not answered yet"


def test_classes_and_objects_reach_the_test_unwrapped(capsys):
    class Double:
        factor = 2

        def __call__(self, x):
            return self.factor * x

        def name(self):
            return "double"

    def of_class(cls):
        if cls.factor != 2 or not isinstance(cls(), cls):
            raise AssertionError
        is_double(cls())

    assert check(Double, of_class)
    assert check(Double(), lambda d: is_double(d) or d.factor)
    Double.factor = 3
    capsys.readouterr()
    assert not check(Double, of_class)
    assert said(capsys) == "✘ not yet right."


def test_a_wrong_class_without_a_stub_is_wrong(capsys):
    class Constant:
        def __call__(self, x):
            """Return seven."""
            return 7

    assert not check(Constant, lambda cls: is_double(cls()))
    assert said(capsys).startswith("✘ f(2) is not 4")


def test_hint_and_tolerances(capsys):
    assert not check(3, 4, hint="Count again.")
    assert said(capsys) == "✘ got 3, expected 4. Hint: Count again."
    assert check(3, 4, hint="Count again.", atol=1.1)
    assert said(capsys) == "✔ right"
    assert check(3, 4, rtol=0.3)
    assert check(0.5, 0.25, rtol=0, atol=0.25)  # the limit itself passes
    assert check(0.75, 0.5, rtol=0.5, atol=0)
    assert not check(100_001, 100_000)  # a count is exact
    assert check(100_001.0, 100_000.0)
    assert check([100_000.0], [100_000]) and not check([10_001], [10_000])
    assert not check(1.0, 1.0005, rtol=0, atol=0)
    ones = torch.ones(3)
    assert check(1.1 * ones, ones, rtol=0.2)
    assert check(1.1 * ones, ones, atol=0.2)
    assert not check(1.0005 * ones, ones, rtol=0, atol=0)


def test_long_reasons_stay_one_short_line(capsys):
    check("x" * 500, "y" * 500)
    assert len(said(capsys)) < 200
    check(torch.rand(100), torch.rand(100))
    assert len(said(capsys)) < 310

    def long(answer):
        raise AssertionError("a\n b " * 100)

    check(1, long)
    assert said(capsys) == "✘ " + ("a b " * 100)[:297] + "."
    for n, kept in ((300, 300), (301, 297)):
        def reason(answer, n=n):
            raise AssertionError("w" * n)

        check(1, reason)
        assert said(capsys) == "✘ " + "w" * kept + "."
    for n in (60, 61):  # a shown value, its quotes included
        check("x" * (n - 2), 4)
        value = repr("x" * (n - 2))
        value = value if n == 60 else value[:57] + "..."
        assert said(capsys) == f"✘ got {value}, expected 4."
