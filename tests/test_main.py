"""The command line, on a small text of the reader's own."""

import pytest
import torch

from zerohero import ladder, train
from zerohero.__main__ import main

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
    assert train.read(out)["note"]["steps"] >= 20


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
