"""Optimizers and learning-rate schedules: twins of ``torch.optim``.

Arguments, defaults, update rules and the names in the state follow torch,
so a state dict of ``torch.optim`` loads here and the other way round. Left
out: ``foreach``, ``capturable``, ``differentiable``, sparse gradients.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from zerohero.train import number_format


# -- what all optimizers share ---------------------------------------------
class Optimizer:
    """Parameter groups, state and the step that subclasses fill in.

    params: tensors, or a list of dicts {"params": tensors, "lr": ..., ...},
    one for each group; what a group leaves out is taken from the defaults.
    ``param_groups`` holds the groups (change ``group["lr"]`` at any time),
    ``state`` what the optimizer remembers of each parameter.
    """

    #: arguments of the twin in torch that are known here, but not rebuilt
    not_rebuilt: tuple[str, ...] = ("foreach", "differentiable", "fused")

    def __init__(self, params: Iterable, defaults: dict,
                 left_out: dict | None = None):
        for name, value in (left_out or {}).items():
            if name not in self.not_rebuilt:
                raise TypeError(
                    f"{type(self).__name__} has no argument {name!r}"
                )
            if value:  # to say that it is off is all right
                raise NotImplementedError(
                    f"{type(self).__name__}: {name}={value!r} is not rebuilt "
                    f"here, use torch.optim.{type(self).__name__}"
                )
        self.defaults = defaults
        self.param_groups: list[dict] = []
        self.state: dict[Tensor, dict] = defaultdict(dict)
        if isinstance(params, Tensor):
            raise TypeError("params is one tensor: give a list of tensors")
        params = list(params)
        if not params:
            raise ValueError(
                "no parameters: was model.parameters() used up, or are the "
                "layers in a plain list instead of a ModuleList?"
            )
        if not isinstance(params[0], dict):
            params = [{"params": params}]
        for group in params:
            self.add_param_group(group)

    def add_param_group(self, group: dict):
        """Add {"params": tensors, options...} as one more group."""
        params = group["params"]
        if isinstance(params, set):
            raise TypeError("a set has no order: give a list of tensors")
        params = [params] if isinstance(params, Tensor) else list(params)
        taken = {p for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"parameters must be tensors, got {type(p).__name__} "
                    "(named_parameters() gives pairs, parameters() tensors)"
                )
            if not p.is_leaf:
                raise ValueError(
                    f"a tensor {tuple(p.shape)} is the result of a "
                    "computation, not a leaf: it cannot be optimized"
                )
            if p in taken:
                raise ValueError(
                    f"a parameter {tuple(p.shape)} comes twice"
                )
            taken.add(p)
        group = {**self.defaults, **group, "params": params}
        self._check(group)
        self.param_groups.append(group)

    def _check(self, group: dict):
        for name in ("lr", "weight_decay", "momentum", "eps"):
            if not group.get(name, 0) >= 0:  # also nan
                raise ValueError(f"{name} must be >= 0, not {group[name]}")
        for beta in group.get("betas", ()):
            if not 0 <= beta < 1:
                raise ValueError(f"betas lie in [0, 1), not {beta}")

    def zero_grad(self, set_to_none: bool = True):
        """Forget all gradients (or set them to zero)."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = torch.zeros_like(p.grad)

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Move every parameter that has a gradient; returns closure()."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict):
        """One step for the parameters of a group that have a gradient."""
        raise NotImplementedError

    def state_dict(self) -> dict:
        """All that is needed to go on exactly, parameters as numbers."""
        params = [p for g in self.param_groups for p in g["params"]]
        number = {p: i for i, p in enumerate(params)}
        return {
            "state": {number[p]: dict(s) for p, s in self.state.items()},
            "param_groups": [
                {**g, "params": [number[p] for p in g["params"]]}
                for g in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: dict):
        """Take up the state of another optimizer with the same groups."""
        groups = state_dict["param_groups"]
        ours = [len(g["params"]) for g in self.param_groups]
        theirs = [len(g["params"]) for g in groups]
        if ours != theirs:
            raise ValueError(
                f"parameters in each group: this optimizer {ours}, the state "
                f"dict {theirs}"
            )
        params = [p for g in self.param_groups for p in g["params"]]
        numbers = [i for g in groups for i in g["params"]]
        self.state.clear()
        for p, i in zip(params, numbers, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                if name == "step":
                    value = torch.as_tensor(value, dtype=torch.float32)
                if isinstance(value, Tensor):
                    value = value.clone() if name == "step" else (
                        value.to(p, copy=True)
                    )
                self.state[p][name] = value
        for group, other in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in other.items() if k != "params"})


