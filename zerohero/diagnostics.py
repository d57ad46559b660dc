"""Numbers about a run: what layers say, what they hear, how far they move.

Nothing here draws and nothing changes the model. The functions take our
modules and those of ``torch.nn`` alike.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

SLOPES = {
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).to(h.dtype),
}


def record(
    model, idx: Tensor, kinds: tuple | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run ``model(idx)`` and keep what every layer inside it put out.

    The outputs keep their gradient: after ``loss.backward()`` read
    ``outputs[name].grad``.

    Args:
        model: a module with children.
        idx: the input.
        kinds: classes of layers to record (None: every module that has no
            modules inside).

    Returns:
        (output of the model, dict of dotted name -> output of that layer,
        in the order in which they ran; of a layer that ran twice, the last).

    Raises:
        ValueError: no layer of these kinds.
    """
    chosen = [
        (name, m)
        for name, m in model.named_modules()
        if (isinstance(m, kinds) if kinds else not any(m.children()))
    ]
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} holds no layer of kinds {kinds}: "
            "give a tuple of classes such as (Linear, Tanh)"
        )
    outputs: dict[str, Tensor] = {}

    def listen(name: str, forward: Callable) -> Callable:
        def listening(*args, **kwargs):
            out = forward(*args, **kwargs)
            if out.requires_grad:
                out.retain_grad()
            outputs.pop(name, None)
            outputs[name] = out
            return out

        return listening

    try:
        for name, m in chosen:  # in front of the class's own forward
            m.__dict__["forward"] = listen(name, m.forward)
        return model(idx), outputs
    finally:
        for _, m in chosen:
            m.__dict__.pop("forward", None)


def saturated(h: Tensor, limit: float = 0.97) -> float:
    """Share of the outputs ``h`` of a tanh layer with ``abs(h) > limit``.

    At 0.97 the slope ``1 - h**2`` is down to 6 %.

    >>> saturated(torch.tensor([[0.5, -0.99], [0.2, 1.0]]))
    0.5
    """
    _check_filled("h", h)
    return (h.abs() > limit).float().mean().item()


def slopes(h: Tensor, kind: str = "tanh") -> Tensor:
    """Slope of an activation, from its output: what a gradient is
    multiplied by on its way back.

    ``1 - h**2`` (tanh), ``h * (1 - h)`` (sigmoid), 1 where ``h > 0`` else
    0 (relu). Same shape as ``h``.

    >>> slopes(torch.tensor([0.0, 0.5, -1.0]))
    tensor([1.0000, 0.7500, 0.0000])
    """
    if kind not in SLOPES:
        raise ValueError(f"kind={kind!r} must be one of {sorted(SLOPES)}")
    return SLOPES[kind](h)


def dead_units(h: Tensor, kind: str = "tanh", least: float = 0.02) -> Tensor:
    """Which units pass no gradient back, whatever the example.

    A unit is dead for these examples if its slope is below ``least`` for
    every one of them; a unit that is flat for some is doing its work.

    Args:
        h: outputs of the layer, (..., H), one column for each unit.
        kind: "tanh", "sigmoid" or "relu".

    Returns:
        bool (H,).

    >>> dead_units(torch.tensor([[1.0, 0.1], [-1.0, 1.0]])).tolist()
    [True, False]
    """
    _check_filled("h", h)
    flat = slopes(h, kind) < least
    return flat.reshape(-1, h.shape[-1]).all(dim=0)


def activation_stats(
    outputs: dict[str, Tensor], limit: float = 0.97
) -> list[dict]:
    """Mean, standard deviation and saturation of recorded outputs.

    Args:
        outputs: from :func:`record`.
        limit: an entry is saturated if its size is above this; of use for
            tanh layers.

    Returns:
        One dict for each layer: name, mean, std, saturated (share), and
        grad_std if a backward pass has been run (else None).
    """
    return [
        {
            "name": name,
            "mean": out.mean().item(),
            "std": out.std(correction=0).item(),
            "saturated": saturated(out, limit),
            "grad_std": None
            if not out.is_leaf and not out.retains_grad or out.grad is None
            else out.grad.std(correction=0).item(),
        }
        for name, out in outputs.items()
    ]


def gradient_stats(model) -> list[dict]:
    """Size of every weight matrix and of its gradient, after a backward.

    Returns:
        One dict for each parameter of two or more axes that has a gradient:
        name, shape, std (of the data), grad_std, ratio = grad_std / std.

    Raises:
        ValueError: no gradient anywhere: backward has not been called.
    """
    rows = []
    for name, p in model.named_parameters():
        if p.grad is None or p.dim() < 2:
            continue
        data, grad = p.detach().std().item(), p.grad.std().item()
        rows.append(
            {
                "name": name,
                "shape": tuple(p.shape),
                "std": data,
                "grad_std": grad,
                "ratio": grad / data if data else math.inf,
            }
        )
    if not rows:
        raise ValueError(
            "no weight matrix has a gradient: call loss.backward() first"
        )
    return rows


