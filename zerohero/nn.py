"""Layers: twins of ``torch.nn``, rebuilt from weight tensors and functions.

A *twin* has the name, the constructor arguments, the parameter and buffer
names, the weight shapes and the initial distribution of its namesake in
``torch.nn``, so state dicts travel in both directions. Beyond torch, a
layer that draws random numbers takes ``generator=``. Hooks, lazy layers,
quantization and shorthands (``double()``, ``cuda()``: say ``to``) are left
out.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import Parameter

from zerohero import functional as F

LoadResult = namedtuple("LoadResult", ["missing_keys", "unexpected_keys"])


class Module:
    """A thing with parameters, buffers and children, that can be called.

    Attributes sort themselves: a ``Parameter`` becomes a parameter, a
    ``Module`` a child, ``register_buffer`` makes a buffer; all else is plain.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = Parameter(torch.tensor([2.0]))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> layer = Scale()
    >>> [name for name, p in layer.named_parameters()]
    ['weight']
    >>> layer(torch.tensor([3.0])).tolist()
    [6.0]
    """

    def __init__(self):
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Tensor | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._not_saved: set[str] = set()  # names of buffers that stay here
        self.training = True

    # -- registration ------------------------------------------------------
    def __setattr__(self, name: str, value):
        if isinstance(value, torch.nn.Module):
            raise TypeError(
                f"{name}: a torch.nn.{type(value).__name__} inside a "
                "zerohero.nn module would hide its parameters; take "
                "zerohero.nn's twin, or build the whole model from torch.nn"
            )
        kinds = {"_parameters": Parameter, "_modules": Module}
        for table, kind in kinds.items():
            if isinstance(value, kind):
                if table not in self.__dict__:
                    raise AttributeError(
                        f"cannot assign {name!r} before "
                        f"{type(self).__name__}.__init__ has called "
                        "super().__init__()"
                    )
                _check_name(name)
                self._forget(name, keep=table)
                self.__dict__[table][name] = value
                return
        for table, kind in {**kinds, "_buffers": Tensor}.items():
            if name in self.__dict__.get(table, ()):
                if value is not None and not isinstance(value, kind):
                    raise TypeError(
                        f"{name} is registered in {table[1:]}: assign a "
                        f"{kind.__name__} or None, not {type(value).__name__}"
                    )
                self.__dict__[table][name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str):  # called only when lookup has failed
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, ()):
                return self.__dict__[table][name]
        raise AttributeError(
            f"{type(self).__name__} has no attribute {name!r}"
        )

    def __delattr__(self, name: str):
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                return
        object.__delattr__(self, name)

    def _forget(self, name: str, keep: str):
        """Remove a name from all places but one."""
        self.__dict__.pop(name, None)
        for table in {"_parameters", "_buffers", "_modules"} - {keep}:
            self.__dict__[table].pop(name, None)
        self._not_saved.discard(name)

    def _check_new(self, name: str, table: str):
        _check_name(name)
        if name not in self.__dict__[table] and hasattr(self, name):
            raise ValueError(
                f"{type(self).__name__} has an attribute {name!r} already"
            )

    def register_parameter(self, name: str, param: Parameter | None):
        """Add a parameter; None reserves the name (a layer without bias).

        Raises ValueError if something else has the name.
        """
        self._check_new(name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"parameter {name!r} is a {type(param).__name__}: wrap it in "
                "Parameter(...), or use register_buffer if it must not train"
            )
        self._parameters[name] = param

    def register_buffer(
        self, name: str, tensor: Tensor | None, persistent: bool = True
    ):
        """Add a tensor that moves with the module but does not train.

        A persistent buffer is also part of the state dict. Raises
        ValueError if something else has the name (``del`` it first).
        """
        self._check_new(name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"buffer {name!r} must be a Tensor or None, not "
                f"{type(tensor).__name__}"
            )
        self._buffers[name] = tensor
        if persistent:
            self._not_saved.discard(name)
        else:
            self._not_saved.add(name)

    # -- looking inside ----------------------------------------------------
    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, "Module"]]:
        """This module and all below it, each with its dotted name."""
        seen = set()

        def walk(module, prefix):
            if remove_duplicate and module in seen:
                return
            seen.add(module)
            yield prefix, module
            for name, child in module._modules.items():
                if child is not None:
                    yield from walk(child, _join(prefix, name))

        return walk(self, prefix)

    def modules(self) -> Iterator["Module"]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules directly inside this one, with their names."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator["Module"]:
        """The modules directly inside this one."""
        return (module for _, module in self.named_children())

    def _named_tensors(self, table, prefix, recurse, remove_duplicate):
        seen = set()
        owners = self.named_modules(prefix, remove_duplicate)
        for owner, module in owners if recurse else [(prefix, self)]:
            for name, tensor in module.__dict__[table].items():
                if tensor is None or (remove_duplicate and tensor in seen):
                    continue
                seen.add(tensor)
                yield _join(owner, name), tensor

    def named_parameters(
        self,
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; a shared one comes once."""
        return self._named_tensors(
            "_parameters", prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every parameter, a shared one once: what an optimizer wants."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self,
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Tensor]]:
        """Every buffer with its dotted name."""
        return self._named_tensors(
            "_buffers", prefix, recurse, remove_duplicate
        )

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    # -- saving, moving, switching -----------------------------------------
    def _state(self) -> dict[str, Tensor]:
        """Dotted name -> tensor, for all that a state dict holds."""
        state = {}
        for owner, m in self.named_modules(remove_duplicate=False):
            saved = {k: b for k, b in m._buffers.items()
                     if k not in m._not_saved}
            for name, tensor in {**m._parameters, **saved}.items():
                if tensor is not None:
                    state[_join(owner, name)] = tensor
        return state

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Dotted name -> tensor for parameters and persistent buffers.

        The tensors are detached but share memory with the module: clone
        them if you want a snapshot. ``prefix`` goes before every name.
        """
        return {prefix + k: t.detach() for k, t in self._state().items()}

    def load_state_dict(
        self, state_dict: dict[str, Tensor], strict: bool = True
    ) -> LoadResult:
        """Copy tensors into this module by name, in place; torch's fit too.

        Raises ValueError (and changes nothing) if a shape differs, or, with
        ``strict``, if names are missing or unexpected. Returns both lists.
        """
        own = self._state()
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        problems = []
        for name in [k for k in own if k in state_dict]:
            mine, new = tuple(own[name].shape), state_dict[name]
            new = tuple(new.shape) if isinstance(new, Tensor) else type(new)
            if mine != new:
                problems.append(
                    f"{name}: the module has {mine}, the state dict {new}"
                )
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        if problems:
            raise ValueError(
                f"this state dict does not fit {type(self).__name__}: "
                + "; ".join(problems)
            )
        with torch.no_grad():
            for name in own.keys() - set(missing):
                own[name].copy_(state_dict[name])
        return LoadResult(missing, unexpected)

    def to(self, *args, device=None, dtype=None) -> "Module":
        """Move to a device and/or convert the floating tensors to a dtype.

        Parameters stay the same objects (an optimizer keeps its hold);
        integer buffers keep their dtype. Returns the module itself.
        """
        for arg in args:
            if isinstance(arg, Tensor):  # to the kind of another tensor
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, torch.dtype):
                dtype = arg
            else:
                device = arg
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"a module cannot be made {dtype}: not a float")

        def move(t):
            return t.to(
                device=device, dtype=dtype if t.is_floating_point() else None
            )

        for module in self.modules():
            for p in module._parameters.values():
                if p is not None:
                    grad, p.grad = p.grad, None
                    p.data = move(p.data)
                    p.grad = None if grad is None else move(grad)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = move(b)
        return self

    def train(self, mode: bool = True) -> "Module":
        """Switch this module and all below to training (or evaluation)."""
        if not isinstance(mode, bool):
            raise ValueError(f"mode is True or False, not {mode!r:.40}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Switch to evaluation: no dropout, BatchNorm's running numbers."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True):
        """Forget the gradients of all parameters (or set them to zero)."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = torch.zeros_like(p.grad)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Let all parameters train, or with False freeze them.

        Running numbers of a BatchNorm are no parameters: they stand still
        in ``eval()`` only. Returns the module itself.

        >>> [p.requires_grad for p in Linear(2, 1).requires_grad_(False)
        ...  .parameters()]
        [False, False]
        """
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def apply(self, fn: Callable[["Module"], None]) -> "Module":
        """Call ``fn`` on all modules below and on this one, parents last.

        Returns the module itself.
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- calling and printing ----------------------------------------------
    def forward(self, *args, **kwargs):
        """What the module computes; every subclass writes its own."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a method `forward`"
        )

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def extra_repr(self) -> str:
        """The text between the parentheses when the module is printed."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({k}): {m!r}" for k, m in self._modules.items()]
        body = self.extra_repr()
        if lines:
            text = "\n".join([body] * bool(body) + lines)
            body = "\n  " + text.replace("\n", "\n  ") + "\n"
        return f"{type(self).__name__}({body})"


