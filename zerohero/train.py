"""One training loop for every model of the book.

A model is anything that answers ``logits = model(idx)``: one row of logits
for each window, (B, V), or one for each position, (B, T, V).  The loss is
always the cross-entropy in nats per symbol; targets of -1 do not count.
"""

import functools
import io
import json
import math
import os
import pathlib
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1  # a target that does not count


# ---------------------------------------------------------------- machine
def device() -> torch.device:
    """Return the best device here: a GPU of either kind, or else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def quota(root: str = "/sys/fs/cgroup") -> float | None:
    """Cores that the container grants (its cgroup quota), None if no limit.

    torch counts the cores of the machine and never asks for the quota.
    Reads ``cpu.max`` (cgroup v2) or ``cpu.cfs_quota_us`` (v1) under `root`.
    """
    base = pathlib.Path(root)
    try:
        limit, period = (base / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (base / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (base / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = float(limit) / float(period)
    except ValueError:  # cgroup v2 writes "max" for "no limit"
        return None
    return cores if cores > 0 else None


def threads(root: str = "/sys/fs/cgroup") -> int:
    """Give torch as many threads as this process may use; return them.

    The least of: cores of the process, the container's quota (rounded
    down, at least 1), and OMP_NUM_THREADS where it is set.
    """
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        n = os.cpu_count() or 1
    cores = quota(root)
    if cores is not None:
        n = min(n, max(1, int(cores)))
    omp = os.environ.get("OMP_NUM_THREADS", "")
    if omp.isdigit() and int(omp) > 0:
        n = min(n, int(omp))
    torch.set_num_threads(n)
    return n


def _fastest(dtype: torch.dtype, where: torch.device) -> float:
    x = torch.ones(512, 128, dtype=dtype, device=where)
    w = torch.ones(512, 128, dtype=dtype, device=where)
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        F.linear(x, w).sum().item()
        best = min(best, time.perf_counter() - start)
    return best


@functools.cache
def number_format() -> torch.dtype:
    """The number format for matrix products here: bfloat16 or float32.

    A probe of a few milliseconds: bfloat16 only where one product is at
    least 1.3 times as fast in it (a processor with AVX-512 BF16 or AMX, a
    GPU); elsewhere it can be far slower than float32.  On one thread: on a
    busy machine several would measure how long they wait for each other.
    """
    where, threads_before = device(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        half = _fastest(torch.bfloat16, where)
        full = _fastest(torch.float32, where)
    except RuntimeError:  # a device that cannot do it at all
        return torch.float32
    finally:
        torch.set_num_threads(threads_before)
    return torch.bfloat16 if full > 1.3 * half else torch.float32


# ---------------------------------------------------------------- batches
def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be an integer of 1 or more")


class Batches:
    """Endless shuffled mini-batches (xb, yb) of the examples (x, y).

    Each epoch is one new order of all examples, drawn from `generator`, cut
    into batches; what does not fill a last batch waits for the next epoch.

    Args:
        x: examples, first dimension N.
        y: targets, first dimension N.
        batch_size: B, between 1 and N.
        generator: where the order comes from (None: torch's own).

    Raises:
        ValueError: x or y is no tensor, they differ in length, or
            batch_size is not in 1..N.

    >>> x = torch.arange(4)
    >>> xb, yb = next(Batches(x, x * 10, 4, torch.Generator()))
    >>> torch.equal(yb, xb * 10), sorted(xb.tolist())
    (True, [0, 1, 2, 3])
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int,
                 generator: torch.Generator | None = None):
        _positive("batch_size", batch_size)
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise ValueError(
                f"x and y must be tensors, not {type(x).__name__} and "
                f"{type(y).__name__}: torch.as_tensor(x) makes one")
        if len(x) != len(y):
            raise ValueError(
                f"x and y must have one row per example, got shapes "
                f"{tuple(x.shape)} and {tuple(y.shape)}")
        if batch_size > len(x):
            raise ValueError(
                f"batch_size={batch_size} is more than the {len(x)} "
                f"examples; choose at most {len(x)}")
        self.x, self.y, self.batch_size = x, y, batch_size
        self.generator = generator
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def _shuffle(self) -> None:
        self.order = torch.randperm(len(self.x), generator=self.generator)
        self.at = 0

    def _take(self) -> Tensor:
        if self.at + self.batch_size > len(self.order):
            self._shuffle()
        rows = self.order[self.at:self.at + self.batch_size]
        self.at += self.batch_size
        return rows

    def __iter__(self):
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        rows = self._take()
        return self.x[rows], self.y[rows]

    def state_dict(self) -> dict:
        """What an exact continuation needs: order, place, generator."""
        random = (torch.get_rng_state() if self.generator is None
                  else self.generator.get_state())
        return {"order": self.order, "at": self.at, "random": random}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state` (of ``state_dict``) was taken."""
        self.order, self.at = state["order"].clone(), state["at"]
        if self.generator is None:
            torch.set_rng_state(state["random"])
        else:
            self.generator.set_state(state["random"])


class TextBatches(Batches):
    """Endless batches (B, T) of running text; targets are one step ahead.

    Each epoch cuts the text into pieces of T = block_size, starting at a
    new random phase, and deals the pieces out in a new order: every symbol
    is a target once an epoch, with another length of context each time.

    Args:
        ids: the text, (N,).
        block_size: T, symbols of a piece.
        batch_size: B, pieces of a batch.
        generator: where phase and order come from (None: torch's own).

    Raises:
        ValueError: the text is too short for one batch.

    >>> batches = TextBatches(torch.arange(10), 3, 2, torch.Generator())
    >>> xb, yb = next(batches)
    >>> xb.shape, torch.equal(yb, xb + 1)
    (torch.Size([2, 3]), True)
    """

    def __init__(self, ids: Tensor, block_size: int, batch_size: int,
                 generator: torch.Generator | None = None):
        _positive("block_size", block_size)
        _positive("batch_size", batch_size)
        need = block_size * (batch_size + 1)  # any phase leaves a batch
        if ids.dim() != 1 or len(ids) < need:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)}: a batch of {batch_size} "
                f"pieces of {block_size} needs one row of at least {need} "
                f"symbols; take a smaller batch or more text")
        self.ids, self.batch_size = ids, batch_size
        self.block_size, self.generator = block_size, generator
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def _shuffle(self) -> None:
        T = self.block_size
        phase = torch.randint(T, (1,), generator=self.generator).item()
        pieces = (len(self.ids) - 1 - phase) // T
        order = torch.randperm(pieces, generator=self.generator)
        self.order, self.at = phase + order * T, 0

    def __next__(self) -> tuple[Tensor, Tensor]:
        at = self._take()[:, None] + torch.arange(self.block_size)  # (B, T)
        return self.ids[at], self.ids[at + 1]


def name_rows(ids: Tensor, boundary: int, block_size: int,
              pack: bool = False) -> tuple[Tensor, Tensor]:
    """Names as rows for a model that answers every position.

    A row is boundary and name, its targets the name and boundary; behind
    the end stand boundary symbols whose targets do not count (-1).  Every
    symbol after the first boundary is a target exactly once.

    Args:
        ids: names with single boundary symbols between and around them.
        boundary: id of the boundary symbol.
        block_size: length T of a row; the longest name must fit.
        pack: put several names into one row, for a model that does not
            look back past a boundary.

    Returns:
        x, y, both (rows, T).

    Raises:
        ValueError: ids do not begin and end with a boundary, or a name is
            too long.

    >>> x, y = name_rows(torch.tensor([0, 5, 6, 0, 7, 0]), 0, 4)
    >>> x.tolist(), y.tolist()
    ([[0, 5, 6, 0], [0, 7, 0, 0]], [[5, 6, 0, -1], [7, 0, -1, -1]])
    """
    if len(ids) < 2 or ids[0] != boundary or ids[-1] != boundary:
        raise ValueError(f"ids must begin and end with the boundary "
                         f"{boundary}, and hold at least one name")
    starts = (ids[:-1] == boundary).nonzero().flatten()
    ends = torch.cat((starts[1:], torch.tensor([len(ids) - 1])))
    if (ends - starts).max() > block_size:
        raise ValueError(f"block_size={block_size} is too short for a name "
                         f"of {int((ends - starts).max()) - 1} symbols")
    rows, at, row = [], [], -1
    room = 0
    for length in (ends - starts).tolist():
        if not pack or length > room:
            row, room = row + 1, block_size
        rows.append(row)
        at.append(block_size - room)
        room -= length
    x = torch.full((row + 1, block_size), boundary)
    y = torch.full((row + 1, block_size), IGNORE)
    spans = zip(starts.tolist(), ends.tolist(), rows, at, strict=True)
    for start, end, r, k in spans:
        x[r, k:k + end - start] = ids[start:end]
        y[r, k:k + end - start] = ids[start + 1:end + 1]
    return x, y


# --------------------------------------------------------------- schedules
def linear_to_zero(steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Factor of the learning rate: up over `warmup` steps, down to zero.

    >>> [round(linear_to_zero(5, warmup=2)(s), 2) for s in range(5)]
    [0.5, 1.0, 1.0, 0.67, 0.33]
    """
    _check_warmup(steps, warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / (steps - warmup))
    return factor


def cosine(steps: int, warmup: int = 0,
           floor: float = 0.0) -> Callable[[int], float]:
    """Factor of the learning rate: warm-up, then half a cosine to `floor`.

    >>> [round(cosine(4)(s), 2) for s in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    _check_warmup(steps, warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / (steps - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
    return factor


def _check_warmup(steps: int, warmup: int) -> None:
    _positive("steps", steps)
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} must lie in 0..{steps - 1}, "
                         f"below steps={steps}")


# -------------------------------------------------------------- evaluation
def _where(model) -> torch.device | None:
    for p in getattr(model, "parameters", tuple)():
        return p.device
    return None


def _loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, got {tuple(targets.shape)}")
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(),
                           ignore_index=IGNORE, reduction=reduction)


def evaluate(model, x: Tensor, y: Tensor, batch_size: int = 8192,
             world=None) -> float:
    """Mean loss in nats per symbol over ALL of (x, y), not a sample of it.

    Runs in eval mode without gradients and puts the mode back.

    Args:
        model: logits = model(x).
        x: contexts (N, T).
        y: targets (N,) or (N, T); -1 does not count.
        batch_size: targets to answer at once (memory, not result).
        world: of distributed.start(); each process then reads its share.

    Raises:
        ValueError: no target at all, or shapes that do not belong together.
    """
    count = int((y != IGNORE).sum())
    if count == 0:
        raise ValueError(f"nothing to evaluate in y of {tuple(y.shape)}")
    if world is not None and len(x) == len(y):  # else refused below
        x, y = x[world.rank::world.size], y[world.rank::world.size]
    total = losses(model, x, y, batch_size).double().sum()
    if world is not None:
        total = world.sum(total)
    return total.item() / count


def losses(model, x: Tensor, y: Tensor, batch_size: int = 8192) -> Tensor:
    """Loss in nats of each target that counts, in reading order.

    Their mean is ``evaluate(model, x, y)``, whose arguments these are.

    Returns:
        (M,), M = number of targets that are not -1.
    """
    _positive("batch_size", batch_size)
    if len(x) != len(y):
        raise ValueError(f"x and y must have one row per example, got "
                         f"shapes {tuple(x.shape)} and {tuple(y.shape)}")
    rows = batch_size
    if y.dim() > 1:  # one target per position: count positions
        rows = max(1, batch_size // y.shape[1])
    where, was = _where(model), getattr(model, "training", None)
    parts = [torch.empty(0)]  # a process's share of few rows can be empty
    if was:
        model.eval()
    try:
        with torch.no_grad():
            for at in range(0, len(x), rows):
                yb = y[at:at + rows]
                logits = model(x[at:at + rows].to(where))
                each = _loss(logits, yb.to(where), "none").cpu()
                parts.append(each[yb.flatten() != IGNORE])
    finally:
        if was:
            model.train()
    return torch.cat(parts)


# -------------------------------------------------------------------- fit
@dataclass
class History:
    """What a run of ``fit`` leaves behind.

    Attributes:
        losses: training loss of each step, nats per symbol of its batch.
        val: pairs (steps done, validation loss), nats per symbol.
        seconds: time in the training loop, evaluations not counted.
        best: (steps done, loss) of the lowest validation loss, or None.
        best_state: state dict of the model at that moment, or None.
        done: where on the schedule the run ended, what ``start`` is for
            one that takes it up (the steps done, unless `seconds` ruled).
        interrupted: whether Ctrl-C ended the run early.
    """

    losses: list[float] = field(default_factory=list)
    val: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    best: tuple[int, float] | None = None
    best_state: dict | None = None
    done: int = 0
    interrupted: bool = False


def _every(steps: int, eval_every: int | None) -> int:
    """Steps between two lines; with a first estimate they are at most 10."""
    if eval_every is None:
        return math.ceil(steps / 9)
    return eval_every * math.ceil(steps / eval_every / 9)


def fit(model, batches, optimizer, steps: int, *,
        schedule: Callable[[int], float] | None = None,
        val: tuple[Tensor, Tensor] | None = None,
        eval_every: int | None = None, clip: float | None = None,
        start: int = 0, seconds: float | None = None,
        keep_best: bool = False, accumulate: int = 1, world=None,
        log: bool = True) -> History:
    """Train `model` for the steps start..steps-1; return a History.

    One step: draw a batch, logits = model(xb), loss, backward, optimizer
    step with every learning rate multiplied by ``schedule(step)``.  Between
    steps the optimizers hold their own, unscaled learning rates.  Ctrl-C
    ends the run and keeps what was learned.

    Args:
        model: anything with logits = model(idx) and parameters().
        batches: iterator of (xb, yb), such as Batches or TextBatches; a
            DataLoader, which ends, is made endless by a generator with
            ``while True: yield from loader``.
        optimizer: one optimizer or a list of them.
        steps: where to stop, counted from step 0.
        schedule: factor of the learning rates for each step (None: 1).
        val: (x, y), evaluated whole every `eval_every` steps and at the end.
        eval_every: steps between evaluations (None: only at the end).
        clip: largest norm that the gradient may have (None: any).
        start: steps already done, when a run is taken up again.
        seconds: let the clock rule: start..steps is passed in this time
            (evaluations not counted), with as many steps as it allows. The
            schedule then follows the time, so it ends where it should
            even if the machine turns slow half-way.
        keep_best: leave the model with its best validated weights.
        accumulate: batches to read before each step; the gradient is that
            of one batch made of all of them.
        world: of distributed.start(): sums gradients and losses over all
            processes; `batches` is then this process's share.
        log: print progress, at most ten lines.

    Raises:
        ValueError: bad counts or seconds, another kind of batches,
            optimizer, schedule or val, batches that end, keep_best without
            val, or a loss that is not finite (with the step where it was).
    """
    _positive("steps", steps)
    _positive("accumulate", accumulate)
    if eval_every is not None:
        _positive("eval_every", eval_every)
    if not 0 <= start <= steps:
        raise ValueError(f"start={start} must lie in 0..steps={steps}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds={seconds} must be above 0")
    if val is None and (keep_best or eval_every is not None):
        raise ValueError("keep_best and eval_every need val=(x, y)")
    optimizers = (list(optimizer) if isinstance(optimizer, (list, tuple))
                  else [optimizer])
    _check_kinds(batches, optimizers, schedule, val)
    groups = [g for o in optimizers for g in o.param_groups]
    params = [p for g in groups for p in g["params"]]
    where, every = _where(model), _every(steps, eval_every)
    if world is not None and world.size == 1:
        world = None
    log = log and (world is None or world.first)
    history, spent, told = History(), 0.0, not log
    losses, new = history.losses, []  # numbers; tensors of the last steps
    place, shown = start, 0  # steps done on the schedule; losses printed
    begin = time.perf_counter()
    model.train()
    try:
        while place < steps:
            for o in optimizers:
                o.zero_grad(set_to_none=True)
            if accumulate == 1 and world is None:
                xb, yb = _draw(batches)
                loss = _loss(model(xb.to(where)), yb.to(where), "mean")
                loss.backward()
            else:
                loss = _gather(model, batches, params, accumulate, world)
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(params, clip)
            _step(optimizers, groups, schedule, place)
            new.append(loss.detach())
            took = time.perf_counter() - begin - spent
            before, place = place, place + 1
            if seconds is not None:
                share = _agree(min(1.0, took / seconds), world)
                place = start + int((steps - start) * share)
            elif not told and took + spent > 3:
                told = True
                _promise(place - start, steps - start, took)
            value, last = None, place >= steps
            lined = last or place // every > before // every
            if lined or len(new) == 32:  # seldom: a GPU would wait for it
                _settle(new, losses)
            if lined and not math.isfinite(losses[-1]):
                break
            if val is not None and (last or eval_every and
                                    place // eval_every
                                    > before // eval_every):
                pause = time.perf_counter()
                value = evaluate(model, *val, world=world)
                _keep(history, place, value, model)
                spent += time.perf_counter() - pause
            if log and lined:
                now = f"step {place:>{len(str(steps))}}/{steps}"
                if seconds is not None:
                    now = (f"{100 * place // steps:3d}% of the time, "
                           f"step {len(losses)}")
                _line(now, losses[shown:], value, took,
                      took / max(1, place - start) * (steps - place))
                shown = len(losses)
    except KeyboardInterrupt:
        history.interrupted = True
        _settle(new, losses)
        if log:
            print(f"stopped by hand after {start + len(losses)} steps; "
                  f"what was learned is kept")
    history.done = place
    history.seconds = time.perf_counter() - begin - spent
    for step, value in enumerate(losses, start):
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step}: lower "
                             f"the learning rate or clip the gradient")
    if keep_best and history.best_state is not None:
        model.load_state_dict(history.best_state)
    return history


def _check_kinds(batches, optimizers, schedule, val) -> None:
    """Refuse at once what other libraries take in these places."""
    if not hasattr(batches, "__next__"):
        raise ValueError(
            f"batches is a {type(batches).__name__}: give an endless "
            f"iterator of (xb, yb), such as Batches(x, y, batch_size), or a "
            f"generator with 'while True: yield from loader'")
    for o in optimizers:
        if not hasattr(o, "param_groups"):
            raise ValueError(
                f"{o!r} is no optimizer: make one, such as "
                f"AdamW(model.parameters(), lr=0.01)")
    if schedule is not None and not callable(schedule):
        raise ValueError(
            f"schedule is a {type(schedule).__name__}: give a function "
            f"step -> factor, such as linear_to_zero(steps)")
    if val is not None and not (isinstance(val, (tuple, list))
                                and len(val) == 2):
        raise ValueError("val must be a pair of tensors, (x, y)")


def _draw(batches) -> tuple[Tensor, Tensor]:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            "the batches came to an end before the steps did: give an "
            "endless iterator, such as Batches(x, y, batch_size)") from None


def _settle(new: list[Tensor], losses: list[float]) -> None:
    """Move what the last steps lost from tensors to numbers."""
    if new:
        losses += torch.stack(new).float().tolist()
        new.clear()


def _gather(model, batches, params, accumulate: int, world) -> Tensor:
    """Mean loss and its gradient over several batches and processes."""
    total = count = 0
    for _ in range(accumulate):
        xb, yb = (t.to(_where(model)) for t in _draw(batches))
        loss = _loss(model(xb), yb, "sum")
        loss.backward()  # adds to the gradients that are there
        total, count = total + loss.detach(), count + (yb != IGNORE).sum()
    if world is not None:
        total, count = world.add_gradients(params, total, count)
    for p in params:
        if p.grad is not None:
            p.grad /= count
    return total / count


def _step(optimizers, groups, schedule, step: int) -> None:
    if schedule is None:
        for o in optimizers:
            o.step()
        return
    rates, factor = [g["lr"] for g in groups], schedule(step)
    try:
        for g in groups:
            g["lr"] = g["lr"] * factor
        for o in optimizers:
            o.step()
    finally:
        for g, rate in zip(groups, rates, strict=True):
            g["lr"] = rate


def _keep(history: History, done: int, value: float, model) -> None:
    history.val.append((done, value))
    if history.best is None or value < history.best[1]:
        history.best = (done, value)
        history.best_state = {
            name: t.detach().clone()
            for name, t in model.state_dict().items()}


def _promise(done: int, steps: int, took: float) -> None:
    """Say from the first steps how long a long run will take."""
    total = took / done * steps
    if total > 20:
        print(f"{steps} steps will take about {total:.0f} s here; "
              f"interrupt when you like", flush=True)


def _agree(share: float, world) -> float:
    """The mean over all processes: they must stop at the same step."""
    if world is None:
        return share
    return (world.sum(torch.tensor(share)) / world.size).item()


def _line(now: str, recent: list, value, took, left) -> None:
    text = f"{now}  train {sum(recent) / len(recent):.4f}"
    if value is not None:
        text += f"  val {value:.4f}"
    text += f"  {took:.1f} s"
    if left > 0:
        text += f", about {left:.0f} s to go"
    print(text, flush=True)


# ------------------------------------------------------------- checkpoints
def _flatten(tree, tensors: list):
    """Replace each tensor in nested dicts and lists by its number."""
    if isinstance(tree, Tensor):
        tensors.append(tree.detach())
        return {"tensor": len(tensors) - 1}
    if isinstance(tree, dict):
        return {"dict": [[k, _flatten(v, tensors)] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_flatten(v, tensors) for v in tree]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    raise ValueError(f"a checkpoint holds tensors, numbers, text, lists and "
                     f"dicts, not {type(tree).__name__}")


def _unflatten(tree, tensors: list):
    ((kind, inner),) = tree.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {k: _unflatten(v, tensors) for k, v in inner}
    if kind in ("list", "tuple"):
        items = [_unflatten(v, tensors) for v in inner]
        return tuple(items) if kind == "tuple" else items
    return inner


def write(path: str | os.PathLike, tree) -> None:
    """Write nested dicts and lists of tensors and numbers to one file.

    The file is an .npz of plain arrays and a piece of JSON: no pickle, so
    reading it runs no code.  It appears whole or not at all (written beside
    its place, then moved).
    """
    tensors: list[Tensor] = []
    head = {"format": "zerohero", "version": 1,
            "tree": _flatten(tree, tensors),
            "dtypes": [str(t.dtype).removeprefix("torch.") for t in tensors]}
    arrays = {}
    for i, t in enumerate(tensors):
        t = t.cpu().contiguous()
        if t.dtype == torch.bfloat16:  # numpy has no such number
            t = t.view(torch.int16)
        arrays[f"t{i}"] = t.numpy()
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    path = pathlib.Path(path)
    part = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        with open(part, "wb") as f:
            np.savez(f, head=text, **arrays)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike):
    """Read back what ``write`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not one of ours.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            head = json.loads(bytes(file["head"]))
            if head["format"] != "zerohero" or head["version"] != 1:
                raise ValueError("another format or version")
            tensors = []
            for i, name in enumerate(head["dtypes"]):
                t = torch.from_numpy(file[f"t{i}"].copy())
                if name == "bfloat16":
                    t = t.view(torch.bfloat16)
                if t.dtype != getattr(torch, name):
                    raise ValueError(f"tensor {i} is not {name}")
                tensors.append(t)
        return _unflatten(head["tree"], tensors)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError,
            EOFError, OSError, NotImplementedError, zipfile.BadZipFile,
            zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint of zerohero: it was cut "
            f"short, damaged, or written by another program. Take an older "
            f"one or train again; what torch.save wrote, torch.load reads"
        ) from error