class Watch:
    """An optimizer that notes how far each of its steps moved each weight.

    ``ratio = std(update) / std(weight)`` for every parameter of two or
    more axes. It stands in for the optimizer in any training loop. The
    weights before a step are clone()d: a detached tensor alone would share
    their memory and always equal the weights after it.

    Args:
        optimizer: the optimizer that does the work.
        model: whose weights to watch.
        every: measure only one step in so many.

    Attributes:
        ratios: name -> list of ratios, one for each measured step.
        steps: the measured steps, counted from 0.
        rates: the learning rate that the first group really had then.

    Raises:
        ValueError: every below 1.

    >>> from zerohero.optim import SGD
    >>> layer = torch.nn.Linear(3, 2, bias=False)
    >>> watch = Watch(SGD(layer.parameters(), lr=0.1), layer)
    >>> layer(torch.ones(4, 3)).square().sum().backward()
    >>> watch.step()
    >>> list(watch.ratios), len(watch.ratios["weight"])
    (['weight'], 1)
    """

    def __init__(self, optimizer, model, every: int = 1):
        if every < 1:
            raise ValueError(f"every={every} must be 1 or more")
        self.optimizer, self.every, self.count = optimizer, every, 0
        self.weights = {
            n: p for n, p in model.named_parameters() if p.dim() >= 2
        }
        self.ratios: dict[str, list[float]] = {n: [] for n in self.weights}
        self.steps: list[int] = []
        self.rates: list[float] = []

    @property
    def param_groups(self) -> list[dict]:
        """The groups of the optimizer inside, learning rates and all."""
        return self.optimizer.param_groups

    def zero_grad(self, *args, **kwargs) -> None:
        """Forget the gradients, as the optimizer does."""
        self.optimizer.zero_grad(*args, **kwargs)

    def step(self) -> None:
        """Let the optimizer take its step, and measure it."""
        measured = self.count % self.every == 0
        if measured:
            before = {
                n: p.detach().clone() for n, p in self.weights.items()
            }
            self.steps.append(self.count)
            self.rates.append(self.param_groups[0]["lr"])
        self.optimizer.step()
        self.count += 1
        if measured:
            for name, p in self.weights.items():
                update = p.detach() - before[name]
                self.ratios[name].append(update_ratio(update, before[name]))


def update_ratio(update: Tensor, data: Tensor) -> float:
    """``std(update) / std(data)``: how far a step moves a weight, relatively.

    A rule of thumb for a healthy run is 1e-3. Infinite if all of ``data``
    is one number.

    >>> round(update_ratio(torch.tensor([0.1, -0.1]), torch.ones(2)), 2)
    inf
    >>> data = torch.tensor([1.0, -1.0])
    >>> round(update_ratio(data * 0.001, data), 6)
    0.001
    """
    if update.shape != data.shape or data.numel() < 2:
        raise ValueError(
            f"update {tuple(update.shape)} and data {tuple(data.shape)} "
            "must have one shape, with two numbers or more"
        )
    spread = data.std().item()
    return update.std().item() / spread if spread else math.inf


def layer_rms(
    rms: float, gain: float, fn: Callable[[Tensor], Tensor] = torch.tanh
) -> float:
    """Typical size of a layer's output, given that of its input.

    For weights N(0, gain**2 / fan_in) and a wide layer the sum in front of
    ``fn`` is N(0, (gain * rms)**2), so the output has the root mean square
    ``sqrt(E[fn(gain * rms * z)**2])``, z standard normal.

    >>> round(layer_rms(1.0, 2**0.5, torch.relu), 4)  # relu halves, 2 mends
    1.0
    """
    if rms < 0 or gain < 0:
        raise ValueError(f"rms={rms} and gain={gain} must not be negative")
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2)
    square = fn(gain * rms * z) ** 2
    return ((weight * square).sum() / weight.sum()).sqrt().item()


def fixed_point(gain: float) -> float:
    """The size that a deep stack of tanh layers settles at.

    The ``rms`` with ``layer_rms(rms, gain) == rms``: 0 for a gain up to 1
    (the signal dies out), above it the only positive solution.

    >>> fixed_point(1.0)
    0.0
    >>> 0.6 < fixed_point(5 / 3) < 0.7
    True
    """
    if gain < 0:
        raise ValueError(f"gain={gain} must not be negative")
    if gain <= 1:
        return 0.0
    low, high = 0.0, 1.0  # tanh keeps the size below 1
    for _ in range(50):
        middle = (low + high) / 2
        grows = layer_rms(middle, gain) > middle
        low, high = (middle, high) if grows else (low, middle)
    return (low + high) / 2


def _check_filled(name: str, h: Tensor) -> None:
    if h.numel() == 0 or h.dim() == 0:
        raise ValueError(
            f"{name} has shape {tuple(h.shape)}: give the outputs of a "
            "layer for at least one example, (..., H)"
        )
