"""zerohero.sequences: the MLP over windows, and training from counts."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero.data import windows
from zerohero.optim import SGD, Adam
from zerohero.sequences import MLP, contexts, count_loss, fit_counts
from zerohero.train import linear_to_zero


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def small(seed=0, **sizes):
    sizes = dict(vocab_size=5, block_size=3, n_embd=2, n_hidden=4) | sizes
    return MLP(**sizes, generator=gen(seed))


class Twin(torch.nn.Module):
    """The same network from torch.nn, to compare with."""

    def __init__(self, vocab_size, block_size, n_embd, n_hidden):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab_size, n_embd)
        self.hidden = torch.nn.Linear(block_size * n_embd, n_hidden)
        self.output = torch.nn.Linear(n_hidden, vocab_size)

    def forward(self, idx):
        emb = self.embedding(idx).flatten(1)
        return self.output(torch.tanh(self.hidden(emb)))


def examples(n=200, V=5, T=3, seed=1):
    x = torch.randint(V, (n, T), generator=gen(seed))
    y = torch.randint(V, (n,), generator=gen(seed + 1))
    return x, y


# ------------------------------------------------------------------ model
@pytest.mark.parametrize("sizes", [(5, 3, 2, 4), (7, 1, 3, 6), (4, 5, 1, 1)])
def test_model_equals_torch_forward_and_backward(sizes):
    ours, theirs = MLP(*sizes, generator=gen()), Twin(*sizes)
    theirs.load_state_dict(ours.state_dict())
    x, y = examples(V=sizes[0], T=sizes[1])
    assert_close(ours(x), theirs(x))
    F.cross_entropy(ours(x), y).backward()
    F.cross_entropy(theirs(x), y).backward()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    for a, b in pairs:
        assert_close(a.grad, b.grad)


def test_state_dict_travels_both_ways():
    ours, theirs = small(), Twin(5, 3, 2, 4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, _ = examples()
    assert_close(ours(x), theirs(x))


def test_value_by_hand():
    model = small(vocab_size=2, block_size=2, n_embd=1, n_hidden=1)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[1.0], [2.0]]))
        model.hidden.weight.copy_(torch.tensor([[0.5, -1.0]]))
        model.hidden.bias.fill_(0.25)
        model.output.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        model.output.bias.copy_(torch.tensor([0.0, 0.5]))
    h = math.tanh(0.5 * 1 - 1.0 * 2 + 0.25)  # idx [0, 1]: slots in order
    got = model(torch.tensor([[0, 1]]))
    assert_close(got, torch.tensor([[h, 0.5 - 2 * h]]))


def test_parameter_counts():
    def count(*sizes):
        return sum(p.numel() for p in MLP(*sizes).parameters())

    assert count(27, 3, 10, 200) == 11897
    assert count(27, 8, 10, 200) == 21897


def test_order_of_the_window_matters_and_batch_rows_do_not_talk():
    model = small(3)
    x = torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 3]])
    logits = model(x)
    assert_close(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    assert_close(model(x[1:2])[0], logits[1])


def test_starts_close_to_uniform_with_useful_units():
    model = MLP(27, 3, 10, 200, generator=gen())
    x, y = examples(2000, V=27)
    with torch.no_grad():
        loss = F.cross_entropy(model(x), y).item()
        h = model.features(x)
    assert abs(loss - math.log(27)) < 0.03
    assert 0.4 < h.std() < 0.85  # neither crushed nor saturated
    assert (h.abs() > 0.99).float().mean() < 0.15
    W, V = model.hidden.weight, model.output.weight
    assert_close(W.std().item(), 5 / 3 / 30**0.5, rtol=0.05, atol=0)
    assert_close(V.std().item(), 0.1 / 200**0.5, rtol=0.05, atol=0)
    assert model.embedding.weight.std().item() == pytest.approx(1, rel=0.15)
    for layer in (model.hidden, model.output):
        assert layer.bias.abs().max() == 0


@pytest.mark.parametrize("fan_in", [(2, 5), (8, 10), (5, 40)])
def test_hidden_scale_follows_the_fan_in(fan_in):
    T, C = fan_in
    W = MLP(9, T, C, 400, generator=gen()).hidden.weight
    expected = 5 / 3 / (T * C) ** 0.5
    assert_close(W.std().item(), expected, rtol=0.06, atol=0)


def test_same_seed_same_model():
    x, _ = examples()
    assert_close(small(7)(x), small(7)(x), rtol=0, atol=0)
    assert (small(7)(x) - small(8)(x)).abs().max() > 1e-4
    torch.manual_seed(0)
    state = torch.get_rng_state()
    small(7)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_batch_can_be_overfit():
    model = small(0, n_hidden=32, n_embd=4)
    x = torch.tensor([[0, 1, 2], [2, 1, 0], [4, 4, 4], [1, 1, 3]])
    y = torch.tensor([0, 1, 2, 3])
    optimizer = SGD(model.parameters(), lr=1.0)
    for _ in range(200):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 4), (1, 2, 3), (2, 3, 2)])
def test_wrong_window_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(B, 3\)") as error:
        small()(torch.zeros(shape, dtype=torch.long))
    assert str(tuple(shape)) in str(error.value)


@pytest.mark.parametrize(
    "name", ["vocab_size", "block_size", "n_embd", "n_hidden"]
)
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        small(**{name: 0})


# ----------------------------------------------------------------- tables
def test_tables_add_up_to_the_hidden_layer():
    model = MLP(11, 4, 3, 6, generator=gen(2))
    with torch.no_grad():
        model.hidden.bias.normal_(generator=gen(3))
    x, _ = examples(50, V=11, T=4)
    tables = model.tables()
    assert tables.shape == (4, 11, 6)
    total = sum(tables[j][x[:, j]] for j in range(4)) + model.hidden.bias
    assert_close(torch.tanh(total), model.features(x))


def test_tables_slot_by_hand():
    model = small(vocab_size=3, block_size=2, n_embd=1, n_hidden=1)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        model.hidden.weight.copy_(torch.tensor([[10.0, 100.0]]))
    expected = torch.tensor([[[10.0], [20], [30]], [[100.0], [200], [300]]])
    assert_close(model.tables().detach(), expected)


# --------------------------------------------------------------- contexts
def test_contexts_by_hand():
    ids = torch.tensor([0, 1, 1, 0, 1, 2, 0, 1, 1, 0])
    x, y = windows(ids, 2, boundary=0)
    unique, counts = contexts(x, y)
    assert unique.tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]
    expected = [[0, 3, 0], [0, 2, 1], [2, 0, 0], [1, 0, 0]]
    assert counts.tolist() == expected
    assert counts.dtype == torch.float32


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_contexts_lose_nothing(data):
    V = data.draw(st.integers(1, 6))
    T = data.draw(st.integers(1, 4))
    n = data.draw(st.integers(1, 30))
    ids = st.integers(0, V - 1)
    rows = st.lists(ids, min_size=T + 1, max_size=T + 1)
    xy = torch.tensor(data.draw(st.lists(rows, min_size=n, max_size=n)))
    x, y = xy[:, :-1], xy[:, -1]
    unique, counts = contexts(x, y, V)
    seen = {}
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        seen.setdefault(tuple(row), [0] * V)[target] += 1
    assert [tuple(u) for u in unique.tolist()] == sorted(seen)
    assert counts.tolist() == [seen[k] for k in sorted(seen)]


def test_contexts_of_long_windows_do_not_overflow():
    x = torch.randint(60, (100, 20), generator=gen())
    x = torch.cat((x, x))
    y = torch.arange(200) % 60
    unique, counts = contexts(x, y, 60)
    assert unique.shape == (100, 20) and counts.sum() == 200
    assert counts.sum(1).eq(2).all()


def test_contexts_vocabulary():
    x, y = torch.tensor([[0, 1]]), torch.tensor([2])
    assert contexts(x, y)[1].shape == (1, 3)
    assert contexts(x, y, 9)[1].shape == (1, 9)
    with pytest.raises(ValueError, match="vocab_size=2"):
        contexts(x, y, 2)
    with pytest.raises(ValueError, match="from -1 to 2"):
        contexts(x - 1, y)
    with pytest.raises(ValueError, match="from -1 to 1"):
        contexts(x, y - 3)
    x = torch.tensor([[0, 5]])  # here the window holds the largest id
    assert contexts(x, y)[1].shape == (1, 6)
    with pytest.raises(ValueError, match="to 5, vocab_size=5"):
        contexts(x, y, 5)


@pytest.mark.parametrize(
    "x, y",
    [((4, 2), (3,)), ((4,), (4,)), ((0, 2), (0,)), ((4, 0), (4,)),
     ((4, 2), (4, 1))],
)
def test_contexts_shapes_are_checked(x, y):
    zeros = torch.zeros(x, dtype=torch.long), torch.zeros(y).long()
    with pytest.raises(ValueError, match="at least one window"):
        contexts(*zeros)


# ------------------------------------------------------- loss and training
def test_count_loss_is_the_cross_entropy_of_all_windows():
    model, (x, y) = small(), examples(500)
    unique, counts = contexts(x, y, 5)
    loss = count_loss(model(unique), counts)
    direct = F.cross_entropy(model(x), y)
    assert_close(loss, direct)
    assert len(unique) < len(x) / 3
    a = torch.autograd.grad(loss, list(model.parameters()))
    b = torch.autograd.grad(direct, list(model.parameters()))
    for got, expected in zip(a, b, strict=True):
        assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_count_loss_by_hand_and_its_errors():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    counts = torch.tensor([[1.0, 2.0], [5.0, 0.0]])
    nats = -math.log(3 / 4) - 2 * math.log(1 / 4) + 5 * math.log(2)
    assert count_loss(logits, counts).item() == pytest.approx(nats / 8)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        count_loss(logits, torch.ones(2, 3))
    with pytest.raises(ValueError, match="all zero"):
        count_loss(logits, counts * 0)


def test_fit_counts_takes_the_steps_of_full_batch_training():
    ours, theirs = small(), small()
    x, y = examples(300)
    sgd = SGD(ours.parameters(), lr=0.5)
    schedule = linear_to_zero(5)
    F.cross_entropy(ours(x), y).backward()  # what is left of earlier work
    ours.eval()
    history = fit_counts(ours, *contexts(x, y, 5), sgd, 5, schedule)
    assert sgd.param_groups[0]["lr"] == 0.5
    losses = []
    for step in range(5):
        loss = F.cross_entropy(theirs(x), y)
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, list(theirs.parameters()))
        with torch.no_grad():
            for p, g in zip(theirs.parameters(), grads, strict=True):
                p -= 0.5 * schedule(step) * g
    assert_close(torch.tensor(history.losses), torch.tensor(losses))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert history.seconds > 0 and ours.training


def test_fit_counts_drives_several_optimizers():
    model, (x, y) = small(), examples()
    params = list(model.parameters())
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), params)
    rates = [0.1, *[0.2] * 2, *[0.3] * 2]
    wanted = [p.detach() - lr * g
              for p, lr, g in zip(params, rates, grads, strict=True)]
    first = SGD(model.embedding.parameters(), lr=0.1)
    second = SGD([{"params": list(model.hidden.parameters())},
                  {"params": list(model.output.parameters()), "lr": 0.3}],
                 lr=0.2)
    counted = contexts(x, y, 5)
    fit_counts(model, *counted, (first, second), 1)
    fit_counts(model, *counted, (first, second), 2, lambda step: 0.0)
    for p, t in zip(params, wanted, strict=True):
        assert_close(p.detach(), t, rtol=1e-4, atol=1e-6)
    assert first.param_groups[0]["lr"] == 0.1
    assert [g["lr"] for g in second.param_groups] == [0.2, 0.3]


def test_fit_counts_reaches_the_table_it_can_represent():
    ids = torch.randint(4, (2000,), generator=gen(5))
    ids[1::2] = (ids[::2] + 1) % 4  # half of the symbols are determined
    x, y = windows(ids, 1)
    unique, counts = contexts(x, y, 4)
    model = small(0, vocab_size=4, block_size=1, n_embd=4, n_hidden=16)
    adam = Adam(model.parameters(), lr=0.05)
    fit_counts(model, unique, counts, adam, 200, linear_to_zero(200))
    probs = counts / counts.sum(1, keepdim=True)
    floor = -(counts * probs.log()).sum() / counts.sum()
    loss = count_loss(model(unique), counts)
    assert floor - 1e-5 < loss < floor + 1e-3


def test_fit_counts_errors():
    model, (x, y) = small(), examples()
    adam = Adam(model.parameters(), lr=0.1)
    assert len(fit_counts(model, *contexts(x, y, 5), adam, 1).losses) == 1
    with pytest.raises(ValueError, match="steps=0"):
        fit_counts(model, *contexts(x, y, 5), adam, 0)
    unique, counts = contexts(x, y, 5)
    with torch.no_grad():
        model.output.bias[0] = -math.inf  # rules out what came
    with pytest.raises(ValueError, match="the loss is inf at step 0"):
        fit_counts(model, unique, counts + 1, adam, 1)
    with torch.no_grad():
        model.output.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="at step 0: lower the learning"):
        fit_counts(model, *contexts(x, y, 5), adam, 3)
    assert adam.param_groups[0]["lr"] == 0.1
