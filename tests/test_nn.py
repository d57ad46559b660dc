"""Layers against torch's, by hand, and by law."""

import copy
import inspect
import io
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter
from torch.testing import assert_close

from zerohero import nn, parity

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def agree(pairs, dtype, **tolerance):
    for what, ours, theirs in pairs:
        assert_close(
            ours, theirs, equal_nan=True, **(tolerance or TOLERANCE[dtype]),
            msg=lambda text, what=what: f"{what}: {text}",
        )


# -- parity ----------------------------------------------------------------
def label(case):
    name, options, *_ = case
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", parity.LAYERS, ids=label)
def test_layer_is_torchs_over_several_steps(case, dtype):
    name, options, shape = case
    g = generator(1)
    inputs = [parity.layer_input(name, options, shape, g) for _ in range(4)]
    pairs = parity.layer_pairs(name, options, inputs, dtype)
    agree(pairs, dtype)
    kinds = {what.split()[0] for what, *_ in pairs}
    assert "output" in kinds and "in" in kinds


def test_what_is_compared():
    """Random weights, a step of training on each input, then evaluation."""
    x = parity.layer_input("BatchNorm1d", {}, (6, 2), generator(1))
    state = torch.get_rng_state()
    pairs = parity.layer_pairs("BatchNorm1d", {"num_features": 2}, [x, x])
    assert torch.equal(torch.get_rng_state(), state)
    answer = ["output", "gradient of input", "gradient of weight",
              "gradient of bias", "buffer running_mean",
              "buffer running_var", "buffer num_batches_tracked"]
    state = [f"state {name}" for name in (
        "weight", "bias", "running_mean", "running_var",
        "num_batches_tracked")]
    assert [what for what, *_ in pairs] == [
        *answer, *answer, *(f"in evaluation: {what}" for what in answer),
        *state, *state]
    n = len(answer)
    first, second, last = (dict((what.split(": ")[-1], theirs) for what, _,
                                theirs in pairs[i:i + n])
                           for i in (0, n, 2 * n))
    for what in ("output", "gradient of input"):
        for a, b in ((first, second), (second, last)):
            assert (a[what] - b[what]).abs().max() > 0.01, what
    spread = first["output"].std(0, correction=0)  # of random weights
    assert (spread - 1).abs().min() > 0.01 and spread[0] != spread[1]
    assert last["buffer num_batches_tracked"] == 2
    assert all(t.dtype != torch.float64 for _, t, _ in pairs)


def test_every_layer_is_in_the_table():
    inside = {name for name, *_ in parity.LAYERS}
    layers = {
        name for name, cls in vars(nn).items()
        if inspect.isclass(cls) and issubclass(cls, nn.Module)
    }
    assert layers - inside == {"Module", "ModuleList", "Sequential"}


@pytest.mark.parametrize("name", sorted({n for n, *_ in parity.LAYERS}))
def test_constructor_has_torchs_arguments_and_defaults(name):
    def arguments(cls):
        return {
            p.name: p.default
            for p in inspect.signature(cls).parameters.values()
            if not p.name.startswith("_") and p.kind != p.VAR_POSITIONAL
            and p.kind != p.VAR_KEYWORD
        }

    ours, theirs = arguments(getattr(nn, name)), arguments(
        getattr(torch.nn, name)
    )
    ours.pop("generator", None)
    if "bias" not in theirs and name == "BatchNorm1d":  # older torch
        ours.pop("bias")
    assert ours == theirs
    assert [k for k in ours if k != "bias"] == [
        k for k in theirs if k != "bias"
    ]


sizes = st.integers(0, 5)


