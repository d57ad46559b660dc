"""zerohero.train: batches, loop, evaluation, checkpoints, machine."""

import json
import math
import os

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zerohero import train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Table(torch.nn.Module):
    """Logits of the next symbol looked up by the present one."""

    def __init__(self, size=5, drop=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size, size))
        self.dropout = torch.nn.Dropout(drop)

    def forward(self, idx):
        return self.dropout(self.weight[idx])


class Window(Table):
    """Answers one row of logits for a window: (B, T) -> (B, V)."""

    def forward(self, idx):
        return super().forward(idx[:, -1])


TEXT = torch.tensor([0, 1, 2, 1, 0, 3, 4, 2, 2, 1]).repeat(30)


# ---------------------------------------------------------------- machine
def test_device_can_hold_a_tensor():
    where = train.device()
    assert isinstance(where, torch.device)
    assert torch.ones(2, device=where).sum().item() == 2


@pytest.mark.parametrize("has, wanted", [
    ({"cuda", "mps"}, "cuda"), ({"cuda"}, "cuda"), ({"mps"}, "mps"),
    (set(), "cpu")])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, has, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in has)
    monkeypatch.setattr(torch.backends.mps, "is_available",
                        lambda: "mps" in has)
    assert train.device() == torch.device(wanted)


@pytest.mark.parametrize("text, cores", [
    ("150000 100000\n", 1.5), ("max 100000\n", None), ("200000 100000", 2.0),
    ("nonsense", None)])
def test_quota_of_cgroup_2(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert train.quota(str(tmp_path)) == cores


def test_quota_of_cgroup_1(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert train.quota(str(tmp_path)) == 2.5
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert train.quota(str(tmp_path)) is None
    assert train.quota(str(tmp_path / "nowhere")) is None


def test_threads_obeys_quota_and_environment(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)),
                        raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        (tmp_path / "cpu.max").write_text("290000 100000")
        assert train.threads(str(tmp_path)) == 2
        assert torch.get_num_threads() == 2
        (tmp_path / "cpu.max").write_text("50000 100000")
        assert train.threads(str(tmp_path)) == 1
        (tmp_path / "cpu.max").write_text("max 100000")
        assert train.threads(str(tmp_path)) == 8
        for omp, wanted in (("3", 3), ("1", 1), ("16", 8), ("0", 8),
                            ("4,2", 8)):  # no single count: left alone
            monkeypatch.setenv("OMP_NUM_THREADS", omp)
            assert train.threads(str(tmp_path)) == wanted
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 5)
        assert train.threads(str(tmp_path)) == 5
        monkeypatch.setattr(os, "cpu_count", lambda: None)  # not known
        assert train.threads(str(tmp_path)) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("half, full, wanted", [
    (1.0, 4.0, torch.bfloat16), (4.0, 1.0, torch.float32),
    (1.0, 1.2, torch.float32), (1.0, 1.5, torch.bfloat16)])
def test_number_format_follows_the_probe(monkeypatch, half, full, wanted):
    times = {torch.bfloat16: half, torch.float32: full}
    monkeypatch.setattr(train, "_fastest", lambda dtype, where: times[dtype])
    train.number_format.cache_clear()
    assert train.number_format() == wanted
    train.number_format.cache_clear()


def test_number_format_where_bfloat16_does_not_exist(monkeypatch):
    def fail(dtype, where):
        raise RuntimeError("not here")
    monkeypatch.setattr(train, "_fastest", fail)
    train.number_format.cache_clear()
    assert train.number_format() == torch.float32
    train.number_format.cache_clear()