def _check_name(name: str):
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(
            f"a parameter, buffer or module name must be a non-empty string "
            f"without a dot, not {name!r}"
        )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _check_size(**sizes: int):
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} must be 0 or more, not {size}")


# -- containers ------------------------------------------------------------
class ModuleList(Module):
    """A list whose modules are registered: ``parameters()`` sees them.

    >>> layers = ModuleList([Linear(2, 3), Linear(3, 1)])
    >>> len(layers), sum(p.numel() for p in layers.parameters())
    (2, 13)
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or [])

    def append(self, module: Module):
        """Add a module at the end; returns the container."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__} holds zerohero.nn modules, not "
                f"{type(module).__module__}.{type(module).__name__}"
            )
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]):
        """Append several; returns the container."""
        for module in modules:
            self.append(module)
        return self

    def _key(self, i: int) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} in a container of {len(self)}")
        return list(self._modules)[i]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return type(self)(*self._arguments(list(self._modules)[i]))
        return self._modules[self._key(i)]

    def _arguments(self, keys):
        return ([self._modules[k] for k in keys],)

    def __setitem__(self, i: int, module: Module):
        setattr(self, self._key(i), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(ModuleList):
    """Modules in a row: the output of one is the input of the next.

    Takes the modules as arguments, or one dict name -> module.

    >>> model = Sequential(Linear(3, 4), Tanh(), Linear(4, 2))
    >>> model(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    >>> model[1]
    Tanh()
    """

    def __init__(self, *modules: Module | dict[str, Module]):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            for name, module in modules[0].items():
                setattr(self, name, module)
        else:
            self.extend(modules)

    def _arguments(self, keys):
        return ({k: self._modules[k] for k in keys},)

    def forward(self, x):
        """x goes through every module in order."""
        for module in self:
            x = module(x)
        return x


# -- layers with parameters ------------------------------------------------
class Linear(Module):
    """``y = x @ W.T + b`` on the last axis.

    x (..., in_features) -> (..., out_features); ``weight`` W lies
    (out_features, in_features). W and b start uniform between plus and
    minus ``1 / sqrt(in_features)``. Raises ValueError, with both shapes, if
    the last axis of x is not in_features.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    >>> layer = Linear(3, 2)
    >>> layer.weight.shape, layer(torch.ones(4, 3)).shape
    (torch.Size([2, 3]), torch.Size([4, 2]))
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device=None, dtype=None, *,
                 generator: torch.Generator | None = None):
        super().__init__()
        _check_size(in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = in_features**-0.5 if in_features else 0.0

        def draw(*shape):
            t = torch.empty(*shape, device=device, dtype=dtype)
            return Parameter(t.uniform_(-bound, bound, generator=generator))

        self.weight = draw(out_features, in_features)
        self.register_parameter("bias", draw(out_features) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, "
                f"out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class Embedding(Module):
    """A table with a row for every id: ``weight[idx]``.

    idx (...) of ids -> (..., embedding_dim); rows start as N(0, 1). The row
    ``padding_idx`` starts at zero and gets no gradient. ``max_norm``,
    ``scale_grad_by_freq`` and ``sparse`` are not rebuilt: ValueError.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html

    >>> Embedding(27, 2)(torch.tensor([[0, 5, 5]])).shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, num_embeddings: int, embedding_dim: int,
                 padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0,
                 scale_grad_by_freq: bool = False, sparse: bool = False,
                 device=None, dtype=None, *,
                 generator: torch.Generator | None = None):
        super().__init__()
        if max_norm is not None or scale_grad_by_freq or sparse:
            raise ValueError(
                "max_norm, scale_grad_by_freq and sparse are not rebuilt "
                "here: use torch.nn.Embedding"
            )
        _check_size(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"padding_idx {padding_idx} is not one of the "
                    f"{num_embeddings} rows"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        weight = torch.empty(num_embeddings, embedding_dim,
                             device=device, dtype=dtype)
        weight.normal_(generator=generator)
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.weight = Parameter(weight)

    def forward(self, idx: Tensor) -> Tensor:
        """idx (...) of ids -> (..., embedding_dim)."""
        return F.embedding(idx, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        pad = self.padding_idx
        return (f"{self.num_embeddings}, {self.embedding_dim}"
                + (f", padding_idx={pad}" if pad is not None else ""))


class BatchNorm1d(Module):
    """Standardize every feature over the batch, then scale and shift.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with the batch's
    mean and biased variance in training, the running ones in evaluation
    (running numbers move by ``momentum`` toward the batch's mean and
    *unbiased* variance; ``momentum=None`` averages all batches equally).
    x (N, C) or (N, C, L) -> the same shape. Raises ValueError for another
    number of axes, another C, or one value per feature in training.
    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
    """

    def __init__(self, num_features: int, eps: float = 1e-5,
                 momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device=None, dtype=None,
                 *, bias: bool = True):
        super().__init__()
        _check_size(num_features=num_features)
        self.num_features, self.eps = num_features, eps
        self.momentum, self.affine = momentum, affine
        self.track_running_stats = track_running_stats
        kind = {"device": device, "dtype": dtype}
        _scale_and_shift(self, (num_features,), affine, bias, kind)
        buffers = {
            "running_mean": torch.zeros(num_features, **kind),
            "running_var": torch.ones(num_features, **kind),
            "num_batches_tracked": torch.tensor(0, device=device),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C) or (N, C, L) -> the same shape."""
        if x.ndim not in (2, 3):
            raise ValueError(
                "BatchNorm1d wants (N, C) or (N, C, L), got "
                f"{tuple(x.shape)}: {x.ndim} axes"
            )
        momentum = 0.0 if self.momentum is None else self.momentum
        update = self.training and self.track_running_stats
        if update and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        use_batch = self.training or self.running_mean is None
        running = (self.running_mean, self.running_var)
        if self.training and not update:  # neither read nor moved
            running = (None, None)
        return F.batch_norm(
            x, *running, self.weight, self.bias, use_batch, momentum, self.eps
        )

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, "
                f"momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")


class LayerNorm(Module):
    """Standardize every example over its last axes, then scale and shift.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with mean and
    biased variance over the axes ``normalized_shape`` (an int or several).
    x (..., normalized_shape) -> the same shape, training or not.
    Source: Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450

    >>> LayerNorm(2)(torch.tensor([[1.0, 3.0]])).detach().round().tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, normalized_shape: int | Iterable[int],
                 eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _scale_and_shift(self, self.normalized_shape, elementwise_affine,
                         bias, {"device": device, "dtype": dtype})

    def forward(self, x: Tensor) -> Tensor:
        """x (..., normalized_shape) -> the same shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias,
                            self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class RMSNorm(Module):
    """``y = x / sqrt(mean(x**2) + eps) * weight`` over the last axes.

    LayerNorm without the centering and the shift. ``eps=None`` takes the
    smallest step of the dtype.
    x (..., normalized_shape) -> the same shape.
    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, normalized_shape: int | Iterable[int],
                 eps: float | None = None, elementwise_affine: bool = True,
                 device=None, dtype=None):
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        weight = torch.ones(self.normalized_shape, device=device, dtype=dtype)
        self.register_parameter(
            "weight", Parameter(weight) if elementwise_affine else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (..., normalized_shape) -> the same shape."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}")


def _shape(shape: int | Iterable[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _scale_and_shift(module, shape, affine, bias, kind):
    """Register weight (ones) and bias (zeros), or None for each."""
    ones, zeros = torch.ones(shape, **kind), torch.zeros(shape, **kind)
    module.register_parameter("weight", Parameter(ones) if affine else None)
    module.register_parameter(
        "bias", Parameter(zeros) if affine and bias else None
    )


# -- layers without parameters ---------------------------------------------
class Dropout(Module):
    """In training zero each number with probability p, scale the rest.

    The survivors are divided by 1 - p, so the mean stays; in evaluation
    nothing happens. x of any shape -> the same shape.
    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *,
                 generator: torch.Generator | None = None):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability: 0 to 1, not {p}")
        self.p, self.inplace, self.generator = p, inplace, generator

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return F.dropout(x, self.p, self.training, self.inplace,
                         generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Tanh(Module):
    """``tanh(x)``, number by number: between -1 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return torch.tanh(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``, number by number: between 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return torch.sigmoid(x)


class ReLU(Module):
    """``max(0, x)``, number by number."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return x.relu_() if self.inplace else x.relu()

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class GELU(Module):
    """``x`` times the share of a standard normal below ``x``.

    ``approximate="tanh"`` is the formula of GPT-2.

    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(
                f"approximate is 'none' or 'tanh', not {approximate!r}"
            )
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``x * sigmoid(x)``, number by number."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return F.silu(x, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Flatten(Module):
    """Merge the axes start_dim to end_dim into one: (B, T, C) -> (B, T C)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T C) with the default axes."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Gives back what it gets; its arguments are ignored."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x -> x."""
        return x
