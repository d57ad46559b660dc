"""The wall: every rebuilt layer, optimizer and schedule beside torch's.

One list of cases serves the tests, which assert that the two agree, and
the chapter on ``torch.nn``, whose table is made from the same runs.
"""

import math
from collections.abc import Callable, Iterable
from html import escape

import torch
from torch import Tensor

from zerohero import nn, optim

Pair = tuple[str, Tensor, Tensor]  # what, ours, torch's

#: (name, constructor arguments, input shape); Embedding is fed with ids.
LAYERS: list[tuple[str, dict, tuple[int, ...]]] = [
    ("Linear", {"in_features": 5, "out_features": 3}, (4, 5)),
    ("Linear", {"in_features": 5, "out_features": 3, "bias": False},
     (2, 4, 5)),
    ("Embedding", {"num_embeddings": 7, "embedding_dim": 3}, (4, 6)),
    ("Embedding", {"num_embeddings": 7, "embedding_dim": 3,
                   "padding_idx": -5}, (4, 6)),
    ("BatchNorm1d", {"num_features": 4}, (8, 4)),
    ("BatchNorm1d", {"num_features": 4, "eps": 0.1}, (8, 4, 5)),
    ("BatchNorm1d", {"num_features": 4, "momentum": None}, (8, 4)),
    ("BatchNorm1d", {"num_features": 4, "momentum": 0.3, "affine": False},
     (8, 4)),
    ("BatchNorm1d", {"num_features": 4, "track_running_stats": False},
     (8, 4)),
    ("LayerNorm", {"normalized_shape": 6}, (4, 5, 6)),
    ("LayerNorm", {"normalized_shape": (5, 6), "eps": 0.1}, (4, 5, 6)),
    ("LayerNorm", {"normalized_shape": 6, "bias": False}, (4, 6)),
    ("LayerNorm", {"normalized_shape": 6, "elementwise_affine": False},
     (4, 6)),
    ("RMSNorm", {"normalized_shape": 6}, (4, 5, 6)),
    ("RMSNorm", {"normalized_shape": (5, 6), "eps": 0.1}, (4, 5, 6)),
    ("RMSNorm", {"normalized_shape": 6, "elementwise_affine": False},
     (4, 6)),
    ("Dropout", {"p": 0.3}, (50, 6)),
    ("Tanh", {}, (4, 6)),
    ("Sigmoid", {}, (4, 6)),
    ("ReLU", {}, (4, 6)),
    ("GELU", {}, (4, 6)),
    ("GELU", {"approximate": "tanh"}, (4, 6)),
    ("SiLU", {}, (4, 6)),
    ("Flatten", {}, (4, 5, 6)),
    ("Flatten", {"start_dim": 0, "end_dim": 1}, (4, 5, 6)),
    ("Identity", {}, (4, 6)),
]

#: (name, arguments) of optimizers.
OPTIMIZERS: list[tuple[str, dict]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.4}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "betas": (0.7, 0.95), "eps": 0.01,
              "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "betas": (0.7, 0.95), "eps": 0.01,
               "weight_decay": 0.5}),
    ("Muon", {"lr": 0.02}),
    ("Muon", {"lr": 0.02, "nesterov": False, "weight_decay": 0.5,
              "momentum": 0.8, "adjust_lr_fn": "match_rms_adamw"}),
]