def test_the_probe_runs_on_one_thread(monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(train, "_fastest", lambda dtype, where: seen.append(
        torch.get_num_threads()) or 1.0)
    train.number_format.cache_clear()
    try:
        torch.set_num_threads(2)
        train.number_format()
        assert seen == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        train.number_format.cache_clear()


def test_the_probe_itself():
    train.number_format.cache_clear()
    assert train.number_format() in (torch.bfloat16, torch.float32)
    assert 0 < train._fastest(torch.float32, torch.device("cpu")) < 10


# ---------------------------------------------------------------- batches
def test_batches_show_each_example_once_an_epoch():
    x = torch.arange(12)
    batches = train.Batches(x, x * 10, 4, generator())
    for _ in range(3):
        seen = []
        for _ in range(3):
            xb, yb = next(batches)
            assert_close(yb, xb * 10)
            seen += xb.tolist()
        assert sorted(seen) == x.tolist()
    assert seen != x.tolist()  # shuffled


def test_batches_of_one_example():
    x = torch.arange(5)
    for batches in (train.Batches(x, x, 1, generator()),
                    train.TextBatches(torch.arange(6), 1, 1, generator())):
        for _ in range(3):
            epoch = [next(batches)[0].item() for _ in range(5)]
            assert sorted(epoch) == x.tolist()


def test_batches_never_mix_two_epochs():
    batches = train.Batches(torch.arange(10), torch.arange(10), 4,
                            generator())
    for _ in range(6):
        epoch = [i for _ in range(2) for i in next(batches)[0].tolist()]
        assert len(set(epoch)) == 8


def test_same_seed_same_batches():
    def draw(seed):
        b = train.Batches(torch.arange(50), torch.arange(50), 7,
                          generator(seed))
        return torch.stack([next(b)[0] for _ in range(9)])
    assert_close(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_text_batches_shift_targets_by_one_and_cover_the_text():
    ids = torch.arange(1000)
    batches = train.TextBatches(ids, 8, 5, generator())
    phases, targets = set(), set()
    for _ in range(24 * 30):
        xb, yb = next(batches)
        assert xb.shape == yb.shape == (5, 8)
        assert_close(yb, xb + 1)
        assert (xb.diff(dim=1) == 1).all()
        phases |= set((xb[:, 0] % 8).tolist())
        targets |= set(yb.flatten().tolist())
    assert phases == set(range(8))
    assert targets == set(range(1, 1000))


def test_text_batches_do_not_repeat_inside_an_epoch():
    batches = train.TextBatches(torch.arange(100), 4, 3, generator())
    for _ in range(20):
        batches._shuffle()
        seen = torch.cat([next(batches)[0].flatten() for _ in range(8)])
        assert len(seen.unique()) == len(seen) == 96


def test_text_batches_at_the_shortest_text():
    T, B = 4, 3
    batches = train.TextBatches(torch.arange(T * (B + 1)), T, B, generator())
    for _ in range(50):
        xb, yb = next(batches)
        assert yb.max() <= T * (B + 1) - 1 and xb.shape == (B, T)
    with pytest.raises(ValueError, match="at least 16 symbols"):
        train.TextBatches(torch.arange(15), T, B)


@pytest.mark.parametrize("size", [0, -1, 11, 2.5, True])
def test_batches_refuse_bad_sizes(size):
    with pytest.raises(ValueError, match="batch_size"):
        train.Batches(torch.arange(10), torch.arange(10), size)


def test_batches_refuse_unequal_lengths():
    with pytest.raises(ValueError, match=r"\(10,\) and \(9,\)"):
        train.Batches(torch.arange(10), torch.arange(9), 2)


def test_batches_refuse_what_is_no_tensor():
    x = torch.arange(3)
    for pair in (([1, 2, 3], x), (x, x.numpy())):
        with pytest.raises(ValueError, match="must be tensors, not"):
            train.Batches(*pair, 2)


@pytest.mark.parametrize("own", [True, False])
def test_batches_continue_from_their_state(own):
    def new(seed):
        return train.TextBatches(TEXT, 8, 4, generator(seed) if own else None)
    torch.manual_seed(3)
    first = new(1)
    for _ in range(5):
        next(first)
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v
             for k, v in first.state_dict().items()}
    wanted = [next(first)[0] for _ in range(20)]
    second = new(9)
    second.load_state_dict(state)
    assert_close([next(second)[0] for _ in range(20)], wanted)


# --------------------------------------------------------------- schedules
def test_linear_to_zero():
    f = train.linear_to_zero(10, warmup=2)
    assert_close([f(s) for s in (0, 1, 2, 6, 9, 10, 99)],
                 [0.5, 1.0, 1.0, 0.5, 0.125, 0.0, 0.0])
    assert train.linear_to_zero(4)(0) == 1.0


def test_cosine():
    f = train.cosine(12, warmup=2, floor=0.1)
    assert_close([f(s) for s in (0, 1, 2, 7, 12, 50)],
                 [0.5, 1.0, 1.0, 0.55, 0.1, 0.1])


@pytest.mark.parametrize("make", [train.linear_to_zero, train.cosine])
def test_schedules_refuse_a_warmup_as_long_as_the_run(make):
    with pytest.raises(ValueError, match="warmup"):
        make(10, warmup=10)
    with pytest.raises(ValueError, match="warmup=-1"):
        make(10, warmup=-1)
    assert make(10, warmup=9)(8) == make(10, warmup=9)(9) == 1.0
    with pytest.raises(ValueError, match="steps"):
        make(0)


# -------------------------------------------------------------- evaluation
def test_evaluate_is_the_mean_over_everything():
    model = Table()
    torch.nn.init.normal_(model.weight, generator=generator())
    x, y = TEXT[:-1], TEXT[1:]
    wanted = F.cross_entropy(model.weight[x], y).item()
    for size in (1, 7, 100, 8192):  # unequal last batch must not count more
        assert_close(train.evaluate(model, x, y, size), wanted)
    T = 13
    assert_close(train.evaluate(model, x.view(-1, T), y.view(-1, T), 50),
                 wanted)


def test_evaluate_leaves_out_ignored_targets():
    model = Table()
    torch.nn.init.normal_(model.weight, generator=generator())
    x, y = TEXT[:-1].view(-1, 13), TEXT[1:].view(-1, 13).clone()
    y[:, 5:] = train.IGNORE
    wanted = F.cross_entropy(model.weight[x[:, :5]].flatten(0, 1),
                             y[:, :5].flatten()).item()
    assert_close(train.evaluate(model, x, y, 30), wanted)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        train.evaluate(model, x, torch.full_like(y, train.IGNORE))


@pytest.mark.parametrize("batch_size", [1, 8, 8192])
def test_losses_of_every_target_in_order(batch_size):
    model = Table(drop=0.5)
    model.weight.data = torch.randn(5, 5, generator=generator())
    x, y = TEXT[:24].view(6, 4), TEXT[1:25].view(6, 4).clone()
    y[2, 1] = y[5, 3] = train.IGNORE
    out = train.losses(model, x, y, batch_size)
    assert model.training and out.shape == (22,) and not out.requires_grad
    probs = model.weight.detach().log_softmax(1)
    wanted = [-probs[a, b] for a, b in zip(x.flatten(), y.flatten(),
                                           strict=True) if b >= 0]
    assert_close(out, torch.stack(wanted))
    assert_close(out.mean().item(), train.evaluate(model, x, y))
    one = train.losses(Window(), TEXT[:6].view(3, 2), TEXT[:3], batch_size)
    assert_close(one, torch.full((3,), math.log(5)))


def test_evaluate_uses_eval_mode_and_puts_it_back():
    model = Table(drop=0.9)
    torch.nn.init.normal_(model.weight, generator=generator())
    x, y = TEXT[:-1], TEXT[1:]
    model.train()
    wanted = F.cross_entropy(model.weight[x], y).item()
    assert_close(train.evaluate(model, x, y), wanted)
    assert model.training
    model.eval()
    train.evaluate(model, x, y)
    assert not model.training
    assert model.weight.grad is None


@pytest.mark.parametrize("measure", [train.evaluate, train.losses])
def test_the_mode_comes_back_even_after_an_error(measure):
    model, x = Table(), TEXT[:4].view(2, 2)
    for training in (True, False):
        model.train(training)
        with pytest.raises(ValueError, match="targets of shape"):
            measure(model, x, x[:, :1])
        assert model.training == training


@pytest.mark.parametrize("measure", [train.evaluate, train.losses])
def test_batch_size_bounds_what_runs_at_once(measure):
    seen, table = [], torch.zeros(5, 5)

    def model(idx):  # a model need not be a module
        seen.append(idx.numel())
        return table[idx]
    x = TEXT[:91].view(7, 13)
    for size, wanted in ((40, [39, 39, 13]), (8, [13] * 7)):
        seen.clear()
        out = measure(model, x, x, size)
        assert_close(torch.as_tensor(out).mean().item(), math.log(5))
        assert seen == wanted
    seen.clear()
    measure(lambda idx: model(idx)[:, 0], x, x[:, 0], 4)  # windows
    assert seen == [4 * 13, 3 * 13]
    with pytest.raises(ValueError, match="batch_size=0"):
        measure(model, x, x, 0)


def test_losses_of_half_precision_logits_are_computed_in_full():
    logits = torch.randn(300, 5, generator=generator()).bfloat16() * 9
    x, y = torch.arange(300), torch.arange(300) % 5
    wanted = F.cross_entropy(logits.float(), y).item()
    assert_close(train.evaluate(lambda i: logits[i], x, y), wanted,
                 rtol=1e-6, atol=0)


def test_a_share_of_the_evaluation():
    """Process 1 of 3: its rows are summed, the count is that of all."""
    class World:
        rank, size = 1, 3

        def sum(self, total):
            return total + 100.0  # what the others have
    table = torch.randn(5, 5, generator=generator())
    x, y = TEXT[:7], TEXT[1:8]
    own = F.cross_entropy(table[x[[1, 4]]], y[[1, 4]], reduction="sum")
    out = train.evaluate(lambda i: table[i], x, y, world=World())
    assert_close(out, (own.item() + 100) / 7)


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"\(4, 3, 5\)"):
        train.evaluate(Table(), torch.zeros(4, 3).long(),
                       torch.zeros(4).long())
    with pytest.raises(ValueError, match="one row per example"):
        train.evaluate(Table(), TEXT[:4], TEXT[:3])


