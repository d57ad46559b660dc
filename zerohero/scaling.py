"""Numbers about runs: laws of the loss, long contexts, mixtures, seconds.

Takes any model and any losses; trains nothing itself.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


# -------------------------------------------------------------- power laws
@dataclass
class PowerLaw:
    r"""``loss = floor + sum over i of (scale[i] / x[i]) ** exponent[i]``.

    The form of Hoffmann et al. (2022) with x = (parameters, symbols read):
    what no model of the family can know, what a finite model costs, and
    what finite reading costs.

    Attributes:
        floor: the loss that is left when every x is infinite, in nats.
        scale, exponent: one of each for every x.
        error: root mean square of log(predicted / measured) on the runs
            of the fit.
    """

    floor: float
    scale: tuple[float, ...]
    exponent: tuple[float, ...]
    error: float = 0.0

    def __call__(self, *x: float) -> float:
        """The predicted loss at x, one number for each scale.

        >>> PowerLaw(1.0, (4.0,), (0.5,))(16)
        1.5
        """
        return self.floor + sum(self.parts(*x))

    def parts(self, *x: float) -> tuple[float, ...]:
        """What each x adds to the floor, in nats.

        >>> PowerLaw(1.0, (4.0, 1.0), (0.5, 1.0)).parts(16, 10)
        (0.5, 0.1)
        """
        if len(x) != len(self.scale):
            raise ValueError(f"{len(x)} numbers for a law of "
                             f"{len(self.scale)}")
        if min(x) <= 0:
            raise ValueError(f"x={x} must be above 0")
        return tuple((s / v) ** e for v, s, e in
                     zip(x, self.scale, self.exponent, strict=True))

    def best_split(self, compute: float) -> tuple[float, float]:
        """How to spend a compute of 6 N D: parameters N and symbols D.

        The minimum of the law on the line 6 N D = compute, where
        d loss / d log N = d loss / d log D.

        Args:
            compute: operations to spend, 6 for each parameter and symbol.

        Returns:
            (N, D).

        Raises:
            ValueError: not a law of two numbers, or compute not above 0 and
                finite.
        """
        if len(self.scale) != 2:
            raise ValueError("best_split needs a law of (parameters, "
                             "symbols)")
        if not 0 < compute < math.inf:
            raise ValueError(f"compute={compute} must be above 0 and finite")
        (A, B), (a, b) = self.scale, self.exponent
        budget = compute / 6
        # a (A/N)^a = b (B/D)^b with D = budget / N, solved for log N
        log_n = (math.log(a / b) + a * math.log(A)
                 + b * (math.log(budget) - math.log(B))) / (a + b)
        n = math.exp(log_n)
        return n, budget / n


def fit_power_law(x: Tensor, loss: Tensor,
                  floors: tuple[float, float] = (0.0, 1.0)) -> PowerLaw:
    """Fit a PowerLaw to measured losses.

    Minimizes the mean of log(predicted / measured)**2 by LBFGS from a grid
    of starts, and keeps the best.

    Args:
        x: what was varied, (n, k) or (n,); all above 0.
        loss: measured losses in nats, (n,), above 0.
        floors: the floor lies between these two, as shares of the lowest
            loss.

    Returns:
        The law, with its error.

    Raises:
        ValueError: shapes that do not belong together, numbers that are not
            above 0 and finite, or fewer runs than the law has numbers.

    >>> n = torch.tensor([1e3, 1e4, 1e5, 1e6])
    >>> law = fit_power_law(n, 1 + (100 / n) ** 0.25)
    >>> round(law.floor, 2), round(law.exponent[0], 2), round(law(1e8), 3)
    (1.0, 0.25, 1.032)
    """
    x = x[:, None] if x.dim() == 1 else x
    if x.dim() != 2 or loss.shape != x.shape[:1]:
        raise ValueError(f"x (n, k) and loss (n,) must have the same n, got "
                         f"{tuple(x.shape)} and {tuple(loss.shape)}")
    n, k = x.shape
    if n < 2 * k + 1:
        raise ValueError(f"{n} runs are too few for the {2 * k + 1} numbers "
                         f"of this law")
    for name, t in (("x", x), ("loss", loss)):
        if not ((t > 0) & t.isfinite()).all():
            raise ValueError(f"{name} must be above 0 and finite, got "
                             f"{t.min().item():g} to {t.max().item():g}")
    low, high = floors
    if not 0 <= low < high <= 1:
        raise ValueError(f"floors={floors} must be 0 <= low < high <= 1")
    log_x, log_loss = x.double().log(), loss.double().log()
    middle, least = log_x.mean(0), loss.min().item()

    def terms(w: Tensor) -> tuple:
        floor = least * (low + (high - low) * w[0].sigmoid())
        return floor, w[1:1 + k], w[1 + k:].exp()

    def error(w: Tensor) -> Tensor:
        floor, height, power = terms(w)  # height: log of the part at middle
        parts = (height - power * (log_x - middle)).exp().sum(1)
        return ((floor + parts).log() - log_loss).square().mean()

    best, best_error = None, math.inf
    for start in itertools.product((-2.0, 0.0, 2.0), (-2.0, -0.5), (0.2, 0.6)):
        w = torch.tensor([start[0]] + [start[1]] * k
                         + [math.log(start[2])] * k, dtype=torch.float64,
                         requires_grad=True)
        search = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10,
                                   tolerance_change=1e-14,
                                   line_search_fn="strong_wolfe")

        def closure(w=w, search=search):
            search.zero_grad()
            value = error(w)
            value.backward()
            return value

        search.step(closure)
        with torch.no_grad():
            value = error(w).item()
        if value < best_error:
            best, best_error = w.detach(), value
    floor, height, power = terms(best)
    scale = (middle + height / power).exp()
    return PowerLaw(floor.item(), tuple(scale.tolist()),
                    tuple(power.tolist()), math.sqrt(best_error))


# ------------------------------------------------------ losses of each symbol
@torch.no_grad()
def sliding_losses(model, ids: Tensor, block_size: int, stride: int,
                   batch_size: int = 8192) -> Tensor:
    """Loss of every symbol of a text, each with a long context.

    Windows of block_size symbols begin every `stride` symbols; of each only
    the last `stride` predictions count, so that a symbol is predicted from
    block_size - stride + 1 to block_size symbols before it (at the
    beginning of the text from all there are).  With stride = block_size
    these are the losses of ``chunks``.  Their mean is how surprised the
    model is by this text, which may be shorter than block_size.

    Args:
        model: logits = model(idx), (B, T, V).
        ids: the text, (N,).
        block_size: longest context of the model.
        stride: 1 (slow, longest contexts) to block_size (fast).
        batch_size: symbols to run at once.

    Returns:
        (N - 1,) nats, in eval mode: the losses of ids[1:].

    Raises:
        ValueError: a stride out of range, or a text of fewer than 2 ids.
    """
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride={stride} must lie in 1..{block_size}")
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(f"ids of shape {tuple(ids.shape)} must be a row of "
                         f"at least 2")
    where = next(iter(model.parameters())).device
    was = model.training
    model.eval()
    n = len(ids) - 1
    out = torch.empty(n)
    try:
        first = min(block_size, n)
        ends = [first, *range(first + stride, n, stride)]
        if ends[-1] < n:
            ends.append(n)
        done = 0
        rows = max(1, batch_size // block_size)
        for i in range(0, len(ends), rows):
            some = ends[i:i + rows]
            at = torch.tensor(some)[:, None] - torch.arange(first, 0, -1)
            logits = model(ids[at].to(where)).float().log_softmax(-1)
            loss = -logits.gather(-1, ids[at + 1].to(where)[..., None])
            for end, row in zip(some, loss[..., 0].cpu(), strict=True):
                out[done:end] = row[first - (end - done):]
                done = end
    finally:
        model.train(was)
    return out


def mix(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Losses of a mixture of two models from the losses of each.

    The mixture gives every symbol ``(1 - weight) p_a + weight p_b``, so its
    loss is ``-log((1 - weight) exp(-a) + weight exp(-b))``.

    Args:
        a, b: losses of the same symbols in nats, same shape.
        weight: share of b, 0 to 1.

    Raises:
        ValueError: other shapes, or a weight outside 0..1.

    >>> a = torch.tensor([0.25, 0.75]).log().neg()
    >>> mix(a, a.flip(0), 0.5).neg().exp()
    tensor([0.5000, 0.5000])
    """
    if a.shape != b.shape:
        raise ValueError(f"losses of shapes {tuple(a.shape)} and "
                         f"{tuple(b.shape)} are not of the same symbols")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must lie in 0..1")
    if weight in (0, 1):
        return (b if weight else a).clone()
    return -torch.logaddexp(math.log1p(-weight) - a, math.log(weight) - b)


def best_weight(a: Tensor, b: Tensor) -> float:
    """The weight of b with which ``mix(a, b, weight)`` is best on average.

    The mean loss is convex in the weight: of three thirds of the interval
    one can always be cut off.  To a thousandth.

    >>> a = torch.tensor([0.9, 0.1, 0.9, 0.9]).log().neg()
    >>> b = torch.tensor([0.1, 0.9, 0.1, 0.1]).log().neg()
    >>> round(best_weight(a, b), 2)
    0.19
    """
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        third = (high - low) / 3
        left, right = low + third, high - third
        if mix(a, b, left).mean() < mix(a, b, right).mean():
            high = right
        else:
            low = left
    return (low + high) / 2


# ---------------------------------------------------------------- machine
def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Seconds that work() takes, the least of a few tries.

    The first try warms up caches and does not count.  Waits for a GPU,
    which answers before it has finished.

    Args:
        work: what to run, without arguments.
        times: tries that count, 1 or more.

    Raises:
        ValueError: times below 1.
    """
    if times < 1:
        raise ValueError(f"times={times} must be 1 or more")
    work()
    best = math.inf
    for _ in range(times):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        best = min(best, time.perf_counter() - start)
    return best


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