#: (name, arguments) of learning-rate schedules.
SCHEDULES: list[tuple[str, dict]] = [
    ("LambdaLR", {"lr_lambda": lambda step: 0.9**step}),
    ("MultiplicativeLR", {"lr_lambda": lambda step: 1 - 0.02 * step}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("LinearLR", {"start_factor": 0.2, "total_iters": 7}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0,
                  "total_iters": 7}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
]


def layer_input(name: str, options: dict, shape: tuple[int, ...],
                generator: torch.Generator) -> Tensor:
    """A random input for a layer: normal numbers, ids for an Embedding."""
    if name == "Embedding":
        return torch.randint(options["num_embeddings"], shape,
                             generator=generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def layer_pairs(name: str, options: dict, inputs: Iterable[Tensor],
                dtype: torch.dtype = torch.float32,
                seed: int = 0) -> list[Pair]:
    """All that a layer and its twin answer to the same inputs.

    Both start from torch's state dict with random weights (zeros would hide
    mistakes) and take one training step on each of ``inputs``. Compared:
    output, gradient of the input and of every parameter, buffers, the same
    in evaluation, and the state after it has gone back into a new twin.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
        ours = getattr(nn, name)(**options).to(dtype)
        theirs = getattr(torch.nn, name)(**options).to(dtype)
        with torch.no_grad():
            for p in theirs.parameters():
                p.normal_()
        ours.load_state_dict(theirs.state_dict())
        pairs = []
        for step, x in enumerate(inputs):
            pairs += _answers(ours, theirs, x, seed + step)
            for module in (ours, theirs):
                for p in module.parameters():
                    p.data -= 0.1 * p.grad
        ours.eval(), theirs.eval()
        pairs += [("in evaluation: " + what, a, b)
                  for what, a, b in _answers(ours, theirs, inputs[0], seed)]
        back = getattr(torch.nn, name)(**options).to(dtype)
        back.load_state_dict(ours.state_dict())
        pairs += _named("state", back.state_dict(), theirs.state_dict())
        pairs += _named("state", ours.state_dict(), theirs.state_dict())
        return pairs


def _answers(ours, theirs, x: Tensor, seed: int) -> list[Pair]:
    """Forward and backward through both, with the same random numbers."""
    results = []
    for module in (ours, theirs):
        torch.manual_seed(seed)
        module.zero_grad()
        xi = x.clone().requires_grad_(x.is_floating_point())
        # times one, because a layer may work in place and a leaf may not
        out = module(xi * 1 if x.is_floating_point() else xi)
        pull = torch.randn(out.shape, dtype=out.dtype)
        if out.requires_grad:
            out.backward(pull)
        results.append({
            "output": out.detach(),
            "gradient of input": xi.grad,
            **{f"gradient of {k}": p.grad
               for k, p in module.named_parameters()},
            **{f"buffer {k}": b.clone() for k, b in module.named_buffers()},
        })
    return _named("", *results)


def _named(what: str, ours: dict, theirs: dict) -> list[Pair]:
    """Pairs of two dicts, which must have the same names in one order."""
    if list(ours) != list(theirs):
        raise AssertionError(f"ours has {list(ours)}, torch {list(theirs)}")
    return [(f"{what} {k}".strip(), ours[k], theirs[k]) for k in ours
            if not (ours[k] is None and theirs[k] is None)]


def optimizer_pairs(name: str, options: dict, steps: int = 50,
                    schedules: Iterable[tuple[str, dict]] = (),
                    dtype: torch.dtype = torch.float64,
                    seed: int = 0) -> list[Pair]:
    """Parameters and rates along the way of an optimizer and its twin.

    Two parameter groups (the second at a third of the rate) of three
    matrices follow the gradient of a small tanh network on the same random
    batches; one matrix gets no gradient in the first three steps.
    """
    g = torch.Generator().manual_seed(seed)
    start = [torch.randn(shape, generator=g, dtype=dtype)
             for shape in [(6, 4), (6, 6), (3, 6)]]
    batches = [torch.randn(8, 4, generator=g, dtype=dtype)
               for _ in range(steps)]
    extra = {"ns_dtype": torch.bfloat16} if name == "Muon" else {}
    runs = []
    for optimizers, schedulers, more in [
            (optim, optim, extra),
            (torch.optim, torch.optim.lr_scheduler, {})]:
        params = [p.clone().requires_grad_() for p in start]
        opt = getattr(optimizers, name)(
            [{"params": params[:2]},
             {"params": params[2:], "lr": options["lr"] / 3}],
            **options, **more)
        rates = [getattr(schedulers, s)(opt, **args) for s, args in schedules]
        seen = {}
        for step, x in enumerate(batches):
            a, b, c = params
            h = torch.tanh(x @ a.T)
            if step >= 3:
                h = torch.tanh(h @ b.T)
            loss = ((h @ c.T - x[:, :3].sin()) ** 2).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            for schedule in rates:
                schedule.step()
            for i, p in enumerate(params):
                seen[f"step {step}: parameter {i}"] = p.detach().clone()
            seen[f"step {step}: learning rates"] = torch.tensor(
                [group["lr"] for group in opt.param_groups])
        runs.append(seen)
    return _named("", *runs)


def table() -> "Table":
    """Compare everything once; a table of the relative differences.

    Layers are compared in float32, optimizers and schedules in float64
    (Muon in float32, since torch computes its update in bfloat16).
    """
    rows = []
    for name, options, shape in LAYERS:
        g = torch.Generator().manual_seed(1)
        inputs = [layer_input(name, options, shape, g) for _ in range(3)]
        pairs = layer_pairs(name, options, inputs)
        rows.append((f"nn.{name}", options, {
            "output": _worst(pairs, lambda k: k.endswith("output")),
            "gradients": _worst(pairs, lambda k: "gradient" in k),
            "buffers": _worst(pairs, lambda k: "buffer" in k),
            "state dict": _worst(pairs, lambda k: k.startswith("state")),
        }))
    for name, options in OPTIMIZERS:
        exact = torch.float64 if name != "Muon" else torch.float32
        pairs = optimizer_pairs(name, options, dtype=exact)
        rows.append((f"optim.{name}", options, {
            "50 steps": _worst(pairs, lambda k: "parameter" in k)}))
    for name, options in SCHEDULES:
        pairs = optimizer_pairs("SGD", {"lr": 0.05},
                                schedules=[(name, options)])
        rows.append((f"optim.{name}", options, {
            "50 steps": _worst(pairs, lambda k: "rates" in k)}))
    return Table(rows)


def _worst(pairs: list[Pair], wanted: Callable[[str], bool]) -> float | None:
    """Largest |ours - torch's| / max(1, |torch's|) of the pairs wanted."""
    gaps = [((a - b).abs() / b.abs().clamp(min=1)).max().item()
            for what, a, b in pairs if wanted(what)]
    return _largest(gaps) if gaps else None


def _largest(gaps: list[float]) -> float:
    """The largest number; nan if one is nan (Python's max may miss it)."""
    return torch.tensor(gaps, dtype=torch.float64).max().item()


class Table:
    """Rows (twin, arguments, differences) that print as text or as HTML."""

    columns = ("twin", "arguments", "output", "gradients", "buffers",
               "state dict", "50 steps")

    def __init__(self, rows: list[tuple[str, dict, dict]]):
        self.rows = rows

    @property
    def worst(self) -> float:
        """The largest difference in the table."""
        return _largest([gap for *_, gaps in self.rows
                         for gap in gaps.values() if gap is not None])

    def _cells(self) -> list[list[str]]:
        lines = []
        for name, options, gaps in self.rows:
            arguments = ", ".join(
                f"{k}=f" if callable(v) else f"{k}={v!r}"
                for k, v in options.items())
            lines.append([name, arguments] + [
                _magnitude(gaps.get(column)) for column in self.columns[2:]])
        return lines

    def __repr__(self) -> str:
        lines = [list(self.columns), *self._cells()]
        widths = [max(map(len, c)) for c in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True))
            .rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{c}</th>' for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in line) + "</tr>"
            for line in self._cells())
        return (f"<table><thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table>")


def _magnitude(gap: float | None) -> str:
    """A difference as text that survives another machine: = or < 1e-6."""
    if gap is None:
        return ""
    if gap == 0:
        return "="
    if not math.isfinite(gap):
        return str(gap)
    return f"< 1e{math.floor(math.log10(gap)) + 1}"