# -- the optimizers --------------------------------------------------------
class SGD(Optimizer):
    """Stochastic gradient descent: ``p -= lr * grad``.

    With momentum a velocity is moved instead:
    ``v = momentum * v + (1 - dampening) * grad; p -= lr * v`` (the first
    v is the gradient itself), or with ``nesterov``
    ``p -= lr * (grad + momentum * v)``. ``weight_decay`` adds
    ``weight_decay * p`` to the gradient; ``maximize`` climbs: it turns the
    gradient's sign first.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

    >>> p = torch.tensor([1.0], requires_grad=True)
    >>> p.grad = torch.tensor([2.0])
    >>> SGD([p], lr=0.1).step()
    >>> p.detach()
    tensor([0.8000])
    """

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *,
                 maximize: bool = False, **left_out):
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize,
        }, left_out)

    def _check(self, group):
        super()._check(group)
        if group["nesterov"] and (
            group["momentum"] <= 0 or group["dampening"] != 0
        ):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")

    def _update(self, params, group):
        momentum = group["momentum"]
        for p in params:
            g = p.grad
            if group["maximize"]:
                g = -g
            if group["weight_decay"]:
                g = g.add(p, alpha=group["weight_decay"])
            if momentum:
                state = self.state[p]
                v = state.get("momentum_buffer")
                if v is None:
                    v = state["momentum_buffer"] = g.clone()
                else:
                    v.mul_(momentum).add_(g, alpha=1 - group["dampening"])
                g = g.add(v, alpha=momentum) if group["nesterov"] else v
            p.add_(g, alpha=-group["lr"])