# -------------------------------------------------------------------- fit
def start(drop=0.0, seed=0, lr=0.1, kind=torch.optim.AdamW):
    torch.manual_seed(seed)
    model = Table(drop=drop)
    optimizer = kind(model.parameters(), lr=lr)
    return model, optimizer, train.TextBatches(TEXT, 8, 4, generator(seed))


def test_fit_learns_the_table_of_counts():
    model, optimizer, batches = start()
    history = train.fit(model, batches, optimizer, 300, log=False,
                        schedule=train.linear_to_zero(300))
    counts = torch.zeros(5, 5)
    counts.index_put_((TEXT[:-1], TEXT[1:]), torch.tensor(1.0),
                      accumulate=True)
    probs = counts / counts.sum(1, keepdim=True)
    assert_close(model.weight.softmax(1), probs, atol=0.03, rtol=0)
    assert len(history.losses) == 300
    assert_close(history.losses[0], math.log(5))
    assert history.seconds > 0


def test_fit_is_the_plain_loop():
    model, optimizer, batches = start(lr=0.5, kind=torch.optim.SGD)
    factor = train.linear_to_zero(20, warmup=3)
    train.fit(model, batches, optimizer, 20, schedule=factor, log=False)
    twin, _, batches = start()
    for step in range(20):
        xb, yb = next(batches)
        loss = F.cross_entropy(twin(xb).view(-1, 5), yb.view(-1))
        (grad,) = torch.autograd.grad(loss, twin.weight)
        twin.weight.data -= 0.5 * factor(step) * grad
    assert_close(model.weight, twin.weight)
    assert optimizer.param_groups[0]["lr"] == 0.5  # as the reader set it