@st.composite
def layer_cases(draw):
    """A layer and an input that fits it, or (one time in some) does not."""
    n, c, length = draw(sizes), draw(sizes), draw(sizes)
    wrong = draw(st.sampled_from([c] * 6 + [c + 1]))
    rank = draw(st.sampled_from([2, 2, 3, 3, 1, 4]))
    flag = draw(st.booleans())
    name = draw(st.sampled_from(
        ["Linear", "BatchNorm1d", "LayerNorm", "RMSNorm", "Embedding",
         "Flatten", "GELU", "SiLU"]))
    last = [n, length, n, wrong][4 - rank:]
    options = {
        "Linear": {"in_features": c, "out_features": length, "bias": flag},
        "BatchNorm1d": {
            "num_features": c, "affine": flag,
            "momentum": draw(st.sampled_from([None, 0.1, 0.5, 1.0])),
            "track_running_stats": draw(st.booleans()),
        },
        "LayerNorm": {
            "normalized_shape": draw(st.sampled_from([(c,), (length, c)])),
            "elementwise_affine": flag, "bias": draw(st.booleans()),
        },
        "RMSNorm": {
            "normalized_shape": draw(st.sampled_from([(c,), (length, c)])),
            "elementwise_affine": flag,
            "eps": draw(st.sampled_from([None, 1e-3])),
        },
        "Embedding": {
            "num_embeddings": c + 1, "embedding_dim": length,
            "padding_idx": draw(st.sampled_from([None, 0, -1])),
        },
        "Flatten": {"start_dim": draw(st.integers(-3, 2)),
                    "end_dim": draw(st.integers(-2, 3))},
        "GELU": {}, "SiLU": {},
    }[name]
    if name == "BatchNorm1d" and rank > 1:
        last = [n, wrong, length, n][:rank]
    g = generator(draw(st.integers(0, 99)))
    if name == "Embedding":
        # an id too many, now and then, is out of range
        inputs = [torch.randint(wrong + 1, last, generator=g)] * 2
    else:
        scale = draw(st.sampled_from([1.0, 1.0, 1e-4, 1e3]))
        inputs = [
            scale * torch.randn(last, generator=g, dtype=torch.float64)
            for _ in range(3)
        ]
    return name, options, inputs


@settings(max_examples=120, deadline=None)
@given(layer_cases())
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_any_shape_gives_torchs_result_or_an_error(case):
    name, options, inputs = case
    twin = getattr(torch.nn, name)(**options).double()
    try:
        with torch.no_grad():
            twin(inputs[0])
        if name == "Embedding" and (inputs[0] < 0).any():
            raise IndexError
        fits = True
    except (ValueError, RuntimeError, IndexError, AssertionError):
        fits = False
    if fits:
        agree(parity.layer_pairs(name, options, inputs, torch.float64),
              torch.float64, rtol=1e-6, atol=1e-8)
    elif (name, options.get("num_features")) != ("BatchNorm1d", 0):
        # (with no features at all torch fails, we give back nothing)
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            getattr(nn, name)(**options).to(torch.float64)(inputs[0])


EXTREMES = {
    "large": lambda x: 1e6 * x,
    "tiny": lambda x: 1e-20 * x,
    "constant": lambda x: torch.full_like(x, 3.0),
    "zero": torch.zeros_like,
    "infinite": lambda x: x.masked_fill(x > 1, math.inf),
    "nan": lambda x: x.masked_fill(x > 1, math.nan),
    "pm 40": lambda x: 40 * x.sign(),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_inputs(extreme, dtype):
    for name, options, shape in parity.LAYERS:
        if name == "Embedding" or name in ("Linear", "LayerNorm") and (
            extreme in ("large", "constant") and dtype == torch.float32
        ):
            continue  # sums of large numbers round differently
        if (extreme, name) == ("constant", "BatchNorm1d"):
            continue  # 0 / sqrt(eps): see the next test
        if extreme == "infinite" and name == "GELU":
            continue  # torch's float32 kernel makes nan of it
        x = EXTREMES[extreme](
            parity.layer_input(name, options, shape, generator(2))
        )
        rough = {} if dtype == torch.float64 else {
            "rtol": 1e-3, "atol": 5e-4}
        agree(parity.layer_pairs(name, options, [x], dtype), dtype, **rough)


@pytest.mark.parametrize("name", ["BatchNorm1d", "LayerNorm"])
def test_a_constant_batch_is_normalized_to_the_shift(name):
    for value in (0.0, 3.0, -1e4):
        layer = getattr(nn, name)(4)
        with torch.no_grad():
            layer.bias.fill_(0.25)
        x = torch.full((8, 4), value, requires_grad=True)
        out = layer(x)
        assert_close(out, torch.full((8, 4), 0.25), atol=2e-3, rtol=0)
        out.sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1)])