class Adam(Optimizer):
    """Steps of about ``lr`` for every number, whatever its gradient's size.

    ``m = b1 * m + (1 - b1) * grad`` and ``v = b2 * v + (1 - b2) * grad**2``
    start at zero, so they are divided by ``1 - b1**t`` and ``1 - b2**t`` at
    step t; then ``p -= lr * m / (sqrt(v) + eps)``. ``weight_decay`` adds
    ``weight_decay * p`` to the gradient (and is then rescaled like it).
    ``amsgrad`` divides by the largest v so far, so that steps cannot grow;
    ``maximize`` climbs. ``fused=True`` hands the same arithmetic to torch's
    own kernel, which reads memory once instead of eight times.
    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980

    >>> p = torch.tensor([1.0], requires_grad=True)
    >>> p.grad = torch.tensor([1e-3])  # the first step is lr all the same
    >>> Adam([p], lr=0.1).step()
    >>> p.detach()
    tensor([0.9000])
    """

    not_rebuilt = ("foreach", "differentiable", "capturable",
                   "decoupled_weight_decay")
    decoupled = False  # does weight decay bypass the gradient?
    kernel = staticmethod(torch._fused_adam_)

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0,
                 amsgrad: bool = False, *, maximize: bool = False,
                 fused: bool = False, **left_out):
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps,
            "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "fused": fused,
        }, left_out)

    def _update(self, params, group):
        lr, (b1, b2), eps = group["lr"], group["betas"], group["eps"]
        decay = group["weight_decay"]
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if "step" not in state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = torch.zeros_like(p)
            state["step"] += 1
        if group.get("fused"):
            self.kernel(
                params, [p.grad for p in params],
                [s["exp_avg"] for s in states],
                [s["exp_avg_sq"] for s in states],
                [s["max_exp_avg_sq"] for s in states if group["amsgrad"]],
                [s["step"].to(params[0].device) for s in states],
                lr=lr, beta1=b1, beta2=b2, weight_decay=decay, eps=eps,
                amsgrad=group["amsgrad"], maximize=group["maximize"],
            )
            return
        for p, state in zip(params, states, strict=True):
            g, t = p.grad, state["step"].item()
            m, v = state["exp_avg"], state["exp_avg_sq"]
            if group["maximize"]:
                g = -g
            if self.decoupled:
                p.mul_(1 - lr * decay)
            elif decay:
                g = g.add(p, alpha=decay)
            m.lerp_(g, 1 - b1)  # b1 * m + (1 - b1) * g
            v.mul_(b2).addcmul_(g, g, value=1 - b2)
            if group["amsgrad"]:
                v = state["max_exp_avg_sq"].copy_(
                    torch.maximum(state["max_exp_avg_sq"], v))
            size = (v.sqrt() / math.sqrt(1 - b2**t)).add_(eps)
            p.addcdiv_(m, size, value=-lr / (1 - b1**t))


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights directly.

    ``p *= 1 - lr * weight_decay`` before Adam's step, so the decay is not
    divided by the gradient's size.
    Source: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101
    """

    not_rebuilt = ("foreach", "differentiable", "capturable")
    decoupled = True
    kernel = staticmethod(torch._fused_adamw_)

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01,
                 amsgrad: bool = False, *, maximize: bool = False,
                 fused: bool = False, **left_out):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad,
                         maximize=maximize, fused=fused, **left_out)


class Muon(Optimizer):
    """Momentum whose step is made orthogonal: for the matrices inside.

    ``v = lerp(v, grad, 1 - momentum)`` (Nesterov: ``lerp(grad, v,
    momentum)``), then ``orthogonalize`` sets all its singular values to
    about 1, then ``p -= lr * scale * update`` after the decay
    ``p *= 1 - lr * weight_decay``. ``adjust_lr_fn``: "original" (None) has
    ``scale = sqrt(max(1, rows / columns))``, "match_rms_adamw"
    ``0.2 * sqrt(max(rows, columns))``.

    Only for matrices (a 3-D parameter counts as a stack of them); give
    embeddings, biases and gains to AdamW. Beyond torch: ``ns_dtype``, the
    number format of ``orthogonalize`` (torch: always bfloat16; None here:
    bfloat16 where it is fast, else float32), and matrices of one shape are
    made orthogonal together.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 weight_decay: float = 0.1, momentum: float = 0.95,
                 nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (
                     3.4445, -4.775, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5,
                 adjust_lr_fn: str | None = None, *,
                 ns_dtype: torch.dtype | None = None):
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum,
            "nesterov": nesterov, "ns_coefficients": ns_coefficients,
            "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            "ns_dtype": ns_dtype,
        })

    def _check(self, group):
        super()._check(group)
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                "adjust_lr_fn is None, 'original' or 'match_rms_adamw', not "
                f"{group['adjust_lr_fn']!r}"
            )
        for p in group["params"]:
            if p.ndim not in (2, 3):
                raise ValueError(
                    f"Muon is for matrices; a parameter {tuple(p.shape)} "
                    "belongs in AdamW"
                )
        if not 0 <= group["ns_steps"] < 100:
            raise ValueError(
                f"ns_steps must lie in 0..99 (5 are enough), not "
                f"{group['ns_steps']}"
            )

    def _update(self, params, group):
        lr, momentum = group["lr"], group["momentum"]
        stacks = defaultdict(list)  # matrices of one shape go together
        for p in params:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            v = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
            update = p.grad.lerp(v, momentum) if group["nesterov"] else v
            update = update.reshape(-1, *p.shape[-2:])
            stacks[update.shape, p.dtype, p.device].append((p, update))
        for ((_, rows, columns), *_), pairs in stacks.items():
            update = orthogonalize(
                torch.cat([update for _, update in pairs]),
                group["ns_steps"], group["ns_coefficients"], group["eps"],
                group["ns_dtype"],
            )
            if group["adjust_lr_fn"] == "match_rms_adamw":
                scale = 0.2 * math.sqrt(max(rows, columns))
            else:
                scale = math.sqrt(max(1, rows / columns))
            updates = update.chunk(len(pairs))
            for (p, _), update in zip(pairs, updates, strict=True):
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-lr * scale)