def test_fit_takes_several_optimizers():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4),
                                torch.nn.Linear(4, 5))
    before = [p.clone() for p in model.parameters()]
    both = [torch.optim.SGD(model[0].parameters(), lr=0.1),
            torch.optim.AdamW(model[1].parameters(), lr=0.1)]
    train.fit(model, train.TextBatches(TEXT, 8, 4), both, 3, log=False)
    for old, p in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, p)


def test_the_schedule_scales_every_group_of_every_optimizer():
    a, b, c = (torch.nn.Parameter(torch.zeros(())) for _ in range(3))
    both = [torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 3.0}],
                            lr=1.0), torch.optim.SGD([c], lr=5.0)]
    for p in (a, b, c):
        p.grad = torch.tensor(-1.0)
    groups = [g for o in both for g in o.param_groups]
    train._step(both, groups, lambda step: step / 10, 2)
    assert_close([p.item() for p in (a, b, c)], [0.2, 0.6, 1.0])
    assert [g["lr"] for g in groups] == [1.0, 3.0, 5.0]

    def broken():
        raise KeyboardInterrupt
    both[1].step = broken
    with pytest.raises(KeyboardInterrupt):
        train._step(both, groups, lambda step: 0.5, 2)
    assert [g["lr"] for g in groups] == [1.0, 3.0, 5.0]


def test_fit_trains_in_training_mode():
    model, optimizer, batches = start(drop=0.5)
    train.fit(model.eval(), batches, optimizer, 2, log=False)
    assert model.training


def test_fit_works_on_models_of_windows():
    model = Window()
    x, y = TEXT[:-1].unfold(0, 2, 1), TEXT[2:]
    x = x[:len(y)]
    history = train.fit(
        model, train.Batches(x, y, 50, generator()),
        torch.optim.AdamW(model.parameters(), lr=0.1), 100, log=False,
        val=(x, y))
    assert history.val[0][0] == 100 and history.val[0][1] < 0.9


def test_fit_clips_the_gradient():
    model, optimizer, batches = start(lr=1.0, kind=torch.optim.SGD)
    train.fit(model, batches, optimizer, 1, clip=1e-3, log=False)
    assert_close(model.weight.norm().item(), 1e-3, rtol=1e-3, atol=0)


