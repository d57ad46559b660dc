"""Rows of the ladder: what is refused, and how they are shown."""

import math

import pytest

from zerohero import ladder

ROW = {
    "context": 3,
    "params": 1234,
    "train": 2.0,
    "val": math.log(8),
    "seconds": 0.25,
}


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(ladder, "ROWS", [])


def test_bits_are_nats_over_log_two():
    row = ladder.record("m", "names", **ROW)
    assert row["bits"] == pytest.approx(3.0)


def test_the_same_model_is_recorded_once():
    ladder.record("m", "names", **ROW)
    ladder.record("m", "shakespeare", **ROW)
    ladder.record("m", "names", **{**ROW, "val": 1.0})
    assert [(r["corpus"], r["val"]) for r in ladder.ROWS] == [
        ("shakespeare", math.log(8)),
        ("names", 1.0),
    ]


def test_table_is_sorted_by_corpus_and_loss():
    ladder.record("better", "names", **{**ROW, "val": 1.0})
    ladder.record("worse", "names", **ROW)
    ladder.record("other", "shakespeare", **ROW)
    shown = [r["model"] for r in ladder.table().rows]
    assert shown == ["worse", "better", "other"]
    assert len(ladder.table("names").rows) == 2


def test_table_as_text_and_html():
    ladder.record("a < b", "names", **ROW, spread=0.0123, seeds=3)
    table = ladder.table()
    assert "1,234" in repr(table) and "0.012" in repr(table)
    html = table._repr_html_()
    assert "a &lt; b" in html and "3.000" in html
    heads = html.count('<th scope="col"')
    assert heads == len(ladder.COLUMNS) - 1  # one corpus: no column for it
    ladder.record("b", "shakespeare", **ROW)
    both = ladder.table()._repr_html_()
    assert both.count('<th scope="col"') == len(ladder.COLUMNS)
    assert "shakespeare" in both and "shakespeare" in repr(ladder.table())


@pytest.mark.parametrize(
    "bad",
    [
        {"corpus": "alice"},
        {"val": math.inf},
        {"train": math.nan},
        {"val": -1.0},
        {"spread": 0.1},
        {"seeds": 3},
    ],
)
def test_bad_rows_are_refused(bad):
    with pytest.raises(ValueError):
        ladder.record("m", **{"corpus": "names", **ROW, **bad})
    assert ladder.ROWS == []


def test_load_says_how_to_get_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROHERO_LADDER", str(tmp_path / "no.json"))
    with pytest.raises(FileNotFoundError, match="make book"):
        ladder.load()


def test_recorded_runs_say_how_they_spread():
    """What benchmarks/spread.py kept: several seeds that hardly differ."""
    vals = ladder.recorded("GPT, fast recipe", "shakespeare")
    assert len(vals) >= 3
    assert 0 < max(vals) - min(vals) < 0.1
    assert all(1.4 < v < 1.8 for v in vals)
    with pytest.raises(ValueError, match="no run 'x on names'"):
        ladder.recorded("x", "names")
