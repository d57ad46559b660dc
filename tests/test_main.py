"""The command line, on a small text of the reader's own."""

import math
import time
from contextlib import contextmanager

import pytest
import torch

from zerohero import data, generate, ladder, runs, scaling, tokens, train
from zerohero.__main__ import main
from zerohero.bigrams import KneserNey
from zerohero.gpt import GPT, GPTConfig
from zerohero.runs import DTYPES, MOST_PASSES, open_model
from zerohero.sequences import MLP
from zerohero.wavenet import Tree

SMALL = ["--block-size", "8", "--batch-size", "4", "--n-layer", "1"]
SMALL += ["--n-head", "2", "--n-embd", "16"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sea.txt"
    path.write_text("the sea, the sea, the open sea\n" * 60)
    return path


@pytest.fixture
def pets(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_text("".join(f"pet{a}{b}\n" for a in "abcdefgh"
                            for b in "ijklmnop"))
    return path


@pytest.fixture
def trained(text, tmp_path, capsys):
    out = tmp_path / "gpt.npz"
    command = ["train", str(text), "--steps", "12", "--out", str(out)]
    assert main(command + SMALL) == 0
    shown = capsys.readouterr().out
    assert "validation loss" in shown and str(out) in shown
    return out


def test_train_then_sample(trained, text, tmp_path, capsys):
    command = ["sample", str(trained), "--prompt", "the", "--chars", "40"]
    assert main([*command, "--seed", "3"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("the") and len(first.rstrip("\n")) <= 43
    assert set(first) <= set(text.read_text())
    assert main([*command, "--seed", "3"]) == 0
    assert capsys.readouterr().out == first
    assert main([*command, "--seed", "4"]) == 0
    assert capsys.readouterr().out != first


@contextmanager
def stopping(monkeypatch, kind, after):
    """Ctrl-C when the batches of `kind` are asked once more than `after`."""
    whole, calls = kind.__next__, []

    def stop(self):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return whole(self)

    with monkeypatch.context() as m:
        m.setattr(kind, "__next__", stop)
        yield


def sky(tmp_path, monkeypatch):
    """Another text, and the rates of the runs that do not learn from it."""
    other, rates = tmp_path / "sky.txt", []
    other.write_text("the sky, a sky, Zen\n" * 60)

    def look(model, batches, optimizers, steps, **options):
        rates.append([g["lr"] for o in optimizers for g in o.param_groups])
        return train.History([1.0], done=steps)

    monkeypatch.setattr(train, "fit", look)
    return other, rates


def rebuilt(path):
    """The model in a checkpoint, as anyone could make it from the note."""
    state = train.read(path)
    sizes = dict(state["note"]["config"])
    sizes["dtype"] = DTYPES[sizes["dtype"]]
    model = GPT(GPTConfig(**sizes))
    model.load_state_dict(state["model"])
    return model, state["note"]


def test_what_it_says_is_what_it_saved(text, tmp_path, capsys):
    out = tmp_path / "gpt.npz"
    command = ["train", str(text), "--steps", "12", "--out", str(out)]
    assert main([*command, *SMALL, "--dropout", "0.25"]) == 0
    model, note = rebuilt(out)
    c, corpus = model.config, data.load(text)
    assert (c.block_size, c.n_layer, c.n_head, c.n_embd) == (8, 1, 2, 16)
    assert (c.vocab_size, c.boundary, c.dropout) == (11, None, 0.25)
    assert c.smear == 2
    assert note["symbols"] == sorted(set(text.read_text()))
    assert (note["corpus"], note["seconds"]) == (corpus.name, None)
    assert (note["batch_size"], note["steps"]) == (4, 12)
    loss = train.evaluate(model, *data.chunks(corpus.val, 8))
    count = sum(p.numel() for p in model.parameters())
    first, *_, before, last = capsys.readouterr().out.splitlines()
    assert first == (f"{count:,} parameters, {corpus.name}, 12 steps of "
                     f"4 x 8 symbols")
    assert before == (
        f"validation loss {loss:.3f} nats per symbol, "
        f"{loss / math.log(2):.2f} bits per character (a blind guess: "
        f"{math.log(11):.3f} nats)")
    assert last == f"saved {out}"


def test_the_seed_decides_everything(text, tmp_path):
    weights = []
    for i, seed in enumerate(("5", "5", "6", "1", None)):
        torch.manual_seed(i)  # what was drawn before does not matter
        out = tmp_path / f"{i}.npz"
        command = ["train", str(text), "--steps", "3", "--out", str(out)]
        given = [] if seed is None else ["--seed", seed]
        main([*command, *SMALL, "--dropout", "0.5", *given])
        weights.append(train.read(out)["model"])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0]["embed.weight"],
                           weights[2]["embed.weight"])
    torch.testing.assert_close(weights[3], weights[4], rtol=0, atol=0)


@pytest.mark.parametrize("name", runs.KINDS)
@pytest.mark.parametrize("names", [False, True])
def test_batches_are_drawn_by_their_seed(name, names, text, pets):
    kind = runs.KINDS[name]
    corpus = data.load(pets, "names") if names else data.load(text)
    config, _ = kind.configure(corpus, 0, {})
    x, y, z = (next(kind.batches(corpus, config, 4, seed))[0]
               for seed in (1, 1, 2))
    assert x.equal(y) and not x.equal(z)
    first = config.block_size - 1 if name != "gpt" and not names else 0
    assert kind.unasked(corpus, config) == first
    if name != "gpt":
        drawn = isinstance(kind.batches(corpus, config, 4, 1), runs.Draws)
        assert drawn != names  # names are read in turn, all of them
        model = kind.model(config)
        muon, adam = ([p for g in o.param_groups for p in g["params"]]
                      for o in kind.optimizers(model))
        assert any(p is model.embedding.weight for p in adam)
        assert all(p.dim() == 2 for p in muon)
        assert len(muon) + len(adam) == len(list(model.parameters()))


def test_weights_batches_and_dropout_follow_the_seed(
    text, tmp_path, monkeypatch
):
    seen = []

    def look(model, batches, optimizers, steps, **options):
        table = model.embed.weight.detach().clone()
        seen.append((table, next(batches)[0], torch.rand(9)))
        return train.History([1.0], done=steps)

    monkeypatch.setattr(train, "fit", look)
    for seed in ("5", "5", "6"):
        command = ["train", str(text), "--steps", "1", "--seed", seed]
        main([*command, *SMALL, "--out", str(tmp_path / "x.npz")])
    for first, second, third in zip(*seen, strict=True):
        assert first.equal(second) and not first.equal(third)


@pytest.mark.parametrize("steps, warmup, often", [
    (1, 0, False), (2, 1, False), (30, 2, False), (418, 10, False),
    (419, 10, True)])
def test_the_schedule_and_when_to_validate(
    steps, warmup, often, text, tmp_path, monkeypatch
):
    """The 1,674 symbols are read 8 times in 418.5 steps of 4 x 8."""
    asked = {}

    def fit(model, batches, optimizer, steps, **options):
        asked.update(options, steps=steps)
        return train.History()

    monkeypatch.setattr(train, "fit", fit)
    out = ["--out", str(tmp_path / "x.npz")]
    assert main(["train", str(text), "--steps", str(steps), *out, *SMALL]) == 0
    assert asked["steps"] == steps and asked["start"] == 0
    factors = [asked["schedule"](s) for s in range(steps + 1)]
    assert factors[:warmup] == [(s + 1) / warmup for s in range(warmup)]
    assert factors[warmup] == 1 and factors[-1] == 0
    assert asked["seconds"] is None
    assert asked["eval_every"] == (52 if often else None)
    assert (asked["val"] is not None) == often


def test_the_settings_of_a_sample_reach_it(trained, monkeypatch, capsys):
    asked = []

    def spy(model, corpus, n_chars, prompt, **settings):
        source = settings.pop("generator")
        seed = None if source is None else source.initial_seed()
        weights = model.state_dict(), train.read(trained)["model"]
        torch.testing.assert_close(*weights, rtol=0, atol=0)
        assert "".join(corpus.vocab.symbols) == "\n ,aehnopst"
        asked.append((n_chars, prompt, seed, settings))
        return "written"

    monkeypatch.setattr(generate, "sample_text", spy)
    main(["sample", str(trained)])
    main(["sample", str(trained), "--prompt", "sea", "--chars", "7",
          "--temperature", "0.5", "--top-k", "3", "--top-p", "0.9",
          "--seed", "4"])
    assert asked == [
        (500, "\n", None, {"block_size": 8, "temperature": 1.0, "cache": True,
                           "top_k": None, "top_p": None}),
        (7, "sea", 4, {"block_size": 8, "temperature": 0.5, "cache": True,
                       "top_k": 3, "top_p": 0.9})]
    assert capsys.readouterr().out == "written\nwritten\n"


def test_greedy_sampling_needs_no_seed(trained, capsys):
    command = ["sample", str(trained), "--prompt", "the", "--top-k", "1"]
    main(command)
    first = capsys.readouterr().out
    main(command)
    assert capsys.readouterr().out == first


def test_a_plot_is_drawn(text, tmp_path, monkeypatch):
    plot = tmp_path / "pictures" / "curve.svg"
    out = tmp_path / "p.npz"
    command = ["train", str(text), "--steps", "6", "--out", str(out)]
    assert main([*command, "--plot", str(plot), *SMALL]) == 0
    assert "<svg" in plot.read_text()
    assert main([*command, "--plot", str(tmp_path), *SMALL]) == 1
    monkeypatch.setattr(train, "fit", lambda *_, **options: train.History())
    plot = tmp_path / "empty.svg"  # no time was left for a single step
    assert main([*command, "--plot", str(plot), *SMALL]) == 0
    assert not plot.exists()


def test_interrupted_and_resumed_is_uninterrupted(
    trained, text, tmp_path, monkeypatch, capsys
):
    """Half a run, Ctrl-C, the other half: the weights of one whole run."""
    out = tmp_path / "half.npz"
    command = ["train", str(text), "--steps", "12", "--out", str(out)]
    with stopping(monkeypatch, train.TextBatches, 6):
        assert main(command + SMALL) == 0
    assert train.read(out)["step"] == 6
    assert "50% of the way; --resume goes on" in capsys.readouterr().out
    assert main([*command[:2], "--out", str(out), "--resume"]) == 0
    assert ", 6 steps of 4 x 8" in capsys.readouterr().out
    assert not (tmp_path / "half.before.npz").exists()
    torch.testing.assert_close(
        train.read(out)["model"], train.read(trained)["model"]
    )


def test_minutes_become_steps(text, tmp_path, capsys):
    out = tmp_path / "m.npz"
    command = ["train", str(text), "--minutes", "0.002", "--out", str(out)]
    assert main(command + SMALL) == 0
    note = train.read(out)["note"]
    assert note["steps"] >= 20 and 0.06 <= note["seconds"] <= 0.12
    shown = capsys.readouterr().out
    assert "% of the time" in shown
    assert f", about {note['steps']} steps of 4 x 8 symbols" in shown
    assert train.read(out)["step"] == note["steps"]


def test_an_interrupted_timed_run_takes_the_rest_of_its_time(
    text, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "m.npz"
    command = ["train", str(text), "--minutes", "10", "--out", str(out)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    with stopping(monkeypatch, train.TextBatches, 14):  # ten for the trial
        assert main(command + SMALL) == 0
    state = train.read(out)
    steps = state["note"]["steps"]
    state["step"] = steps - steps // 1000  # as if nearly done
    train.write(out, state)
    asked = []

    def fit(*args, seconds, **options):
        asked.append(seconds)
        return train.History()

    monkeypatch.setattr(train, "fit", fit)
    assert main([*command[:2], "--out", str(out), "--resume"]) == 0
    share = (steps // 1000) / steps
    torch.testing.assert_close(asked, [state["note"]["seconds"] * share])


def test_a_short_text_is_not_read_for_ever(text, tmp_path, capsys):
    out = tmp_path / "m.npz"
    command = ["train", str(text), "--minutes", "600", "--out", str(out)]
    assert main([*command, *SMALL, "--batch-size", "16"]) == 0
    assert f"{MOST_PASSES} passes" in capsys.readouterr().out
    state = train.read(out)
    assert state["step"] == state["note"]["steps"]
    reads = state["note"]["steps"] * 16 * 8
    assert 0.95 < reads / (MOST_PASSES * 0.9 * 1860) < 1.05


def test_the_faster_number_of_threads_is_kept(text, tmp_path, monkeypatch):
    now = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: now.insert(0, n))
    seen = []

    def fit(model, batches, optimizer, steps, **options):
        seen.append(now[0])
        assert len(next(batches)[0]) == 4  # also when steps are timed
        # contention: four threads take longer than one
        return train.History([1.0], seconds=3.0 if now[0] > 1 else 1.5)

    monkeypatch.setattr(train, "fit", fit)
    command = ["train", str(text), "--out"]  # for a minute
    monkeypatch.setattr(train, "threads", lambda: 4)
    assert main([*command, str(tmp_path / "x.npz"), *SMALL]) == 0
    assert sorted(set(seen[:4])) == [1, 4] and seen[-1] == 1
    # a step took 0.5 s: 120 fit into a minute
    assert train.read(tmp_path / "x.npz")["note"]["steps"] == 120
    short = [*SMALL, "--minutes", "0.05"]  # 6 fit, but so few are of no use
    assert main([*command, str(tmp_path / "y.npz"), *short]) == 0
    assert train.read(tmp_path / "y.npz")["note"]["steps"] == 20


def test_the_best_weights_of_a_small_text_are_kept(
    text, tmp_path, monkeypatch
):
    """A text read often: validation turns up, the weights before stay."""
    kept, values = [], iter([3.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0,
                             11.0, 12.0, 13.0])

    def evaluate(model, x, y, **options):
        kept.append({k: t.clone() for k, t in model.state_dict().items()})
        return next(values)

    monkeypatch.setattr(train, "evaluate", evaluate)
    out = tmp_path / "best.npz"
    command = ["train", str(text), "--steps", "130", "--out", str(out)]
    assert main([*command, *SMALL, "--batch-size", "16"]) == 0
    saved = train.read(out)["model"]
    torch.testing.assert_close(saved, kept[1])
    assert not torch.equal(saved["embed.weight"], kept[-2]["embed.weight"])

    def stopped(model, *_, **options):  # by Ctrl-C: --resume needs the last
        best = {k: torch.zeros_like(t) for k, t in model.state_dict().items()}
        return train.History([1.0], best=(1, 2.0), best_state=best, done=5,
                             interrupted=True)

    monkeypatch.setattr(train, "fit", stopped)
    values = iter([3.0])
    assert main([*command, *SMALL]) == 0
    assert train.read(out)["model"]["embed.weight"].any()


def test_names_and_counts(tmp_path, capsys, monkeypatch):
    out = tmp_path / "names.npz"
    command = ["train", "names", "--steps", "3", "--out", str(out),
               "--counts", "--n-layer", "1", "--n-embd", "16"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    (line,) = [s for s in shown.splitlines() if "counts mixed in" in s]
    config = train.read(out)["note"]["config"]
    assert config["boundary"] == 0 and config["block_size"] == 32
    corpus = data.load("names")
    table = KneserNey(7, len(corpus.vocab)).fit(corpus.train, 0)
    assert line.endswith(f"alone {table.nll(corpus.val):.3f}")
    mixed = float(line.split("): ")[1].split(";")[0])
    net = float(shown.split("validation loss ")[1].split()[0])
    assert mixed <= table.nll(corpus.val) + 1e-3 < net
    assert main(["sample", str(out), "--chars", "9", "--prompt", "ab"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("ab") and len(written) <= 12
    assert "." not in written  # one name a line
    assert main(["sample", str(out), "--prompt", "\nal\nbo"]) == 0
    assert capsys.readouterr().out.startswith("al\nbo")
    asked = []
    monkeypatch.setattr(generate, "sample_text", lambda m, c, n, prompt, **_:
                        asked.append(prompt) or "written")
    main(["sample", str(out), "--prompt", "\nal\nbo\n"])
    assert asked == [".al.bo"]


def test_counts_of_a_text(text, tmp_path, capsys, monkeypatch):
    weighed, best_weight = [], scaling.best_weight
    monkeypatch.setattr(scaling, "best_weight", lambda *pair: (
        weighed.append(pair), best_weight(*pair))[1])
    sea = text.read_text()  # whose last part, for the test, is shuffled
    order = torch.randperm(93, generator=torch.Generator().manual_seed(1))
    text.write_text(sea[:-93] + "".join(sea[-93:][i] for i in order))
    out = tmp_path / "gpt.npz"
    command = ["train", str(text), "--steps", "30", "--out", str(out)]
    assert main([*command, "--counts", *SMALL]) == 0
    shown = capsys.readouterr().out
    corpus = data.load(text)
    n = (len(corpus.val) - 1) // 8 * 8
    table = KneserNey(7, len(corpus.vocab)).fit(corpus.train)
    counts = table.losses(corpus.val)[:n]
    assert f"alone {counts.mean():.3f}" in shown
    # the weight is the best one for the test split, the loss is validation's
    model, _ = rebuilt(out)
    probs = []
    for ids in (corpus.test, corpus.val):
        net = train.losses(model, *data.chunks(ids, 8))
        probs.append(((-net).exp(), (-table.losses(ids)[:len(net)]).exp()))
    (line,) = [s for s in shown.splitlines() if "7-gram counts" in s]
    weight = float(line.split("weight ")[1].split(")")[0])
    mixed = float(line.split("): ")[1].split(";")[0])

    def mean(w, net, counts):
        return -((1 - w) * net + w * counts).log().mean().item()

    best = min(range(101), key=lambda w: mean(w / 100, *probs[0])) / 100
    for got, expected in zip(weighed[0], probs[0], strict=True):
        torch.testing.assert_close((-got).exp(), expected)
    assert (probs[0][1] - probs[1][1]).abs().max() > 0.1  # another split
    assert abs(weight - best) < 0.02
    assert abs(mixed - mean(weight, *probs[1])) < 0.01


def test_many_symbols_take_shorter_counts(tmp_path, capsys):
    path = tmp_path / "wide.txt"  # 600**6 fits into 63 bits, 600**7 not
    path.write_text("".join(chr(0x4E00 + i % 600) for i in range(1800)))
    out = tmp_path / "gpt.npz"
    command = ["train", str(path), "--steps", "1", "--out", str(out)]
    assert main([*command, "--counts", *SMALL]) == 0
    assert "with 6-gram counts" in capsys.readouterr().out


@pytest.mark.parametrize("make", ["missing", "foreign", "damaged", "other",
                                  "strange", "newer"])
def test_a_bad_checkpoint_is_named(make, trained, tmp_path, capsys):
    path = tmp_path / "bad.npz"
    if make == "foreign":
        path.write_text("once upon a time")
    elif make == "damaged":
        path.write_bytes(trained.read_bytes()[:-200])
    elif make == "other":
        train.write(path, {"step": 1, "note": None})
    elif make in ("strange", "newer"):
        state = train.read(trained)
        config = state["note"]["config"]
        config["dtype" if make == "strange" else "n_new"] = "float7"
        train.write(path, state)
    assert main(["sample", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_resume_on_another_text_is_refused(trained, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("0123456789 abc\n" * 60)
    command = ["train", str(other), "--out", str(trained), "--resume"]
    assert main(command) == 1
    assert "symbols differ" in capsys.readouterr().err


def test_resume_of_nothing(text, tmp_path, capsys):
    out = tmp_path / "nothing.npz"
    assert main(["train", str(text), "--out", str(out), "--resume"]) == 1
    assert f"{out} does not exist" in capsys.readouterr().err


def test_unknown_symbol_in_the_prompt(trained, capsys):
    assert main(["sample", str(trained), "--prompt", "Zebra"]) == 1
    assert "'Z'" in capsys.readouterr().err


def test_a_saved_gpt_in_python(trained, text, capsys):
    model, corpus = open_model(trained)
    assert not model.training and corpus.boundary is None
    written = generate.sample_text(
        model, corpus, 30, "the", block_size=model.block_size,
        generator=torch.Generator().manual_seed(3))
    main(["sample", str(trained), "--prompt", "the", "--chars", "30",
          "--seed", "3"])
    assert capsys.readouterr().out == written + "\n"
    with pytest.raises(FileNotFoundError):
        open_model(text.with_name("nothing.npz"))
    state = train.read(trained)
    del state["note"]["model"]  # as it was when there were only GPTs
    train.write(trained, state)
    assert isinstance(open_model(trained)[0], GPT)


def test_names_of_a_file(pets, tmp_path, capsys):
    out = tmp_path / "pets.npz"
    command = ["train", str(pets), "--names", "--steps", "2", "--out",
               str(out)]
    assert main(command + SMALL[4:]) == 0
    note = train.read(out)["note"]
    assert note["config"]["boundary"] == 0 and note["symbols"][0] == "."
    capsys.readouterr()
    main(["sample", str(out), "--chars", "200", "--seed", "1"])
    assert "\n" in capsys.readouterr().out.strip()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_long_name_of_any_split_fits_into_a_row(split, pets, tmp_path):
    short = pets.read_text()
    for i in range(1000):  # one whose hash puts it there
        long = "y" * 60 + str(i)
        pets.write_text(f"{short}{long}\n")
        if long in data.load(pets, "names").words(split):
            break
    out = tmp_path / "x.npz"
    command = ["train", str(pets), "--names", "--steps", "1", "--out"]
    assert main([*command, str(out), *SMALL[4:]]) == 0
    assert open_model(out)[0].block_size == len(long) + 1


def test_the_number_format_of_the_machine_is_used(
    text, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "number_format", lambda: torch.bfloat16)
    out = tmp_path / "x.npz"
    command = ["train", str(text), "--steps", "1", "--out", str(out)]
    assert main(command + SMALL) == 0
    assert open_model(out)[0].config.dtype is torch.bfloat16


def test_tokens(text, tmp_path, capsys, monkeypatch):
    read, learn = [], tokens.train
    monkeypatch.setattr(tokens, "train", lambda text, size: (
        read.append(text), learn(text, size))[1])
    out = tmp_path / "tokens.npz"
    command = ["train", str(text), "--steps", "40", "--out", str(out)]
    assert main([*command, "--tokens", "260", *SMALL]) == 0
    corpus = data.load(text)
    tokenizer = learn(corpus.vocab.decode(corpus.train), 260)
    assert read == [corpus.vocab.decode(corpus.train)]  # nothing else
    model, empty = open_model(out)
    assert empty.vocab.merges == tokenizer.merges
    assert model.config.vocab_size == 260
    val = tokenizer.encode(corpus.vocab.decode(corpus.val))
    loss = train.evaluate(model, *data.chunks(val, 8))
    bits = tokens.bits_per_character(loss, len(val), len(corpus.val))
    assert (f"validation loss {loss:.3f} nats per symbol, {bits:.2f} bits "
            "per character") in capsys.readouterr().out
    assert main(["sample", str(out), "--prompt", "é ", "--chars", "9"]) == 0
    assert capsys.readouterr().out.startswith("é ")


def test_a_run_on_tokens_is_resumed(text, tmp_path, monkeypatch):
    half, whole = tmp_path / "half.npz", tmp_path / "whole.npz"
    command = ["train", str(text), "--steps", "6", "--tokens", "260", *SMALL]
    assert main([*command, "--out", str(whole)]) == 0
    with stopping(monkeypatch, train.TextBatches, 3):
        assert main([*command, "--out", str(half)]) == 0
    assert main([*command[:2], "--out", str(half), "--resume"]) == 0
    torch.testing.assert_close(
        train.read(half)["model"], train.read(whole)["model"])


def test_from_begins_with_the_weights_of_another_text(
    trained, text, tmp_path, monkeypatch
):
    """Symbols that both texts have keep their rows; others start anew."""
    other, rates = sky(tmp_path, monkeypatch)
    out = tmp_path / "sky.npz"
    command = ["train", str(other), "--steps", "3", "--out", str(out)]
    free = ["--dropout", "0.25", "--block-size", "5"]
    assert main([*command, "--from", str(trained), *free]) == 0
    old, new = (train.read(p)["model"] for p in (trained, out))
    here, there = (open_model(p)[1].vocab for p in (out, trained))
    for name, t in new.items():
        if name in ("embed.weight", "head.weight"):
            for s in "the a":
                assert t[here.stoi[s]].equal(old[name][there.stoi[s]])
            assert t[here.stoi["Z"]].shape == old[name][0].shape
            assert len(t) == len(here)
            assert name != "embed.weight" or t[here.stoi["Z"]].any()
        else:
            assert t.equal(old[name]), name
    assert set(rates[0]) == {0.01}
    config = open_model(out)[0].config
    assert (config.n_layer, config.n_head, config.n_embd) == (1, 2, 16)
    assert (config.dropout, config.block_size) == (0.25, 5)


def test_from_tokens_takes_any_text(text, tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    command = ["train", str(text), "--steps", "1", "--out", str(first)]
    assert main([*command, "--tokens", "258", *SMALL]) == 0
    other = tmp_path / "other.txt"
    other.write_text("Grüße aus Köln\n" * 60, encoding="utf-8")
    command = ["train", str(other), "--steps", "1", "--out", str(second)]
    assert main([*command, "--from", str(first)]) == 0
    a, b = (open_model(path)[1].vocab.merges for path in (first, second))
    assert a == b


MODELS = {"mlp": MLP, "wavenet": Tree}


@pytest.mark.parametrize("model", MODELS)
def test_models_of_windows(model, text, tmp_path, capsys):
    out = tmp_path / f"{model}.npz"
    command = ["train", str(text), "--model", model, "--steps", "12",
               "--out", str(out), "--counts"]
    sizes = ["--block-size", "4", "--batch-size", "16", "--n-embd", "3",
             "--n-hidden", "5"]
    assert main(command + sizes) == 0
    note, state = train.read(out)["note"], train.read(out)["model"]
    rebuilt = MODELS[model](11, 4, 3, 5)
    rebuilt.load_state_dict(state)
    corpus = data.load(text)
    surprise = train.losses(rebuilt, *data.windows(corpus.val, 4))
    first, *_, before, counted, last = capsys.readouterr().out.splitlines()
    count = sum(p.numel() for p in rebuilt.parameters())
    assert first == (f"{count:,} parameters, {corpus.name}, 12 steps of "
                     "16 windows of 4 symbols")
    assert f"validation loss {surprise.mean():.3f} nats" in before
    assert note["model"] == model and note["batch_size"] == 16
    table = KneserNey(7, 11).fit(corpus.train).losses(corpus.val)[3:]
    assert len(table) == len(surprise)  # of the same symbols
    assert f"alone {table.mean():.3f}" in counted
    opened, empty = open_model(out)
    assert isinstance(opened, MODELS[model]) and opened.block_size == 4
    settings = {"block_size": 4, "generator": torch.Generator().manual_seed(3)}
    written = generate.sample_text(opened, empty, 30, "the", **settings)
    main(["sample", str(out), "--prompt", "the", "--chars", "30",
          "--seed", "3"])
    assert capsys.readouterr().out == written + "\n"


@pytest.mark.parametrize("model", MODELS)
def test_windows_of_names(model, tmp_path, capsys):
    out = tmp_path / "x.npz"
    assert main(["train", "names", "--model", model, "--steps", "40",
                 "--out", str(out)]) == 0
    opened, corpus = open_model(out)
    names = data.load("names")
    loss = train.evaluate(opened, *data.windows(names.val, 8, 0))
    assert f"validation loss {loss:.3f} nats" in capsys.readouterr().out
    assert loss < 2.65 and corpus.boundary == 0
    main(["sample", str(out), "--chars", "200", "--seed", "1"])
    assert "\n" in capsys.readouterr().out.strip()


def test_windows_resumed_and_inherited(text, tmp_path, monkeypatch, capsys):
    """Half a run and the rest is a whole run; its rows serve another text."""
    monkeypatch.chdir(tmp_path)
    command = ["train", str(text), "--model", "mlp", "--steps", "10"]
    command += ["--n-hidden", "20", "--n-embd", "5"]
    assert main(command) == 0  # mlp.npz, as no other name is given
    assert main([*command[:4], "--resume"]) == 1
    assert "mlp.npz has come to the end" in capsys.readouterr().err
    with stopping(monkeypatch, runs.Draws, 4):
        assert main([*command, "--out", "half.npz"]) == 0
    assert train.read("half.npz")["step"] == 4
    assert main([*command[:2], "--out", "half.npz", "--resume"]) == 0
    torch.testing.assert_close(train.read("half.npz")["model"],
                               train.read("mlp.npz")["model"])
    other, rates = sky(tmp_path, monkeypatch)
    command = ["train", str(other), "--steps", "3", "--from", "half.npz"]
    assert main([*command, "--out", "sky.npz"]) == 0
    assert main(["train", str(text), "--model", "mlp", "--steps", "3"]) == 0
    assert max(rates[0]) < min(rates[1])  # what is known shall stay
    old, new = (train.read(p)["model"] for p in ("half.npz", "sky.npz"))
    here, there = (open_model(p)[1].vocab for p in ("sky.npz", "half.npz"))
    tables = ("embedding.weight", "output.weight", "output.bias")
    for name, t in new.items():
        if name in tables:
            assert len(t) == len(here) and len(old[name]) == len(there)
            for s in "the a":
                assert t[here.stoi[s]].equal(old[name][there.stoi[s]])
        else:
            assert t.equal(old[name]), name


@pytest.mark.parametrize("model", MODELS)
def test_the_plan_of_windows(model, text, tmp_path, capsys):
    out = tmp_path / "x.npz"
    command = ["train", str(text), "--model", model, "--out", str(out)]
    assert main([*command, "--minutes", "600"]) == 0
    assert f"{MOST_PASSES} passes" in capsys.readouterr().out
    note = train.read(out)["note"]
    assert note["config"]["block_size"] == 8
    n = len(data.load(text).train)
    assert note["batch_size"] == n - 8  # the text is short
    assert 0.9 < note["steps"] * (n - 8) / (MOST_PASSES * n) < 1.05
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("ab" * 30)
    assert main(["train", str(tiny), "--model", model, "--steps", "1",
                 "--out", str(out)]) == 0


def test_draws_are_from_everywhere():
    x = torch.arange(50)
    g = torch.Generator().manual_seed(1)
    draws = runs.Draws(x, x * 2, 20, g)
    pairs = [next(draws) for _ in range(40)]
    assert all(len(xb) == 20 and yb.equal(2 * xb) for xb, yb in pairs)
    assert torch.cat([xb for xb, _ in pairs]).unique().equal(x)
    state = draws.state_dict()
    assert len(state["order"]) == 0
    ahead = next(draws)[0]
    draws.load_state_dict(state)
    assert next(draws)[0].equal(ahead)


@pytest.mark.parametrize("extra, words", [
    (["--resume", "--steps", "9"], "--steps"),
    (["--resume", "--from", "x.npz"], "leave out --from"),
    (["--resume", "--minutes", "1"], "leave out --minutes"),
    (["--resume", "--tokens", "300", "--block-size", "8"],
     "leave out --tokens, --block-size"),
    (["--from", "OUT", "--n-layer", "1", "--n-head", "2"],
     "decides about --n-head, --n-layer"),
    (["--resume", "--dropout", "0"], "--dropout"),
    (["--from", "OUT", "--n-embd", "8"], "decides about --n-embd"),
    (["--from", "OUT", "--tokens", "300"], "decides about --tokens"),
    (["--from", "OUT", "--model", "mlp"], "with --model gpt, not mlp"),
    (["--resume", "--model", "mlp"], "with --model gpt, not mlp"),
    (["--n-hidden", "8"], "--model gpt has no --n-hidden"),
    (["--model", "mlp", "--n-head", "2"], "--model mlp has no --n-head"),
    (["--model", "wavenet", "--block-size", "6"], "a power of 2"),
    (["--from", "x.npz"], "x.npz does not exist"),
    (["--resume"], "the end of its plan"),
    (["--tokens", "5"], "too small")])
def test_what_cannot_be_combined(extra, words, trained, text, capsys):
    before = trained.read_bytes()
    extra = [str(trained) if word == "OUT" else word for word in extra]
    assert main(["train", str(text), "--out", str(trained), *extra]) == 1
    assert words in capsys.readouterr().err
    assert trained.read_bytes() == before


def test_nothing_that_was_learned_is_lost(
    trained, text, tmp_path, monkeypatch, capsys
):
    before = trained.read_bytes()
    command = ["train", str(text), "--steps", "2", "--out", str(trained)]

    with stopping(monkeypatch, train.TextBatches, 0):
        assert main(command + SMALL) == 130  # before the first step
    whole, calls = train.TextBatches.__next__, []

    def stop_at_once(self):
        calls.append(1)
        if len(calls) in (1, 5):  # after it 2 + 3 steps are tried
            raise KeyboardInterrupt
        return whole(self)

    with monkeypatch.context() as m:  # while it times a few steps
        m.setattr(train.TextBatches, "__next__", stop_at_once)
        timed = [*command[:2], "--minutes", "0.001", *command[4:]]
        for _ in range(2):  # as it warms up; as it looks at the clock
            assert main(timed + SMALL) == 130
    assert trained.read_bytes() == before
    assert main(command + SMALL) == 0  # a second run keeps the first
    kept = tmp_path / "gpt.before.npz"
    assert kept.read_bytes() == before and str(kept) in capsys.readouterr().out
    new = tmp_path / "new" / "x.npz"  # a folder that is not there yet
    assert main([*command[:4], "--out", str(new), *SMALL]) == 0
    assert new.is_file()
    assert main([*command[:4], "--out", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_the_smallest_text(tmp_path):
    path = tmp_path / "tiny.txt"
    path.write_text("ab" * 20)
    out = tmp_path / "tiny.npz"
    assert main(["train", str(path), "--steps", "1", "--out", str(out)]) == 0


def test_a_terminal_without_the_letters(trained, monkeypatch, capsys):
    import io
    import sys

    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(generate, "sample_text", lambda *a, **k: "é!")
    assert main(["sample", str(trained)]) == 0
    narrow.flush()
    assert narrow.buffer.getvalue() == b"?!\n"
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", narrow)
    assert main(["sample", str(trained.with_name("é.npz"))]) == 1
    narrow.flush()
    assert b"?.npz does not exist" in narrow.buffer.getvalue()


def test_reading_the_text_is_part_of_the_minutes(
    text, tmp_path, monkeypatch
):
    asked, load, fit = [], data.load, train.fit

    def slow(*arguments):
        time.sleep(0.5)
        return load(*arguments)

    def spy(*arguments, **options):
        if options.get("seconds") is None:  # some steps to time them
            return fit(*arguments, **options)
        asked.append(options["seconds"])
        return train.History()

    monkeypatch.setattr("zerohero.runs.MOST_PASSES", 10**9)
    monkeypatch.setattr(data, "load", slow)
    monkeypatch.setattr(train, "fit", spy)
    command = ["train", str(text), "--minutes", "0.05", "--out"]
    assert main([*command, str(tmp_path / "x.npz"), *SMALL]) == 0
    assert len(asked) == 1 and 1.5 <= asked[0] <= 3 - 0.5


def test_nothing_given_is_the_plays(monkeypatch, capsys):
    def load(name, *_):
        raise ValueError(f"load {name}")

    monkeypatch.setattr(data, "load", load)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "zerohero: load shakespeare\n"


def test_missing_text(tmp_path, capsys):
    assert main(["train", str(tmp_path / "no.txt")]) == 1
    assert "no.txt" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [
    ["--steps", "0"], ["--minutes", "-1"], ["--n-layer", "0"],
    ["--minutes", "inf"],
    ["--steps", "2", "--minutes", "1"], ["--steps", "1.5"]])
def test_bad_lengths_are_refused(bad, text, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(text), *bad])
    error = capsys.readouterr().err
    assert bad[-2] in error
    if bad[-1] == "1.5":
        assert "invalid int value: '1.5'" in error


@pytest.mark.parametrize("bad", [
    ["--top-p", "0"], ["--top-p", "1.01"], ["--top-k", "0"],
    ["--chars", "0"]])
def test_bad_settings_of_a_sample_are_refused(bad, trained, capsys):
    with pytest.raises(SystemExit):
        main(["sample", str(trained), *bad])
    error = capsys.readouterr().err
    assert bad[0] in error and bad[1] in error
    command = ["sample", str(trained), "--chars", "1", "--top-p", "1"]
    assert main(command) == 0


def test_ladder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZEROHERO_LADDER", str(tmp_path / "ladder.json"))
    assert main(["ladder"]) == 1
    assert "make book" in capsys.readouterr().err
    sizes = {"context": 1, "params": 9, "seconds": 0.1}
    row = ladder.record("a", "names", train=2.0, val=2.5, **sizes)
    import json

    (tmp_path / "ladder.json").write_text(json.dumps([row]))
    assert main(["ladder"]) == 0
    out = capsys.readouterr().out
    assert "2.500" in out and "3.607" in out
    other = {**row, "model": "b", "corpus": "shakespeare"}
    (tmp_path / "ladder.json").write_text(json.dumps([row, other]))
    main(["ladder"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    main(["ladder", "--corpus", "shakespeare"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("b ")