def test_fit_keeps_the_best():
    model, optimizer, batches = start(lr=3.0, kind=torch.optim.SGD)
    val = (TEXT[:-1].view(1, -1), TEXT[1:].view(1, -1))

    def wild(step):  # good steps, then ruinous ones
        return 1.0 if step < 30 else -3.0
    history = train.fit(model, batches, optimizer, 60, schedule=wild,
                        val=val, eval_every=10, keep_best=True, log=False)
    assert [s for s, _ in history.val] == [10, 20, 30, 40, 50, 60]
    assert history.best == min(history.val, key=lambda p: p[1])
    assert history.best[0] <= 30
    assert_close(train.evaluate(model, *val), history.best[1])
    assert history.val[-1][1] > history.best[1] + 0.1
    model, optimizer, batches = start(lr=3.0, kind=torch.optim.SGD)
    history = train.fit(model, batches, optimizer, 60, schedule=wild,
                        val=val, eval_every=10, log=False)  # unasked
    assert_close(train.evaluate(model, *val), history.val[-1][1])
    model.load_state_dict(history.best_state)
    assert_close(train.evaluate(model, *val), history.best[1])
    with pytest.raises(ValueError, match="val"):
        train.fit(model, batches, optimizer, 3, keep_best=True)


@pytest.mark.parametrize("steps, eval_every", [
    (1, None), (9, 2), (10, None), (11, None), (99, 7), (1000, 1),
    (1000, 100), (1000, 99)])
def test_fit_prints_at_most_ten_lines(capsys, steps, eval_every):
    model, optimizer, batches = start()
    val = (TEXT[:13].view(1, -1), TEXT[1:14].view(1, -1))
    train.fit(model, batches, optimizer, steps, val=val,
              eval_every=eval_every)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 10
    assert lines[-1].startswith(f"step {steps}/{steps}")
    assert "val" in lines[-1]
    train.fit(model, batches, optimizer, steps, log=False)
    assert capsys.readouterr().out == ""


def test_of_equal_losses_the_first_is_the_best(monkeypatch):
    monkeypatch.setattr(train, "evaluate", lambda *_, **__: 1.5)
    model, optimizer, batches = start()
    history = train.fit(model, batches, optimizer, 6, val=(TEXT, TEXT),
                        eval_every=2, log=False)
    assert history.val == [(2, 1.5), (4, 1.5), (6, 1.5)]
    assert history.best == (2, 1.5)


class Clock:
    """Time as the test wants it: each batch takes `costs(n)` seconds."""

    def __init__(self, monkeypatch, batches, costs):
        self.now, self.drawn = 100.0, 0
        self.batches, self.costs = batches, costs
        monkeypatch.setattr(train.time, "perf_counter", lambda: self.now)

    def __next__(self):
        self.now += self.costs(self.drawn)
        self.drawn += 1
        return next(self.batches)


@pytest.mark.parametrize("slow", [1.0, 4.0])
def test_the_clock_rules(monkeypatch, slow):
    """40 steps were thought to fit; half-way the machine turns slow."""
    model, optimizer, batches = start()
    clock = Clock(monkeypatch, batches, lambda n: 0.25 if n < 20 else
                  0.25 * slow)
    seen = []

    def schedule(step):
        seen.append(step)
        return train.linear_to_zero(40, 4)(step)
    h = train.fit(model, clock, optimizer, 40, schedule=schedule,
                  seconds=10.0, log=False)
    assert len(h.losses) == clock.drawn == (40 if slow == 1 else 25)
    assert seen[:20] == list(range(20))
    assert seen[20:] == ([*range(20, 40)] if slow == 1
                         else [20, 24, 28, 32, 36])
    assert h.done == 40 and h.seconds == pytest.approx(10.0)


def test_the_clock_rules_the_rest_of_a_run(monkeypatch, capsys):
    model, optimizer, batches = start()
    clock = Clock(monkeypatch, batches, lambda n: 0.5)
    val = (TEXT[:13].view(1, -1), TEXT[1:14].view(1, -1))

    def evaluate(*_, **__):
        clock.now += 7.0  # does not count
        return 1.0
    monkeypatch.setattr(train, "evaluate", evaluate)
    h = train.fit(model, clock, optimizer, 100, start=60, seconds=4.0,
                  val=val, eval_every=20)
    assert len(h.losses) == 8 and h.done == 100
    assert [s for s, _ in h.val] == [80, 100]
    assert h.seconds == pytest.approx(4.0)
    lines = capsys.readouterr().out.splitlines()
    assert " 80% of the time, step 4  train" in lines[-2]
    assert "2.0 s, about 2 s to go" in lines[-2]
    assert lines[-1].startswith("100% of the time, step 8")


