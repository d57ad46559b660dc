"""zerohero.distributed: two processes are one with the whole batch."""

import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from zerohero import distributed, train
from zerohero.distributed import Share, World

SCRIPT = '''
import sys

import torch

from zerohero import distributed, train
from zerohero.gpt import GPT, GPTConfig
from zerohero.optim import AdamW

torch.set_num_threads(1)
world = distributed.start()
g = torch.Generator().manual_seed(world.rank)  # another start on each
model = GPT(GPTConfig(7, 8, n_layer=1, n_head=2, n_embd=16,
                      bias=False), g)
different = not world.equal(model)
world.spread(model)
ids = torch.arange(200) % 7
x, y = ids[:192].view(-1, 8), ids[1:193].view(-1, 8).clone()
y[::5, :6] = -1  # rows that count less than others
batches = train.Batches(x, y, 5, torch.Generator().manual_seed(1))
history = train.fit(
    model, world.share(batches), AdamW(model.parameters(), lr=0.01), 6,
    val=(x[:3], y[:3]), eval_every=2, accumulate=2, world=world, log=False)

given = torch.tensor([world.rank + 1.0, 10.0])
numbers = world.sum(given)
assert given.tolist() == [world.rank + 1, 10]  # left as it was
norm = torch.nn.BatchNorm1d(2)
norm.running_mean += world.rank
world.spread(norm)  # buffers, too
spare = torch.nn.Parameter(torch.zeros(2))
torch.manual_seed(3)
ours = torch.nn.Linear(3, 2)
world.spread(torch.nn.ModuleList([ours]))
theirs = ours
if world.size > 1:
    theirs = torch.nn.parallel.DistributedDataParallel(ours)
data = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
theirs(data[world.rank::world.size]).square().mean().backward()
ddp = ours.weight.grad.clone()  # DDP has averaged it
ours.zero_grad()
ours(data[world.rank::world.size]).square().mean().backward()
(one,) = world.add_gradients(
    [ours.weight, spare, ours.bias], torch.tensor(1.0))

torch.save({
    "model": model.state_dict(), "losses": history.losses,
    "val": history.val, "different": different, "sum": numbers,
    "equal": world.equal(model), "batches": batches.state_dict(),
    "world": (world.rank, world.size, world.backend, world.first),
    "ddp": ddp, "ours": ours.weight.grad / one, "bias": ours.bias.grad,
    "spare": spare.grad, "mean": norm.running_mean},
    f"{sys.argv[1]}/{world.size}-{world.rank}.pt")
del theirs  # it must not outlive the processes that it talks to
world.stop()
'''


