"""A scalar autograd engine, a check for any gradient, and a tiny network.

Chapter: book/gradients.md. A `Value` is one number that remembers which
numbers it was made from and how strongly each of them moves it (its slope).
`backward` multiplies slopes along every path to the output and adds up paths.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class Value:
    """One number of a computation, with the way it was made.

    `parents` are the values it was computed from, `slopes` the local
    derivatives: `slopes[i]` says how much this value moves when `parents[i]`
    moves by one. `grad` is filled by `backward` of a later value.

    Overflow gives inf as in torch; dividing by zero raises Python's
    ZeroDivisionError; data that is no number raises ValueError.

    >>> w, x, b = Value(3.0), Value(2.0), Value(-4.0)
    >>> loss = (w * x + b - 5.0) ** 2
    >>> loss.backward()
    >>> loss.data, w.grad, x.grad, b.grad
    (9.0, -12.0, -18.0, -6.0)

    After micrograd, https://github.com/karpathy/micrograd.
    """

    __slots__ = ("data", "grad", "parents", "slopes", "op", "label")

    def __init__(self, data, parents=(), slopes=(), op="", label=""):
        try:
            self.data = float(data)
        except (TypeError, ValueError):
            raise ValueError(
                f"Value holds one number, got {data!r}; wrap each number "
                "of a list in a Value of its own"
            ) from None
        if len(parents) != len(slopes):
            raise ValueError(
                f"{len(parents)} parents but {len(slopes)} slopes; "
                "give one slope for each parent"
            )
        self.grad = 0.0
        self.parents, self.slopes = tuple(parents), tuple(slopes)
        self.op, self.label = op, label

    def __repr__(self) -> str:
        return f"Value(data={self.data:g}, grad={self.grad:g})"

    def __add__(self, other):
        other = _value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0), "+")

    def __sub__(self, other):
        other = _value(other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0), "-")

    def __mul__(self, other):
        other = _value(other)
        slopes = (other.data, self.data)
        return Value(self.data * other.data, (self, other), slopes, "*")

    def __truediv__(self, other):
        other = _value(other)
        out = self.data / other.data
        slopes = (1.0 / other.data, -out / other.data)
        return Value(out, (self, other), slopes, "/")

    def __pow__(self, other):
        """x ** n: n may be a number or a Value (then it gets a gradient).

        A negative x with a fractional n has no real value: ValueError.
        """
        x, n = self.data, _value(other).data
        out = _power(x, n)
        if n == 0:
            slope = 0.0
        elif x == 0 and n < 1:
            slope = math.inf                # the square root is vertical at 0
        else:
            slope = n * _power(x, n - 1)
        if not isinstance(other, Value):
            return Value(out, (self,), (slope,), f"**{n:g}")
        if x > 0:
            slope_n = out * math.log(x)
        else:
            slope_n = 0.0 if x == 0 else math.nan
        return Value(out, (self, other), (slope, slope_n), "**")

    def __neg__(self):
        return Value(-self.data, (self,), (-1.0,), "neg")

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return _value(other) - self

    def __rtruediv__(self, other):
        return _value(other) / self

    def __rpow__(self, other):
        return _value(other) ** self

    def exp(self):
        """e to the power of this value; its slope is itself."""
        try:
            out = math.exp(self.data)
        except OverflowError:
            out = math.inf
        return Value(out, (self,), (out,), "exp")

    def log(self):
        """Natural logarithm, slope 1/x; ValueError unless x > 0."""
        if self.data <= 0:
            raise ValueError(
                f"log({self.data:g}): the logarithm needs a number above 0; "
                "add a small number first, or work with logits"
            )
        return Value(math.log(self.data), (self,), (1 / self.data,), "log")

    def tanh(self):
        """Hyperbolic tangent t, slope 1 - t**2; safe for any size of x."""
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,), "tanh")

    def sigmoid(self):
        """s = 1 / (1 + exp(-x)), slope s (1 - s); safe for any size of x."""
        small = math.exp(-abs(self.data))
        s = (1.0 if self.data >= 0 else small) / (1 + small)
        return Value(s, (self,), (s * (1 - s),), "sigmoid")

    def relu(self):
        """max(x, 0), slope 1 above 0 and else 0 (as in torch)."""
        on = float(self.data > 0)
        return Value(self.data if on else 0.0, (self,), (on,), "relu")

    def maximum(self, other):
        """The larger of two; it gets the whole gradient, a tie is shared."""
        other = _value(other)
        a, b = self.data, other.data
        first = 0.5 if a == b else float(a > b)
        return Value(max(a, b), (self, other), (first, 1 - first), "max")

    def order(self) -> list["Value"]:
        """All values this one depends on and itself, parents always first.

        A loop with a stack of its own: graphs may be longer than Python's
        limit on recursion.
        """
        done, seen, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                done.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((p, False) for p in reversed(node.parents))
        return done

    def backward(self) -> None:
        """Add d(self)/d(leaf) to `grad` of every leaf below.

        Leaves (values without parents) accumulate, as in torch: set their
        `grad` to 0 before the next backward, or two gradients add up. Values
        in between start from 0 in each call, so a second call, or another
        output that shares part of the graph, never counts old gradients
        twice.
        """
        order = self.order()
        for node in order:
            if node.parents:
                node.grad = 0.0
        self.grad += 1.0
        for node in reversed(order):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad


def draw(root: Value, *, grads: bool = True, slopes: bool = True, ax=None):
    """Draw the graph below `root`: inputs on the left, `root` on the right.

    Each box shows label and operation, the data and (if `grads`) the
    gradient; each arrow (if `slopes`) its local slope. For graphs of up to
    about 20 values. Returns the matplotlib Axes.
    """
    from zerohero import drawings

    order = root.order()
    depth = {root: 0}                           # steps left to the output
    for node in reversed(order):
        for parent in node.parents:
            depth[parent] = max(depth.get(parent, 0), depth[node] + 1)
    row, columns, leaves = {}, {}, 0
    for node in order:
        rows = [row[parent] for parent in node.parents]
        row[node] = sum(rows) / len(rows) if rows else leaves
        leaves += not rows
        columns.setdefault(depth[node], []).append(node)
    for column in columns.values():             # no two boxes on one place
        column.sort(key=row.get)
        for upper, lower in zip(column, column[1:], strict=False):
            row[lower] = max(row[lower], row[upper] + 1)
    wide, high, gap = 2.6, 1.8 if grads else 1.3, 4.0 if slopes else 3.4
    last = max(depth.values())
    if ax is None:
        size = gap * last + wide + 0.2, (max(row.values()) + 1.5) * high * 1.3
        ax = drawings.canvas(*size)
    place = {
        n: (gap * (last - depth[n]) + 0.1, (row[n] + 0.45) * high * 1.3)
        for n in order
    }
    for node in order:
        x, y = place[node]
        text = f"{node.label} ({node.op})" if node.op else node.label
        text += f"\n{node.data:.4g}"
        if grads:
            text += f"\ngrad {node.grad:.4g}"
        fill = drawings.FILLS[1] if node is root else None
        fill = fill if node.parents else drawings.FILLS[0]
        drawings.box(
            ax, x, y, wide, high, text.strip(), color=fill, size=11
        )
        used = []
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            x0, y0 = place[parent]
            x0, y0, y1 = x0 + wide, y0 + high / 2, y + high / 2
            twice, again = node.parents.count(parent) > 1, parent in used
            far = depth[parent] - depth[node] > 1
            bend = 1.3 if far else 0.35 if twice else 0.0
            curve = 2 * bend / (x - x0) * (-1 if again else 1)
            drawings.arrow(ax, (x0, y0), (x, y1), curve=-curve)
            if slopes:                          # on the arrow's middle
                mx = (x0 + x) / 2 + curve / 2 * (y1 - y0)
                my = (y0 + y1) / 2 - curve / 2 * (x - x0)
                drawings.note(
                    ax, mx, my + (0.35 if again else -0.35), f"{slope:.4g}",
                    size=10, ha="center",
                )
            used.append(parent)
    return ax


def _value(x) -> Value:
    return x if isinstance(x, Value) else Value(x)


def _power(x: float, n: float) -> float:
    if x < 0 and n != int(n):
        raise ValueError(
            f"({x:g}) ** {n:g} is not a real number: use a base of 0 or "
            "more, or a whole exponent"
        )
    try:
        return x**n
    except OverflowError:
        return -math.inf if x < 0 and n % 2 == 1 else math.inf


def numerical_gradient(f: Callable, *inputs, h: float = 1e-5) -> tuple:
    """Slope of f by each input, from nudging it both ways by about h.

    (f(x + h) - f(x - h)) / 2h, with h scaled up for inputs above 1. Inputs
    are numbers (then each slope is a float) or floating tensors of any shape
    (then each is a float64 tensor of that shape, f is called with float64
    tensors, and must return one number). Costs two calls of f per number:
    a tool for checking, not for training. ValueError for other inputs.

    >>> slopes = numerical_gradient(lambda a, b: a * b, 2.0, 5.0)
    >>> [round(slope, 6) for slope in slopes]
    [5.0, 2.0]
    """
    xs = _inputs(inputs, h)
    result = []
    for x in xs:
        flat, slopes = x.view(-1), []
        for i, old in enumerate(flat.tolist()):
            step = h * max(1.0, abs(old))
            flat[i] = old + step
            above = _number(f(*_like(inputs, xs)))
            flat[i] = old - step
            below = _number(f(*_like(inputs, xs)))
            flat[i] = old
            slopes.append((above - below) / (2 * step))
        result.append(torch.tensor(slopes, dtype=x.dtype).view_as(x))
    return tuple(_like(inputs, result))


def gradcheck(
    f: Callable, *inputs, grads=None, h=1e-5, rtol=1e-4, atol=1e-6
) -> float:
    """Compare a gradient with nudging; return the largest difference.

    Inputs as for `numerical_gradient`. Without `grads` the gradient under
    test is the one of backward: f is called with `Value`s when the inputs
    are numbers, with tensors that require grad when they are tensors. With
    `grads` (one per input) it is yours. A difference above
    ``atol + rtol * |slope|`` raises AssertionError with the worst place. Keep
    away from kinks (relu at 0): nudging looks at both sides of them.

    >>> gradcheck(lambda a, b: (a * b).tanh(), 0.3, 0.5) < 1e-8
    True
    """
    numbers = not any(isinstance(x, Tensor) for x in inputs)
    g = f
    if numbers and grads is None:
        def g(*xs):
            return f(*(Value(x) for x in xs))
    expected = numerical_gradient(g, *inputs, h=h)
    if grads is None:
        grads = (_value_grads if numbers else _tensor_grads)(f, inputs)
    if len(grads) != len(inputs):
        raise ValueError(
            f"{len(inputs)} inputs but {len(grads)} gradients; "
            "give one gradient for each input"
        )
    worst = 0.0
    for i, (got, want) in enumerate(zip(grads, expected, strict=True)):
        got = torch.as_tensor(got, dtype=torch.float64).detach()
        want = torch.as_tensor(want, dtype=torch.float64)
        if got.shape != want.shape:
            raise ValueError(
                f"input {i} has shape {tuple(want.shape)}, its gradient "
                f"{tuple(got.shape)}; the two must be equal"
            )
        gap = (got - want).abs().reshape(-1)
        excess = gap - (atol + rtol * want.abs().reshape(-1))
        bad = ~(excess <= 0)                            # nan is bad as well
        if bad.any():
            k = int(excess.nan_to_num(nan=math.inf).argmax())
            raise AssertionError(
                f"input {i}, element {k}: the gradient says "
                f"{got.reshape(-1)[k]:.6g}, nudging says "
                f"{want.reshape(-1)[k]:.6g}"
            )
        worst = max(worst, *gap.tolist(), 0.0)
    return worst


def _inputs(inputs, h) -> list[Tensor]:
    if not inputs or not h > 0:
        raise ValueError(
            f"need at least one input and a nudge h above 0, got "
            f"{len(inputs)} inputs and h={h}"
        )
    tensors = [isinstance(x, Tensor) for x in inputs]
    if any(tensors) and not all(
        isinstance(x, Tensor) and x.is_floating_point() for x in inputs
    ):
        raise ValueError(
            "inputs must be all numbers or all floating tensors; hide other "
            "arguments in the function: lambda x: f(x, targets)"
        )
    if not all(isinstance(x, int | float | Tensor) for x in inputs):
        raise ValueError(f"inputs must be numbers or tensors, got {inputs!r}")
    return [
        torch.as_tensor(x, dtype=torch.float64).detach().clone(
            memory_format=torch.contiguous_format
        )
        for x in inputs
    ]


def _like(inputs, xs) -> list:
    """Copies of the tensors xs, as plain floats where the inputs were."""
    return [
        x.clone() if isinstance(given, Tensor) else x.item()
        for given, x in zip(inputs, xs, strict=True)
    ]


def _number(out) -> float:
    if isinstance(out, Tensor) and out.numel() != 1:
        raise ValueError(
            f"f must return one number, got shape {tuple(out.shape)}; "
            "reduce it first, for example (f(x) * weights).sum()"
        )
    if isinstance(out, Tensor):
        return out.item()
    return float(out.data if isinstance(out, Value) else out)


def _value_grads(f, inputs) -> list[float]:
    leaves = [Value(x) for x in inputs]
    _value(f(*leaves)).backward()
    return [leaf.grad for leaf in leaves]


def _tensor_grads(f, inputs) -> list[Tensor]:
    xs = [x.detach().double().requires_grad_() for x in inputs]
    out = f(*xs)
    if not out.requires_grad:               # cut off: backward finds nothing
        return [torch.zeros_like(x) for x in xs]
    return list(torch.autograd.grad(out.sum(), xs, materialize_grads=True))


class Neuron:
    """act(w . x + b) with n_in weights: n_in numbers in, one Value out."""

    def __init__(self, n_in: int, *, act: bool = True, generator=None):
        draw = torch.empty(n_in).uniform_(-1, 1, generator=generator)
        self.weights = [Value(w) for w in draw.tolist()]
        self.bias = Value(0.0)
        self.act = act

    def __call__(self, xs) -> Value:
        if len(xs) != len(self.weights):
            raise ValueError(
                f"{len(xs)} inputs for a neuron with {len(self.weights)} "
                "weights; give one input for each weight"
            )
        pairs = zip(self.weights, xs, strict=True)
        total = sum((w * x for w, x in pairs), self.bias)
        return total.tanh() if self.act else total

    def parameters(self) -> list[Value]:
        return [*self.weights, self.bias]


class Layer:
    """n_out neurons side by side, all reading the same n_in numbers."""

    def __init__(self, n_in: int, n_out: int, *, act=True, generator=None):
        self.neurons = [
            Neuron(n_in, act=act, generator=generator) for _ in range(n_out)
        ]

    def __call__(self, xs) -> list[Value]:
        return [neuron(xs) for neuron in self.neurons]

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP:
    """Layers in a row, sizes[0] inputs to sizes[-1] outputs.

    tanh after every layer but the last. Returns a list of Values, or the
    Value itself where there is a single output.

    >>> len(MLP([3, 4, 4, 1]).parameters())
    41
    """

    def __init__(self, sizes: list[int], *, generator=None):
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(
                f"sizes={sizes!r}: need at least an input and an output "
                "size, all of them 1 or more"
            )
        last = len(sizes) - 2
        self.layers = [
            Layer(n_in, n_out, act=i < last, generator=generator)
            for i, (n_in, n_out) in enumerate(
                zip(sizes, sizes[1:], strict=False)
            )
        ]

    def __call__(self, xs):
        for layer in self.layers:
            xs = layer(xs)
        return xs[0] if len(xs) == 1 else xs

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]

    def zero_grad(self) -> None:
        """Set every parameter's gradient to 0: the start of each step."""
        for p in self.parameters():
            p.grad = 0.0