def test_processes_agree_on_the_time():
    class Two:  # the other one has spent 0.75 of its time
        size = 2

        def sum(self, share):
            return share + 0.75
    assert train._agree(0.25, Two()) == 0.5
    assert train._agree(0.25, None) == 0.25


def test_where_a_run_ended():
    model, optimizer, batches = start()
    assert train.fit(model, batches, optimizer, 7, log=False).done == 7
    h = train.fit(model, batches, optimizer, 9, start=7, log=False)
    assert h.done == 9 and len(h.losses) == 2


def test_the_lines_of_a_run(monkeypatch, capsys):
    model, optimizer, batches = start()
    clock = Clock(monkeypatch, batches, lambda n: 0.5)

    def evaluate(*_, **__):
        clock.now += 90.0  # does not count
        return 1.25
    monkeypatch.setattr(train, "evaluate", evaluate)
    h = train.fit(model, clock, optimizer, 36, val=(TEXT, TEXT),
                  eval_every=18)
    assert_close(h.seconds, 18.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # 18 s: too short to promise anything
    halves = [sum(part) / 18 for part in (h.losses[:18], h.losses[18:])]
    assert lines == [
        f"step 18/36  train {halves[0]:.4f}  val 1.2500  9.0 s, "
        f"about 9 s to go",
        f"step 36/36  train {halves[1]:.4f}  val 1.2500  18.0 s"]
    clock = Clock(monkeypatch, batches, lambda n: 2.0)
    train.fit(model, clock, optimizer, 3)
    ends = [s.split("  ")[-1] for s in capsys.readouterr().out.splitlines()]
    assert ends == ["2.0 s, about 4 s to go", "4.0 s, about 2 s to go",
                    "6.0 s"]


@pytest.mark.parametrize("cost, promised", [(2.0, 60), (0.7, 21),
                                            (0.65, None)])
def test_the_promise_by_hand(monkeypatch, capsys, cost, promised):
    """Only a run of more than 20 s is worth one."""
    model, optimizer, batches = start()
    clock = Clock(monkeypatch, batches, lambda n: cost)
    train.fit(model, clock, optimizer, 40, start=10)
    told = [line for line in capsys.readouterr().out.splitlines()
            if "will take" in line]
    assert told == ([] if promised is None else [
        f"30 steps will take about {promised} s here; interrupt when you "
        f"like"])


def test_fit_says_how_long_it_will_take(capsys, monkeypatch):
    clock = iter(i * 2.0 for i in range(10_000))
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(clock))
    model, optimizer, batches = start()
    train.fit(model, batches, optimizer, 30)
    lines = capsys.readouterr().out.splitlines()
    assert "30 steps will take about" in lines[0]
    assert len(lines) <= 10


def test_ctrl_c_keeps_what_was_learned(capsys):
    model, optimizer, batches = start()

    class Impatient:
        def __next__(self, left=[5]):  # noqa: B006
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return next(batches)
    history = train.fit(model, Impatient(), optimizer, 100, start=20)
    assert history.interrupted and len(history.losses) == 5
    assert history.done == 25
    assert model.weight.abs().sum() > 0
    assert "after 25 steps" in capsys.readouterr().out
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not train.fit(model, batches, optimizer, 1,
                         log=False).interrupted


def test_fit_stops_at_a_loss_that_is_not_finite():
    model, optimizer, batches = start()
    model.weight.data[0, 0] = math.inf
    with pytest.raises(ValueError, match="step 0.*learning rate"):
        train.fit(model, batches, optimizer, 5, log=False)
    with pytest.raises(ValueError, match="at step 3:"):  # taken up again
        train.fit(model, batches, optimizer, 5, start=3, log=False)


def test_a_lost_run_ends_at_its_next_line():
    model, optimizer, batches = start(lr=0.1)
    drawn = []

    class Poison:
        def __next__(self):
            drawn.append(1)
            if len(drawn) == 14:
                model.weight.data.fill_(math.nan)
            return next(batches)
    with pytest.raises(ValueError, match="nan at step 13"):
        train.fit(model, Poison(), optimizer, 90, log=False)
    assert len(drawn) == 20  # a line every 10 steps
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("wrong", [
    {"steps": 0}, {"steps": 5, "start": 6}, {"steps": 5, "start": -1},
    {"steps": 5, "eval_every": 0},
    {"steps": 5, "eval_every": 2}, {"steps": 5, "seconds": 0.0}])