def torchrun(folder, *command):
    """Run a script or module twice, as two processes that know it."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", "2", *command], cwd=folder, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torchrun(folder, str(script), str(folder))
    with pytest.MonkeyPatch.context() as patch:  # and alone, in here
        patch.setattr(sys, "argv", ["script.py", str(folder)])
        patch.delenv("WORLD_SIZE", raising=False)
        exec(SCRIPT, {})
    return [torch.load(folder / f"{name}.pt") for name in
            ("1-0", "2-0", "2-1")]


def test_who_is_who(runs):
    alone, first, second = runs
    assert alone["world"] == (0, 1, None, True)
    gloo = "gloo" if torch.accelerator.device_count() < 2 else "nccl"
    assert first["world"] == (0, 2, gloo, True)
    assert second["world"] == (1, 2, gloo, False)


def test_both_processes_hold_the_same_model(runs):
    _, first, second = runs
    assert first["different"] and second["different"]  # before spread
    assert first["equal"] and second["equal"]
    for name, t in first["model"].items():
        assert_close(second["model"][name], t, rtol=0, atol=0)
    assert first["losses"] == second["losses"]
    assert first["val"] == second["val"]


def test_two_processes_train_like_one_with_the_whole_batch(runs):
    alone, first, second = runs
    assert_close(first["losses"], alone["losses"], rtol=1e-5, atol=1e-6)
    for name, t in alone["model"].items():
        assert_close(first["model"][name], t, rtol=1e-4, atol=1e-5)
    assert [s for s, _ in first["val"]] == [2, 4, 6]
    assert_close(torch.tensor(first["val"]), torch.tensor(alone["val"]),
                 rtol=1e-5, atol=1e-6)
    for key in ("order", "random"):
        assert torch.equal(first["batches"][key], alone["batches"][key])


def test_sums_over_processes(runs):
    for state in runs[1:]:
        assert state["sum"].tolist() == [3.0, 20.0]
        assert state["spare"] is None and state["mean"].eq(0).all()
    assert runs[0]["sum"].tolist() == [1.0, 10.0]
    assert torch.equal(runs[1]["bias"], runs[2]["bias"])


def test_summed_gradients_are_those_of_torch_ddp(runs):
    for state in runs:
        assert_close(state["ours"], state["ddp"])
    assert_close(runs[0]["ours"], runs[1]["ours"])


def test_the_command_line_on_two_processes(tmp_path):
    (tmp_path / "text.txt").write_text("To be, or not to be. " * 40)
    out = torchrun(
        tmp_path, "-m", "zerohero", "train", "text.txt", "--steps", "3",
        "--n-layer", "1", "--n-embd", "32", "--block-size", "8",
        "--batch-size", "4")
    assert out.count("saved gpt.npz") == 1  # the first one alone speaks
    assert out.count("step 3/3") == out.count("validation loss") == 1
    assert train.read(tmp_path / "gpt.npz")["step"] == 3


# ------------------------------------------------------------- alone
def test_shares_are_disjoint_and_complete():
    x = torch.arange(7)
    parts = [next(Share(iter([(x, x + 1)]), r, 3)) for r in range(3)]
    assert sorted(torch.cat([p[0] for p in parts]).tolist()) == x.tolist()
    for xb, yb in parts:
        assert torch.equal(yb, xb + 1) and len(xb) in (2, 3)
    with pytest.raises(ValueError, match="2 rows.*3 processes"):
        next(Share(iter([(x[:2], x[:2])]), 0, 3))
    assert next(Share(iter([(x[:3], x[:3])]), 2, 3))[0].tolist() == [2]
    for rank in (2, -1):
        with pytest.raises(ValueError, match=f"rank={rank} .*0..1"):
            Share(iter([]), rank, 2)


def test_a_share_continues_from_its_state():
    ids = torch.arange(50)

    def share(seed):
        g = torch.Generator().manual_seed(seed)
        return Share(train.TextBatches(ids, 4, 2, g), 1, 2)

    a, b = share(1), share(2)
    next(a)
    b.load_state_dict(a.state_dict())
    assert torch.equal(next(a)[0], next(b)[0])
    assert iter(a) is a


def test_alone_nothing_happens(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = distributed.start()
    assert world == World(0, 1, None) and world.first
    batches, layer = iter([]), torch.nn.Linear(2, 2)
    assert world.share(batches) is batches
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    (n,) = world.add_gradients(list(layer.parameters()), torch.tensor(3.0))
    assert n == 3 and torch.equal(layer.weight.grad, before)
    world.spread(layer)
    assert world.equal(layer)
    world.stop()


def test_a_world_without_torchrun(monkeypatch):
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="RANK.*torchrun"):
        distributed.start()
    for name in names:  # a single one is missing
        with monkeypatch.context() as patch:
            for other in names:
                patch.setenv(other, "1")
            patch.delenv(name)
            with pytest.raises(ValueError, match=f"but {name} not set"):
                distributed.start()


def test_a_message_between_gpus_is_a_copy_on_the_device():
    t = torch.ones(3, requires_grad=True)
    out = World(0, 2, "nccl")._stage(t)
    assert out.device.type == train.device().type and out.tolist() == [1] * 3
    assert out.data_ptr() != t.data_ptr() and not out.requires_grad


@pytest.mark.parametrize("gpus, size, here, backend", [
    (0, 2, None, "gloo"), (2, 2, None, "nccl"), (2, 4, "2", "nccl"),
    (4, 2, None, "nccl"), (1, 2, None, "gloo"), (2, 3, None, "gloo"),
    (2, 6, "3", "gloo")])
def test_a_gpu_for_each_process_or_gloo(monkeypatch, gpus, size, here,
                                        backend):
    """`here` of the `size` processes run on this machine (None: all)."""
    begun, taken = [], []
    last = size - 1
    local = last % int(here or size)
    environment = {"WORLD_SIZE": size, "RANK": last, "LOCAL_RANK": local,
                   "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.accelerator, "set_device_index", taken.append)
    monkeypatch.setattr(distributed.dist, "get_default_backend_for_device",
                        lambda device: "nccl" if gpus else "gloo")
    monkeypatch.setattr(
        distributed.dist, "init_process_group",
        lambda backend, rank, world_size: begun.append(
            (backend, rank, world_size)))
    world = distributed.start()
    assert world == World(last, size, backend) and not world.first
    assert begun == [(backend, last, size)]
    assert taken == ([local % gpus] if gpus else [])


# -------------------------------------------------- fit(accumulate=)
def setting(rows, seed=0):
    g = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Embedding(9, 6),
                                torch.nn.Linear(6, 9))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=g)
    x = torch.randint(9, (rows, 5), generator=g)
    y = torch.randint(-1, 9, (rows, 5), generator=g)  # -1: not counted
    return model, x, y


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulated_small_batches_are_one_large_batch(clip):
    results = []
    for parts in (1, 4):
        model, x, y = setting(24)
        size = 8 // parts
        pieces = zip(x.split(size), y.split(size), strict=True)
        h = train.fit(model, pieces, torch.optim.SGD(model.parameters(), 0.5),
                      3, accumulate=parts, clip=clip, log=False)
        results.append((h.losses, model.state_dict()))
    assert len(results[1][0]) == 3
    assert_close(results[0][0], results[1][0])
    assert_close(results[0][1], results[1][1])


def test_accumulate_is_at_least_one():
    model, x, y = setting(2)
    with pytest.raises(ValueError, match="accumulate"):
        train.fit(model, iter([(x, y)]),
                  torch.optim.SGD(model.parameters(), 0.5), 1, accumulate=0)