def test_batchnorm_refuses_a_batch_of_one_in_training_only(shape):
    layer = nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(torch.ones(shape))
    assert_close(layer.eval()(torch.ones(shape)), torch.ones(shape),
                 atol=1e-4, rtol=0)
    assert layer.train()(torch.randn(1, 4, 2)).shape == (1, 4, 2)


def test_batchnorm_by_hand():
    layer = nn.BatchNorm1d(1, eps=1e-12, momentum=0.5)
    out = layer(torch.tensor([[1.0], [3.0]]))
    assert_close(out, torch.tensor([[-1.0], [1.0]]))  # biased variance 1
    assert_close(layer.running_mean, torch.tensor([1.0]))  # (0 + 2) / 2
    assert_close(layer.running_var, torch.tensor([1.5]))  # (1 + 2) / 2
    assert layer.num_batches_tracked.item() == 1
    out = layer.eval()(torch.tensor([[2.5]]))
    assert_close(out, torch.tensor([[1.5 / 1.5**0.5]]))


def test_batchnorm_without_momentum_averages_all_batches():
    layer = nn.BatchNorm1d(2, momentum=None)
    batches = torch.randn(5, 8, 2, generator=generator())
    for xb in batches:
        layer(xb)
    assert_close(layer.running_mean, batches.mean((0, 1)))
    assert_close(layer.running_var, batches.var(1).mean(0))
    still = nn.BatchNorm1d(2, momentum=0.0)  # none at all
    still(batches[0])
    assert still.running_mean.tolist() == [0, 0]


