"""The command line, on a small text of the reader's own."""

import pytest
import torch

from zerohero import data, ladder, train
from zerohero.__main__ import MOST_PASSES, main
from zerohero.bigrams import KneserNey

SMALL = ["--block-size", "8", "--batch-size", "4", "--n-layer", "1"]
SMALL += ["--n-head", "2", "--n-embd", "16"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sea.txt"
    path.write_text("the sea, the sea, the open sea\n" * 60)
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


def test_greedy_sampling_needs_no_seed(trained, capsys):
    command = ["sample", str(trained), "--prompt", "the", "--top-k", "1"]
    main(command)
    first = capsys.readouterr().out
    main(command)
    assert capsys.readouterr().out == first


def test_a_plot_is_drawn(text, tmp_path):
    plot = tmp_path / "curve.svg"
    out = tmp_path / "p.npz"
    command = ["train", str(text), "--steps", "6", "--out", str(out)]
    assert main([*command, "--plot", str(plot), *SMALL]) == 0
    assert "<svg" in plot.read_text()


def test_interrupted_and_resumed_is_uninterrupted(
    trained, text, tmp_path, monkeypatch
):
    """Half a run, Ctrl-C, the other half: the weights of one whole run."""
    out = tmp_path / "half.npz"
    command = ["train", str(text), "--steps", "12", "--out", str(out)]
    whole, calls = train.TextBatches.__next__, []

    def stop_at_six(self):
        calls.append(1)
        if len(calls) > 6:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(train.TextBatches, "__next__", stop_at_six)
    assert main(command + SMALL) == 0
    assert train.read(out)["step"] == 6
    monkeypatch.setattr(train.TextBatches, "__next__", whole)
    assert main([*command[:2], "--out", str(out), "--resume"]) == 0
    torch.testing.assert_close(
        train.read(out)["model"], train.read(trained)["model"]
    )


def test_minutes_become_steps(text, tmp_path, capsys):
    out = tmp_path / "m.npz"
    command = ["train", str(text), "--minutes", "0.002", "--out", str(out)]
    assert main(command + SMALL) == 0
    note = train.read(out)["note"]
    assert note["steps"] >= 20 and 0.06 <= note["seconds"] <= 0.12
    assert "% of the time" in capsys.readouterr().out
    assert train.read(out)["step"] == note["steps"]


def test_an_interrupted_timed_run_takes_the_rest_of_its_time(
    text, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "m.npz"
    command = ["train", str(text), "--minutes", "10", "--out", str(out)]
    whole, calls = train.TextBatches.__next__, []

    def stop(self):
        calls.append(1)
        if len(calls) > 14:  # ten are for the trial
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(train.TextBatches, "__next__", stop)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    assert main(command + SMALL) == 0
    monkeypatch.setattr(train.TextBatches, "__next__", whole)
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
    assert main(command + SMALL) == 0
    assert f"{MOST_PASSES} passes" in capsys.readouterr().out
    state = train.read(out)
    assert state["step"] == state["note"]["steps"]
    reads = state["note"]["steps"] * 4 * 8
    assert 0.95 < reads / (MOST_PASSES * 0.9 * 1860) < 1.05


def test_the_faster_number_of_threads_is_kept(text, tmp_path, monkeypatch):
    now = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: now.insert(0, n))
    seen = []

    def fit(model, batches, optimizer, steps, **options):
        seen.append(now[0])
        # contention: four threads take longer than one
        return train.History([1.0], seconds=3.0 if now[0] > 1 else 1.5)

    monkeypatch.setattr(train, "fit", fit)
    command = ["train", str(text), "--minutes", "1", "--out"]
    monkeypatch.setattr(train, "threads", lambda: 4)
    assert main([*command, str(tmp_path / "x.npz"), *SMALL]) == 0
    assert sorted(set(seen[:4])) == [1, 4] and seen[-1] == 1
    # a step took 0.5 s: 120 fit into a minute
    assert train.read(tmp_path / "x.npz")["note"]["steps"] == 120


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
    command = ["train", str(text), "--steps", "500", "--out", str(out)]
    assert main(command + SMALL) == 0
    saved = train.read(out)["model"]
    torch.testing.assert_close(saved, kept[1])
    assert not torch.equal(saved["embed.weight"], kept[-2]["embed.weight"])


def test_names_and_counts(tmp_path, capsys):
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


def test_counts_of_a_text(text, tmp_path, capsys):
    out = tmp_path / "gpt.npz"
    command = ["train", str(text), "--steps", "30", "--out", str(out)]
    assert main([*command, "--counts", *SMALL]) == 0
    shown = capsys.readouterr().out
    corpus = data.load(text)
    n = (len(corpus.val) - 1) // 8 * 8
    table = KneserNey(7, len(corpus.vocab)).fit(corpus.train)
    counts = table.losses(corpus.val)[:n]
    assert f"alone {counts.mean():.3f}" in shown


@pytest.mark.parametrize("make", ["missing", "foreign", "damaged", "other"])
def test_a_bad_checkpoint_is_named(make, trained, tmp_path, capsys):
    path = tmp_path / "bad.npz"
    if make == "foreign":
        path.write_text("once upon a time")
    elif make == "damaged":
        path.write_bytes(trained.read_bytes()[:-200])
    elif make == "other":
        train.write(path, {"step": 1, "note": None})
    assert main(["sample", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_resume_on_another_text_is_refused(trained, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("0123456789 abc\n" * 60)
    command = ["train", str(other), "--out", str(trained), "--resume"]
    assert main(command) == 1
    assert "symbols differ" in capsys.readouterr().err


def test_unknown_symbol_in_the_prompt(trained, capsys):
    assert main(["sample", str(trained), "--prompt", "Zebra"]) == 1
    assert "'Z'" in capsys.readouterr().err


def test_missing_text(tmp_path, capsys):
    assert main(["train", str(tmp_path / "no.txt")]) == 1
    assert "no.txt" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [["--steps", "0"], ["--minutes", "-1"]])
def test_bad_lengths_are_refused(bad, text):
    with pytest.raises(SystemExit):
        main(["train", str(text), *bad])


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