def test_fit_refuses_bad_counts(wrong):
    model, optimizer, batches = start()
    with pytest.raises(ValueError):
        train.fit(model, batches, optimizer, **wrong)


@pytest.mark.parametrize("place, thing, says", [
    ("batches", torch.utils.data.DataLoader(torch.arange(4)), "DataLoader"),
    ("optimizer", "adam", "'adam' is no optimizer"),
    ("schedule", 0.5, "schedule is a float"),
    ("val", torch.zeros(4, 2), "pair"),
    ("val", (torch.zeros(4),), "pair")])
def test_fit_refuses_what_keras_would_take(place, thing, says):
    model, optimizer, batches = start()
    given = {"batches": batches, "optimizer": optimizer, place: thing}
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=says):
        train.fit(model, steps=3, log=False, **given)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fit_says_that_the_batches_have_ended(accumulate):
    model, optimizer, batches = start()
    few = iter([next(batches) for _ in range(3)])
    with pytest.raises(ValueError, match="came to an end"):
        train.fit(model, few, optimizer, 4, accumulate=accumulate, log=False)


# ------------------------------------------------------------- checkpoints
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_run_goes_on_exactly(tmp_path, kind):
    path, schedule = tmp_path / "run.npz", train.linear_to_zero(40, 5)
    whole = start(drop=0.3, kind=kind)
    h = train.fit(*_run(whole), 40, schedule=schedule, log=False)

    first = start(drop=0.3, kind=kind)
    h1 = train.fit(*_run(first), 17, schedule=schedule, log=False)
    train.save(path, *first, step=17, note={"corpus": "test"})
    torch.manual_seed(99)  # as in another process
    second = start(drop=0.3, seed=5, kind=kind)
    step, note = train.load(path, *second)
    assert (step, note) == (17, {"corpus": "test"})
    h2 = train.fit(*_run(second), 40, start=step, schedule=schedule,
                   log=False)
    assert h1.losses + h2.losses == h.losses  # to the last bit
    assert torch.equal(second[0].weight, whole[0].weight)


def _run(parts):
    model, optimizer, batches = parts
    return model, batches, optimizer


def test_write_and_read_any_tree(tmp_path):
    tree = {"a": [1, 2.5, None, True, "x"], "b": (torch.arange(3),),
            0: {"c": torch.ones(2, 2, dtype=torch.bfloat16) / 3},
            "t": torch.randn(2, 3).T, "bool": torch.tensor([True, False]),
            "empty": torch.empty(0), "scalar": torch.tensor(3.0)}
    train.write(tmp_path / "x.npz", tree)
    back = train.read(tmp_path / "x.npz")
    assert back["a"] == tree["a"] and list(back) == list(tree)
    assert isinstance(back["b"], tuple)
    for ours, theirs in [(back["b"][0], tree["b"][0]),
                         (back[0]["c"], tree[0]["c"]),
                         (back["t"], tree["t"]),
                         (back["bool"], tree["bool"]),
                         (back["empty"], tree["empty"]),
                         (back["scalar"], tree["scalar"])]:
        assert_close(ours, theirs, rtol=0, atol=0)
    back["b"][0][0] = 7  # ours to change
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz"]