def test_batchnorm_normalizes_over_batch_and_length():
    x = 3 + 2 * torch.randn(8, 4, 5, generator=generator())
    out = nn.BatchNorm1d(4)(x).detach()
    assert_close(out.mean((0, 2)), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(out.var((0, 2), correction=0), torch.ones(4), atol=1e-4,
                 rtol=0)
    with pytest.raises(ValueError, match=r"\(8, 4, 5\)"):
        nn.BatchNorm1d(5)(x)  # features last is Keras' order


def test_batchnorm_frozen_by_hand_like_torch():
    x = torch.randn(8, 3, generator=generator())
    ours, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    ours.track_running_stats = theirs.track_running_stats = False
    assert_close(ours(x), theirs(x))
    assert_close(ours.running_mean, theirs.running_mean)
    assert_close(ours.eval()(x), theirs.eval()(x))


def test_batchnorm_bias_false():
    layer = nn.BatchNorm1d(3, bias=False)
    assert [k for k, _ in layer.named_parameters()] == ["weight"]
    assert layer.bias is None


def test_layernorm_looks_at_one_example_only():
    layer = nn.LayerNorm(6)
    x = torch.randn(4, 6, generator=generator())
    assert_close(layer(x)[:1], layer(x[:1]))
    assert_close(layer(torch.tensor([[0.0, 2, 4, 4, 2, 0]])).detach(),
                 torch.tensor([[-1.0, 0, 1, 1, 0, -1]]) * 1.5**0.5,
                 atol=1e-4, rtol=0)


def test_rmsnorm_by_hand():
    out = nn.RMSNorm(2)(torch.tensor([3.0, 4.0]))
    assert_close(out.detach(), torch.tensor([3.0, 4.0]) / 12.5**0.5)


def test_dropout_keeps_the_mean_and_the_stream():
    layer = nn.Dropout(0.25, generator=generator(5))
    x = torch.ones(100_000)
    out = layer(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    again = nn.Dropout(0.25, generator=generator(5))(x)
    assert torch.equal(out, again) and not torch.equal(out, layer(x))
    assert layer.eval()(x) is x
    assert nn.Dropout(1.0)(x).abs().sum() == 0
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match=str(p)):
            nn.Dropout(p)


@pytest.mark.parametrize("name", ["ReLU", "SiLU", "Dropout"])
def test_inplace_writes_into_its_input(name):
    layer = getattr(nn, name)(inplace=True)
    x = torch.randn(50, generator=generator())
    before = x.clone()
    assert layer(x) is x and not torch.equal(x, before)
    again = before.clone()
    out = getattr(nn, name)()(again)
    assert torch.equal(again, before)  # by default nothing is overwritten
    if name != "Dropout":
        assert_close(x, out)


def test_embedding_picks_rows_and_leaves_the_padding_alone():
    table = nn.Embedding(5, 2, padding_idx=-2)
    assert table.padding_idx == 3 and table.weight[3].abs().sum() == 0
    assert (table.weight[[0, 1, 2, 4]].abs().sum(1) > 0).all()
    idx = torch.tensor([[3, 0], [0, 1]])
    out = table(idx)
    assert_close(out, table.weight[idx])
    out.sum().backward()
    assert table.weight.grad[:, 0].tolist() == [2, 1, 0, 0, 0]
    for bad in (torch.tensor([5]), torch.tensor([-1])):
        with pytest.raises(IndexError):
            table(bad)
    assert nn.Embedding(5, 2, padding_idx=-5).padding_idx == 0
    for i in (5, -6):
        with pytest.raises(ValueError, match=f"padding_idx {i}"):
            nn.Embedding(5, 2, padding_idx=i)
    for option in ({"max_norm": 1.0}, {"sparse": True},
                   {"scale_grad_by_freq": True}):
        with pytest.raises(ValueError, match="not rebuilt"):
            nn.Embedding(5, 2, **option)


@pytest.mark.parametrize(
    ("layer", "shape", "sizes"),
    [
        (nn.Linear(3, 2), (4, 5), [(4, 5), (2, 3)]),
        (nn.LayerNorm((2, 3)), (4, 2, 5), [(4, 2, 5), (2, 3)]),
        (nn.RMSNorm(3), (4, 5), [(4, 5), (3,)]),
        (nn.BatchNorm1d(3), (4, 5), [(4, 5), (3,)]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_wrong_shape_is_answered_with_both_shapes(layer, shape, sizes):
    with pytest.raises(ValueError) as error:
        layer(torch.ones(shape))
    for size in sizes:
        assert str(size) in str(error.value)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="in_features .* -1"):
        nn.Linear(-1, 2)
    with pytest.raises(ValueError, match="out_features"):
        nn.Linear(1, -2)
    with pytest.raises(ValueError, match="num_features"):
        nn.BatchNorm1d(-2)
    with pytest.raises(ValueError, match="embedding_dim"):
        nn.Embedding(2, -2)
    with pytest.raises(ValueError, match="4 axes"):
        nn.BatchNorm1d(3)(torch.ones(2, 3, 4, 5))
    with pytest.raises(ValueError, match="'erf'"):
        nn.GELU("erf")
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)


# -- how layers start ------------------------------------------------------
@pytest.mark.parametrize("case", parity.LAYERS, ids=label)
def test_same_seed_gives_torchs_initial_state(case):
    name, options, _ = case
    states = []
    with torch.random.fork_rng(devices=[]):
        for library in (nn, torch.nn):
            torch.manual_seed(3)
            states.append(getattr(library, name)(**options).state_dict())
    assert list(states[0]) == list(states[1])
    for k in states[0]:
        assert states[0][k].dtype == states[1][k].dtype
        assert_close(states[0][k], states[1][k])


def furthest_from_uniform(sample):
    """Kolmogorov-Smirnov distance to the uniform distribution on 0..1."""
    u = sample.flatten().double().sort().values
    return (u - torch.linspace(0, 1, len(u)).double()).abs().max().item()


def test_linear_starts_uniform_in_one_over_root_fan_in():
    layer = nn.Linear(400, 300, generator=generator(7))
    bound = 400**-0.5
    for t in (layer.weight, layer.bias):
        u = (t.detach() / bound + 1) / 2
        assert furthest_from_uniform(u) < 1.63 / t.numel() ** 0.5  # 1% level
        assert t.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5,
                                                      rel=0.01)


def test_embedding_starts_standard_normal():
    w = nn.Embedding(300, 400, generator=generator(7)).weight.detach()
    u = torch.special.ndtr(w)
    assert furthest_from_uniform(u) < 1.63 / w.numel() ** 0.5


def test_linear_without_inputs_is_zero():
    layer = nn.Linear(0, 3)
    assert layer(torch.ones(2, 0)).tolist() == [[0, 0, 0]] * 2


def test_norms_start_at_one_and_zero():
    for layer in (nn.BatchNorm1d(3), nn.LayerNorm(3)):
        assert layer.weight.tolist() == [1, 1, 1]
        assert layer.bias.tolist() == [0, 0, 0]
    assert nn.RMSNorm(3).weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("cls", [nn.Linear, nn.Embedding])
def test_a_generator_makes_layers_repeatable(cls):
    g, state = generator(1), torch.get_rng_state()
    first, second = cls(3, 4, generator=g), cls(3, 4, generator=g)
    again = cls(3, 4, generator=generator(1))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else is drawn
    assert not torch.equal(first.weight, second.weight)


def test_dtype_at_birth():
    for name, options, _ in parity.LAYERS:
        layer = getattr(nn, name)
        if "dtype" in inspect.signature(layer).parameters:
            state = layer(**options, dtype=torch.float64).state_dict()
            assert {t.dtype for t in state.values()} <= {
                torch.float64, torch.int64}
            assert all(k == "num_batches_tracked" or t.dtype != torch.int64
                       for k, t in state.items())


# -- Module ----------------------------------------------------------------
def library_model(lib):
    """A model with everything in it, in our library or in torch's."""

    class Block(lib.Module):
        def __init__(self, width):
            super().__init__()
            self.scale = Parameter(torch.full((width,), 0.5))
            self.register_buffer("mask", torch.eye(width))
            self.register_buffer("cache", torch.ones(2), persistent=False)
            self.register_parameter("shift", None)
            self.norm = lib.BatchNorm1d(width)
            self.layers = lib.ModuleList(
                [lib.Linear(width, width), lib.Linear(width, width, False)]
            )

        def forward(self, x):
            for layer in self.layers:
                x = x + layer(x)
            return self.norm(x @ self.mask) * self.scale

    class Net(lib.Module):
        def __init__(self):
            super().__init__()
            self.table = lib.Embedding(6, 4)
            self.body = lib.Sequential(
                lib.Flatten(), lib.Linear(8, 4), lib.GELU(), Block(4),
                lib.Dropout(0.2), lib.Sequential(lib.Tanh(), lib.Identity()),
            )
            self.head = lib.Linear(4, 6, bias=False)
            self.head.weight = self.table.weight  # tied
            self.empty = None

        def forward(self, idx):
            return self.head(self.body(self.table(idx)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Net()


@pytest.fixture
def models():
    return library_model(nn), library_model(torch.nn)


def test_model_names_order_and_counts_are_torchs(models):
    ours, theirs = models
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for method in ("named_parameters", "named_buffers", "named_modules",
                   "named_children"):
        assert [k for k, _ in getattr(ours, method)()] == [
            k for k, _ in getattr(theirs, method)()
        ], method
    for method in ("parameters", "buffers", "modules", "children"):
        a, b = (list(getattr(m, method)()) for m in models)
        assert len(a) == len(b), method
    a, b = (dict(m.named_parameters("p", remove_duplicate=False))
            for m in models)
    assert list(a) == list(b) and "p.head.weight" in a
    a, b = (list(m.parameters(recurse=False)) for m in models)
    assert a == b == []
    assert [k for k, _ in ours.body[3].named_parameters(recurse=False)] == [
        "scale"]
    assert [k for k, _ in ours.body[3].named_buffers("p", recurse=False)] == [
        "p.mask", "p.cache"]
    assert list(ours.state_dict("m.")) != []


def test_model_prints_like_torchs(models):
    def text(module):  # older torch does not print the bias of norms
        return re.sub(r"(Norm.*), bias=\w+", r"\1", repr(module))

    assert text(models[0]) == text(models[1])
    first = ("Embedding", {"num_embeddings": 5, "embedding_dim": 2,
                           "padding_idx": 0}, ())
    for name, options, _ in [*parity.LAYERS, first]:
        assert text(getattr(nn, name)(**options)) == text(
            getattr(torch.nn, name)(**options)), name


def test_model_state_travels_both_ways_and_trains_alike(models):
    ours, theirs = models
    idx = torch.randint(6, (16, 2), generator=generator())
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(generator=generator(1))
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    ours.eval(), theirs.eval()
    assert_close(ours(idx), theirs(idx))
    ours.train(), theirs.train()
    with torch.random.fork_rng(devices=[]):
        for model in models:
            torch.manual_seed(0)
            for _ in range(3):
                model.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(idx),
                                                         idx[:, 0])
                loss.backward()
                for p in model.parameters():
                    p.data -= 0.1 * p.grad
    back = library_model(torch.nn)
    back.load_state_dict(ours.state_dict())
    for k, t in theirs.state_dict().items():
        assert_close(back.state_dict()[k], t, rtol=1e-4, atol=1e-5)


def test_shared_weights_are_one_parameter(models):
    ours, _ = models
    names = [k for k, _ in ours.named_parameters()]
    assert "table.weight" in names and "head.weight" not in names
    assert "head.weight" in ours.state_dict()
    ours.to(torch.float64)
    assert ours.head.weight is ours.table.weight
    layer = nn.Linear(2, 2)
    assert len(list(nn.Sequential(layer, layer).parameters())) == 2
    assert len(list(nn.Sequential(layer, layer).modules())) == 2
    assert len(list(nn.Sequential(layer, layer).children())) == 1
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]  # as torch saves it
    assert list(nn.Sequential(layer, layer).state_dict()) == names


def test_state_dict_is_detached_and_shares_memory():
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    assert not state["weight"].requires_grad
    state["weight"].zero_()
    assert layer.weight.abs().sum() == 0
    before, new = layer.weight, nn.Linear(2, 2).state_dict()
    layer.load_state_dict(new)
    assert layer.weight is before and layer.weight.requires_grad
    new["weight"].zero_()  # what is loaded is a copy
    assert layer.weight.abs().sum() > 0


def test_a_state_dict_that_does_not_fit_changes_nothing():
    layer = nn.Linear(3, 2)
    before = copy.deepcopy(layer.state_dict())
    wrong = {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
            layer.load_state_dict(wrong, strict=strict)
    with pytest.raises(ValueError, match="missing: bias"):
        layer.load_state_dict({"weight": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="unexpected: gain"):
        layer.load_state_dict({**before, "gain": torch.zeros(1)})
    for k, t in before.items():
        assert torch.equal(layer.state_dict()[k], t)
    result = layer.load_state_dict(
        {"weight": torch.zeros(2, 3), "gain": torch.zeros(1)}, strict=False
    )
    assert result.missing_keys == ["bias"]
    assert result.unexpected_keys == ["gain"]
    with pytest.raises(ValueError, match="weight.*list.*bias.*NoneType"):
        layer.load_state_dict({"weight": [[1.0]], "bias": None})
    assert layer.weight.abs().sum() == 0
    assert torch.equal(layer.bias, before["bias"])


def test_saved_and_loaded_from_a_file(models):
    ours, theirs = models
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    assert_close(theirs.body[1].weight, ours.body[1].weight)


def test_deepcopy_is_independent(models):
    ours, _ = models
    twin = copy.deepcopy(ours)
    twin.body[1].weight.data.zero_()
    assert ours.body[1].weight.abs().sum() > 0
    assert twin.head.weight is twin.table.weight
    assert twin.head.weight is not ours.head.weight


def test_a_plain_list_hides_its_layers():
    class Hidden(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layers = kind([nn.Linear(2, 2)])

    assert list(Hidden(list).parameters()) == []
    assert len(list(Hidden(nn.ModuleList).parameters())) == 2


def test_assignment_before_super_init_says_so():
    class Eager(nn.Module):
        def __init__(self, value):
            self.thing = value
            super().__init__()

    for value in (nn.Tanh(), Parameter(torch.ones(1))):
        with pytest.raises(AttributeError, match=r"super\(\).__init__"):
            Eager(value)
    with pytest.raises(AttributeError, match="nothing"):
        nn.Tanh().nothing  # noqa: B018


def test_torch_layers_inside_ours_are_refused():
    with pytest.raises(TypeError, match="torch.nn.Linear"):
        nn.Tanh().inner = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="Linear"):
        nn.Sequential(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="function"):
        nn.Sequential(torch.tanh)
    with pytest.raises(TypeError, match="dict"):
        nn.Sequential({"a": nn.Tanh()}, nn.Tanh())


def test_attributes_sort_themselves_and_can_be_replaced():
    m = nn.Module()
    m.a = Parameter(torch.ones(1))
    m.b = nn.Tanh()
    m.c = torch.ones(1)
    m.register_buffer("d", torch.ones(1))
    assert [k for k, _ in m.named_parameters()] == ["a"]
    assert [k for k, _ in m.named_children()] == ["b"]
    assert [k for k, _ in m.named_buffers()] == ["d"]
    m.d = torch.zeros(2)  # a buffer stays a buffer
    assert dict(m.named_buffers())["d"].shape == (2,)
    m.a = None
    assert m.a is None and list(m.parameters()) == []
    m.a = Parameter(torch.zeros(3))
    assert m.a.shape == (3,)
    for name in "abd":
        with pytest.raises(TypeError, match=name):
            setattr(m, name, "text")
    m.c = Parameter(torch.zeros(1))  # from plain to parameter
    assert [k for k, _ in m.named_parameters()] == ["a", "c"]
    assert m.c is m._parameters["c"]
    m.d = Parameter(torch.ones(1))  # from buffer to parameter
    assert not list(m.buffers()) and len(list(m.parameters())) == 3
    del m.d
    m.register_buffer("d", torch.ones(1), persistent=False)
    assert list(m.state_dict()) == ["a", "c"]
    m.register_buffer("d", torch.ones(1))
    assert list(m.state_dict()) == ["a", "c", "d"]
    del m.d
    m.register_parameter("d", None)  # from buffer to a name kept free
    assert m.d is None and not list(m.buffers())


@pytest.mark.parametrize("library", [nn, torch.nn], ids=["ours", "torch"])
def test_names_are_taken_until_they_are_deleted(library):
    m = library.Module()
    m.plain = 1
    m.weight = Parameter(torch.ones(1))
    m.child = library.Tanh()
    m.register_buffer("kept", torch.ones(1))
    m.register_buffer("local", torch.ones(1), persistent=False)
    for name in ("training", "forward", "plain", "weight", "child"):
        with pytest.raises((ValueError, KeyError), match=name):
            m.register_buffer(name, torch.ones(1))
    for name in ("training", "forward", "plain", "kept", "child"):
        with pytest.raises((ValueError, KeyError), match=name):
            m.register_parameter(name, Parameter(torch.ones(1)))
    for name in ("plain", "weight", "child", "kept", "local"):
        delattr(m, name)
        assert not hasattr(m, name)
        with pytest.raises(AttributeError, match=name):
            delattr(m, name)
    m.register_buffer("local", torch.ones(1))  # no longer left out
    assert list(m.state_dict()) == ["local"] and not list(m.children())


@pytest.mark.parametrize("library", [nn, torch.nn], ids=["ours", "torch"])
def test_prefix_of_a_state_dict_goes_before_every_name(library):
    state = library.Sequential(library.Linear(1, 1)).state_dict(prefix="a.")
    assert list(state) == ["a.0.weight", "a.0.bias"]


def test_registration_checks():
    m = nn.Module()
    for name in ("", "a.b", 3):
        for register in (m.register_parameter, m.register_buffer):
            with pytest.raises(ValueError, match="name"):
                register(name, None)
    with pytest.raises(TypeError, match="Parameter"):
        m.register_parameter("w", torch.ones(1))
    with pytest.raises(TypeError, match="Tensor"):
        m.register_buffer("w", [1])
    m.register_parameter("none", None)
    m.register_buffer("empty", None)
    assert m.none is None and m.empty is None and m.state_dict() == {}
    m.empty = torch.ones(1)
    assert list(m.state_dict()) == ["empty"]


def test_train_and_eval_reach_everything(models):
    for model in models:
        assert all(m.training for m in model.modules())
        assert model.eval() is model
        assert not any(m.training for m in model.modules())
        model.body[3].train()
        assert model.body[3].norm.training and not model.training
        model.train(False)
        assert not model.body[3].norm.training
        with pytest.raises(ValueError, match="mode"):
            model.train(torch.ones(2, 3))  # Keras would train on this


def test_to_converts_floats_in_place(models):
    ours, _ = models
    weight = ours.table.weight
    weight.grad = torch.ones_like(weight)
    assert ours.to(torch.float64) is ours
    assert ours.table.weight is weight and weight.dtype == torch.float64
    assert weight.grad.dtype == torch.float64
    assert ours.body[3].mask.dtype == torch.float64
    assert ours.body[3].norm.num_batches_tracked.dtype == torch.int64
    ours.to("cpu", torch.float32).to(device="cpu", dtype=None)
    assert ours.body[3].mask.dtype == torch.float32
    assert ours.to(torch.zeros(1).double()).table.weight.dtype is torch.double
    with pytest.raises(ValueError, match="int64"):
        ours.to(torch.int64)


def test_device_at_birth():
    layer = nn.BatchNorm1d(3, device="meta")
    assert {t.device.type for t in layer.state_dict().values()} == {"meta"}
    assert nn.Linear(2, 3, device="meta").bias.is_meta
    assert nn.Embedding(2, 3, device="meta").weight.is_meta


def test_zero_grad():
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.ones(1, 2)
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.tolist() == [[0, 0]]
    assert layer.bias.grad is None
    layer.zero_grad()
    assert layer.weight.grad is None


def test_freezing_and_thawing_reach_all_parameters(models):
    for model in models:
        assert model.body.requires_grad_(False) is model.body
        frozen = {n for n, p in model.named_parameters()
                  if not p.requires_grad}
        assert frozen == {n for n, _ in model.named_parameters()
                          if n.startswith("body.")}
        assert frozen and len(frozen) < len(list(model.parameters()))
        model.requires_grad_()
        assert all(p.requires_grad for p in model.parameters())


def test_apply_visits_children_before_parents_as_torch(models):
    seen = []
    for model in models:
        assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    half = len(seen) // 2
    assert seen[:half] == seen[half:] and seen[-1] == "Net" and half > 5


# -- containers ------------------------------------------------------------
def test_sequential_is_a_row_of_functions():
    row = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    assert row.append(nn.Linear(4, 2)) is row
    assert len(row) == 3 and isinstance(row[-1], nn.Linear)
    assert [type(m).__name__ for m in row] == ["Linear", "Tanh", "Linear"]
    x = torch.randn(5, 3)
    assert_close(row(x), row[2](torch.tanh(row[0](x))))
    assert_close(row[1:](x[:, :1].expand(5, 4)),
                 row[2](torch.tanh(x[:, :1].expand(5, 4))))
    assert list(row[1:].state_dict()) == ["2.weight", "2.bias"]  # as torch
    assert row[0] is row[-3] and row[:2][0] is row[0]
    row[1] = nn.ReLU()
    assert isinstance(row[1], nn.ReLU) and len(row) == 3
    for i in (3, -4):
        with pytest.raises(IndexError, match="container of 3"):
            row[i]
    assert nn.Sequential()(x) is x


def test_sequential_with_names():
    row = nn.Sequential({"up": nn.Linear(3, 4), "act": nn.Tanh()})
    assert list(row.state_dict()) == ["up.weight", "up.bias"]
    assert row.up is row[0] and row(torch.ones(2, 3)).shape == (2, 4)
    theirs = torch.nn.Sequential()
    for name, size in {"up": (3, 4)}.items():
        theirs.add_module(name, torch.nn.Linear(*size))
    theirs.load_state_dict(row.state_dict())


def test_modulelist_is_a_list():
    layers = nn.ModuleList(nn.Linear(2, i) for i in (1, 2))
    assert layers.append(nn.Tanh()) is layers
    layers.extend([nn.Linear(2, 3)])
    assert len(layers) == 4
    assert [getattr(m, "out_features", 0) for m in layers] == [1, 2, 0, 3]
    assert list(layers[2:].state_dict()) == ["1.weight", "1.bias"]
    assert layers[1] is layers[-3]
    layers[0] = nn.Linear(2, 9)
    assert layers[0].out_features == 9 and len(layers) == 4
    with pytest.raises(NotImplementedError):
        layers(torch.ones(1, 2))
    assert len(nn.ModuleList()) == 0