def orthogonalize(matrix: Tensor, steps: int = 5,
                  coefficients: tuple[float, float, float] = (
                      3.4445, -4.775, 2.0315),
                  eps: float = 1e-7,
                  dtype: torch.dtype | None = None) -> Tensor:
    """Push all singular values of a matrix toward 1 (to about 0.7 .. 1.2).

    Newton-Schulz: scale ``X`` to norm 1, then ``steps`` times
    ``X = a X + (b A + c A A) X`` with ``A = X X.T``, a polynomial that acts
    on each singular value alone: ``s -> a s + b s**3 + c s**5``.
    (..., rows, columns) -> the same, computed and returned in ``dtype``
    (None: the ``number_format()`` that is fast on this machine).
    Source: https://kellerjordan.github.io/posts/muon/

    >>> x = torch.diag(torch.tensor([3.0, 2.0]))
    >>> orthogonalize(x, dtype=torch.float32).round()
    tensor([[1., 0.],
            [0., 1.]])
    """
    a, b, c = coefficients
    rows, columns = matrix.shape[-2:]
    X = matrix.reshape(-1, rows, columns).to(dtype or number_format())
    X = X.mT if rows > columns else X  # keep X @ X.T the smaller product
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        A = X @ X.mT
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)  # b A + c A A
        X = torch.baddbmm(X, B, X, beta=a)  # a X + B X
    return (X.mT if rows > columns else X).reshape(matrix.shape)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float,
                    norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> Tensor:
    """Scale all gradients together so that their norm is at most max_norm.

    All gradients count as one long vector. Changes them in place, returns
    the norm from before. Raises ValueError for a norm that is not finite
    if ``error_if_nonfinite``.
    Source: Pascanu, Mikolov and Bengio 2013, https://arxiv.org/abs/1211.5063

    >>> p = torch.zeros(2, requires_grad=True)
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([p], max_norm=1.0)
    tensor(5.)
    >>> p.grad
    tensor([0.6000, 0.8000])
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norm_type = float(norm_type)  # also "inf"
    norms = torch._foreach_norm(grads, norm_type)
    total = torch.linalg.vector_norm(
        torch.stack([n.to(norms[0].device) for n in norms]), norm_type
    )
    if error_if_nonfinite and not total.isfinite():
        raise ValueError(
            f"the gradients' norm is {total.item()}: nothing to clip"
        )
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(factor.to(g.device))
    return total


# -- learning-rate schedules -----------------------------------------------
class LRScheduler:
    """Sets every group's "lr" when ``step()`` is called, after the
    optimizer's step; ``last_epoch`` counts the calls (steps, not epochs, if
    you call it every step).

    Subclasses give ``get_lr()``: one new rate for each group, mostly
    computed from the current one, so several schedules multiply.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"last_epoch={last_epoch} goes on with an old run, but "
                    f"group {i} has no 'initial_lr': load the optimizer's "
                    "state dict first, or leave last_epoch out"
                )
        self.base_lrs = [g["initial_lr"] for g in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._is_initial = True
        self.step()
        self._is_initial = False

    def _current(self) -> list[float]:
        return [g["lr"] for g in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """The new learning rate of each group."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The rates that the last step() has set."""
        return self._last_lr

    def step(self):
        """Go one step on and set the learning rates."""
        self.last_epoch += 1
        rates = self.get_lr()
        for g, lr in zip(self.optimizer.param_groups, rates, strict=True):
            g["lr"] = lr
        self._last_lr = self._current()

    def state_dict(self) -> dict:
        """All numbers (not the optimizer, not functions)."""
        return {k: v for k, v in self.__dict__.items()
                if k not in ("optimizer", "lr_lambdas")}

    def load_state_dict(self, state_dict: dict):
        """Go on where another schedule of this kind was."""
        numbers = {k: v for k, v in state_dict.items() if k != "lr_lambdas"}
        self.__dict__.update(numbers)


class LambdaLR(LRScheduler):
    """``lr = initial_lr * lr_lambda(step)`` (one function, or one a group).

    >>> opt = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = LambdaLR(opt, lambda step: 0.5**step)
    >>> for _ in range(3):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.125]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable | list,
                 last_epoch: int = -1):
        groups = len(optimizer.param_groups)
        if not isinstance(lr_lambda, (list, tuple)):
            lr_lambda = [lr_lambda] * groups
        if len(lr_lambda) != groups:
            raise ValueError(
                f"{len(lr_lambda)} functions for {groups} parameter groups"
            )
        self.lr_lambdas = list(lr_lambda)
        super().__init__(optimizer, last_epoch)

    def state_dict(self):
        """All numbers; None, as in torch, in the place of each function."""
        functions = {"lr_lambdas": [None] * len(self.lr_lambdas)}
        return super().state_dict() | functions

    def get_lr(self):
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [lr * f(self.last_epoch) for lr, f in pairs]


class MultiplicativeLR(LambdaLR):
    """``lr = lr * lr_lambda(step)``: the factor on the *current* rate."""

    def get_lr(self):
        if self._is_initial:
            return self._current()
        pairs = zip(self._current(), self.lr_lambdas, strict=True)
        return [lr * f(self.last_epoch) for lr, f in pairs]


class StepLR(LRScheduler):
    """``lr = lr * gamma`` every ``step_size`` steps: a staircase."""

    def __init__(self, optimizer: Optimizer, step_size: int,
                 gamma: float = 0.1, last_epoch: int = -1):
        if step_size < 1:
            raise ValueError(f"step_size must be 1 or more, not {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if due else lr for lr in self._current()]


class LinearLR(LRScheduler):
    """From ``start_factor`` to ``end_factor`` in a line: warm-up or decay.

    The factor reaches its end after ``total_iters`` steps and stays there.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3,
                 end_factor: float = 1.0, total_iters: int = 5,
                 last_epoch: int = -1):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                "start_factor lies in (0, 1] and end_factor in [0, 1], not "
                f"{start_factor} and {end_factor}"
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, step: int) -> float:
        done = step / self.total_iters
        return self.start_factor + done * (self.end_factor - self.start_factor)

    def get_lr(self):
        t = self.last_epoch
        if t == 0:
            return [lr * self.start_factor for lr in self._current()]
        if self._is_initial or t > self.total_iters:
            return self._current()
        ratio = self._factor(t) / self._factor(t - 1)
        return [lr * ratio for lr in self._current()]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to ``eta_min`` in T_max steps.

    ``lr = eta_min + (initial_lr - eta_min) (1 + cos(pi step / T_max)) / 2``;
    after T_max it climbs again.
    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983
    """

    def __init__(self, optimizer: Optimizer, T_max: int,
                 eta_min: float = 0.0, last_epoch: int = -1):
        if T_max < 1:
            raise ValueError(f"T_max must be 1 or more, not {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, step: int) -> float:
        return (1 + math.cos(math.pi * step / self.T_max)) / 2

    def get_lr(self):
        t, low = self.last_epoch, self.eta_min
        if self._is_initial:
            return self._current()
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:  # leaving the valley
            return [lr + (base - low) * self._height(t)
                    for lr, base in zip(self._current(), self.base_lrs,
                                        strict=True)]
        ratio = self._height(t) / self._height(t - 1)
        return [low + (lr - low) * ratio for lr in self._current()]