def test_no_pickle(tmp_path):
    with pytest.raises(ValueError, match="not object"):
        train.write(tmp_path / "x.npz", {"o": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    train.write(path, {"v": 1})

    def broken(f, **arrays):
        f.write(b"half")
        raise OSError("disk full")
    monkeypatch.setattr(train.np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        train.write(path, {"v": 2})
    assert train.read(path) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "x.npz"
    train.write(path, {"v": torch.arange(5000), "n": 1})
    good = path.read_bytes()
    torch.save({"v": 1}, path)
    for bad in (b"", b"hello", good[:-100], good[:len(good) // 2],
                good[100:], path.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="x.npz is not a whole") as e:
            train.read(path)
        assert "pickle" not in str(e.value)  # numpy's advice is not ours
        assert "torch.load" in str(e.value)
    hit = bytearray(good)
    hit[good.index(torch.arange(2000, 2003).numpy().tobytes())] ^= 255
    path.write_bytes(bytes(hit))
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train.read(path)
    train.np.savez(path, a=train.np.arange(3))
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train.read(path)
    with pytest.raises(FileNotFoundError):
        train.read(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("change", [
    {"format": "other"}, {"version": 2}, {"dtypes": ["int32"]},
    {"dtypes": ["number"]}, {"tree": {"tensor": 1}}, {"tree": {}}])
def test_a_head_that_does_not_fit_is_refused(tmp_path, change):
    path = tmp_path / "x.npz"
    head = {"format": "zerohero", "version": 1, "dtypes": ["float32"],
            "tree": {"tensor": 0}}
    for extra in ({}, change):
        text = json.dumps({**head, **extra}).encode()
        train.np.savez(path, head=train.np.frombuffer(text, "u1"),
                       t0=train.np.ones(2, "f4"))
        if not extra:
            assert_close(train.read(path), torch.ones(2))
    with pytest.raises(ValueError, match="x.npz is not a whole checkpoint"):
        train.read(path)


def test_several_optimizers_are_saved_one_by_one(tmp_path):
    def parts(seed):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Embedding(5, 4),
                                    torch.nn.Linear(4, 5))
        return model, [torch.optim.AdamW(m.parameters(), lr=seed / 10)
                       for m in model]
    model, both = parts(1)
    train.fit(model, train.TextBatches(TEXT, 8, 4), both, 3, log=False)
    train.save(tmp_path / "x.npz", model, both, step=3)
    other, theirs = parts(2)
    train.load(tmp_path / "x.npz", other, theirs)
    for a, b in zip(both, theirs, strict=True):
        assert b.param_groups[0]["lr"] == 0.1
        for p, q in zip(a.param_groups[0]["params"],
                        b.param_groups[0]["params"], strict=True):
            assert_close(a.state[p]["exp_avg"], b.state[q]["exp_avg"])
    assert_close(other.state_dict(), model.state_dict())
    with pytest.raises(ValueError, match="has no optimizer2"):
        train.load(tmp_path / "x.npz", other, [*theirs, both[0]])


def test_load_says_what_is_missing(tmp_path):
    model, optimizer, batches = start()
    path = tmp_path / "x.npz"
    train.save(path, model, step=3)
    assert train.load(path, Table()) == (3, None)
    train.save(path, model)
    assert train.load(path, Table()) == (0, None)
    train.save(path, model, step=3)
    with pytest.raises(ValueError, match="optimizer0, batches|batches"):
        train.load(path, model, optimizer, batches)
    train.write(path, [1, 2])
    with pytest.raises(ValueError, match="holds no run"):
        train.load(path, model)


# ------------------------------------------------------------- name rows
NAMES = torch.tensor([0, 5, 6, 7, 0, 8, 0, 9, 9, 0, 4, 0])


def test_name_rows_by_hand():
    x, y = train.name_rows(NAMES, 0, 5)
    assert x.tolist() == [[0, 5, 6, 7, 0], [0, 8, 0, 0, 0],
                          [0, 9, 9, 0, 0], [0, 4, 0, 0, 0]]
    assert y.tolist() == [[5, 6, 7, 0, -1], [8, 0, -1, -1, -1],
                          [9, 9, 0, -1, -1], [4, 0, -1, -1, -1]]
    x, y = train.name_rows(NAMES, 0, 6, pack=True)
    assert x.tolist() == [[0, 5, 6, 7, 0, 8], [0, 9, 9, 0, 4, 0]]
    assert y.tolist() == [[5, 6, 7, 0, 8, 0], [9, 9, 0, 4, 0, -1]]
    assert train.name_rows(NAMES, 0, 4)[0].shape == (4, 4)  # just fits


@pytest.mark.parametrize("pack", [False, True])
def test_name_rows_target_every_symbol_once(pack):
    x, y = train.name_rows(NAMES, 0, 7, pack)
    kept = y != train.IGNORE
    assert_close(y[kept].sort().values, NAMES[1:].sort().values)
    assert_close(x[kept].sort().values, NAMES[:-1].sort().values)
    table = Table(10)
    torch.nn.init.normal_(table.weight)
    assert_close(train.evaluate(table, x, y),
                 train.evaluate(table, NAMES[:-1], NAMES[1:]))


def test_name_rows_refuse():
    with pytest.raises(ValueError, match="3 symbols"):
        train.name_rows(NAMES, 0, 3)
    with pytest.raises(ValueError, match="begin and end"):
        train.name_rows(NAMES[1:], 0, 5)
    with pytest.raises(ValueError, match="begin and end"):
        train.name_rows(NAMES[:-1], 0, 5)
    with pytest.raises(ValueError, match="at least one name"):
        train.name_rows(NAMES[:1], 0, 5)
    assert train.name_rows(NAMES[-3:], 0, 2)[0].tolist() == [[0, 4]]
    _, y = train.name_rows(torch.tensor([0, 0]), 0, 2)  # a name of nothing
    assert y.tolist() == [[0, -1]]