def _parts(model, optimizer, batches) -> dict:
    optimizers = (list(optimizer) if isinstance(optimizer, (list, tuple))
                  else [] if optimizer is None else [optimizer])
    return {"model": model, "batches": batches,
            **{f"optimizer{i}": o for i, o in enumerate(optimizers)}}


def save(path: str | os.PathLike, model, optimizer=None, batches=None,
         step: int = 0, note=None) -> None:
    """Save a run so that it can go on exactly: see ``load``.

    Args:
        path: the file, by custom ending in .npz.
        model, optimizer, batches: what has a state_dict() (optimizer: one
            or a list; None leaves it out).  torch's own random state, which
            dropout draws from, is always saved.
        step: steps done.
        note: anything made of dicts, lists, numbers and text.
    """
    parts = _parts(model, optimizer, batches)
    write(path, {
        "step": step, "note": note, "random": torch.get_rng_state(),
        **{k: None if v is None else dict(v.state_dict())
           for k, v in parts.items()}})


def load(path: str | os.PathLike, model, optimizer=None,
         batches=None) -> tuple[int, object]:
    """Load what ``save`` saved into model, optimizer(s) and batches.

    ``fit(..., start=step)`` then goes on as if there had been no break (so
    torch's own random state is set back, too).

    Returns:
        (step, note) as they were saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: damaged or foreign file, or one without the parts
            asked for.
    """
    state = read(path)
    parts = {k: v for k, v in _parts(model, optimizer, batches).items()
             if v is not None}
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError(f"{path} holds no run: it was not made by save()")
    missing = [k for k in parts if state.get(k) is None]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}; it was saved "
                         f"without, so load it without too")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"])
    return state["step"], state["note"]
