"""`check`: the book's exercises correct themselves."""

import functools
import math
import types
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

RTOL = 1e-3


def check(
    answer,
    test,
    hint: str = "",
    *,
    rtol: float | None = None,
    atol: float = 1e-4,
) -> bool:
    """Say in one line whether `answer` is right, and return that.

    answer: a value, function or class; `...`, None, a function that returns
    one of them and a class with an empty method are not answered yet.
    test: the expected value (a number or tensor passes within tolerance,
    abs(answer - test) <= atol + rtol * abs(test); rtol is 1e-3, but 0 for
    a whole number), or a function that takes the answer and raises
    AssertionError("why it is wrong").
    hint: printed with a wrong answer.
    Whatever the answer does, check itself does not raise.

    >>> check(..., 4)
    … not answered yet
    False
    >>> check(2 + 2, 4)
    ✔ right
    True
    >>> check([1, 2], [2, 1], hint="Which comes first?")
    ✘ got [1, 2], expected [2, 1]. Hint: Which comes first?
    False
    """
    if _blank(answer):
        why = None
    elif callable(test):
        why = _run(answer, test)
    else:
        try:
            why = _differs(answer, test, rtol, atol)
        except Exception as error:  # such as a number too large to compare
            why = f"{type(error).__name__}: {error}"
    if why is None:
        print("… not answered yet")
    elif why:
        why = " ".join(why.split())
        why = why if len(why) <= 300 else why[:297] + "..."
        print(f"✘ {why.rstrip('.')}." + (f" Hint: {hint}" if hint else ""))
    else:
        print("✔ right")
    return why == ""


class _NotAnswered(BaseException):
    """A function of the reader returned `...` or None."""


def _blank(value) -> bool:
    """Is this a value that stands for "no answer"?"""
    if isinstance(value, (tuple, list)) and value:
        nothing = all(v is None for v in value)
        return nothing or any(v is ... for v in value)
    return value is ... or value is None


def _run(answer, test: Callable) -> str | None:
    """Return "" if right, None if not answered, else the reason."""
    tested = answer
    if isinstance(answer, (types.FunctionType, functools.partial)):

        def tested(*args, **kwargs):
            result = answer(*args, **kwargs)
            if _blank(result):
                raise _NotAnswered
            return result

    try:
        test(tested)
    except _NotAnswered:
        return None
    except Exception as error:
        if isinstance(answer, type) and _has_stub(answer):
            return None
        if isinstance(error, AssertionError):
            return str(error) or "not yet right"
        return f"{type(error).__name__}: {error}"
    return ""


def _has_stub(cls: type) -> bool:
    """Has the class a method whose body is only `...` or pass?"""

    def bare(): ...

    def documented():
        """Documented."""

    for f in vars(cls).values():
        if isinstance(f, types.FunctionType):
            stub = documented if f.__doc__ else bare
            code, consts = f.__code__.co_code, f.__code__.co_consts
            same = code == stub.__code__.co_code
            if same and all(c in (None, f.__doc__) for c in consts):
                return True
    return False


def _differs(answer, test, rtol: float | None, atol: float) -> str:
    """Return "" if the answer is the expected value, else the reason."""
    answer, test = _plain(answer), _plain(test)
    wrong = f"got {_short(answer)}, expected {_short(test)}"
    if isinstance(test, Tensor) and test.dim():
        return _tensor_differs(answer, test, rtol, atol)
    if isinstance(test, Tensor):
        test = test.item()
    if isinstance(answer, Tensor):
        answer = answer.item() if answer.numel() == 1 else answer.tolist()
    if isinstance(test, (list, tuple)):
        if not isinstance(answer, (list, tuple)) or len(answer) != len(test):
            return wrong
        pairs = zip(answer, test, strict=True)
        return wrong if any(_differs(*p, rtol, atol) for p in pairs) else ""
    if isinstance(test, (int, float)) and isinstance(answer, (int, float)):
        if answer == test or (math.isnan(answer) and math.isnan(test)):
            return ""
        if rtol is None:  # a count is right or wrong, however large
            rtol = 0.0 if isinstance(test, int) else RTOL
        limit = atol + rtol * abs(test)
        close = math.isfinite(test) and abs(answer - test) <= limit
        return "" if close else wrong
    return "" if answer == test else wrong


def _plain(value):
    """numpy's numbers as a tensor, its text and objects as Python's own."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    numbers = value.dtype.kind in "biufc"
    return torch.as_tensor(value) if numbers else value.tolist()


def _tensor_differs(answer, test: Tensor, rtol, atol: float) -> str:
    try:
        answer = torch.as_tensor(answer).detach()
    except Exception:
        return f"expected a tensor, got {_short(answer)}"
    if answer.shape != test.shape:
        shapes = f"{tuple(answer.shape)}, expected {tuple(test.shape)}"
        return f"the shape is {shapes}"
    try:
        torch.testing.assert_close(
            answer.double(),
            test.detach().double(),
            rtol=RTOL if rtol is None else rtol,
            atol=atol,
            equal_nan=True,
        )
    except AssertionError as error:
        return str(error).replace("Tensor-likes", "The values")
    return ""


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
