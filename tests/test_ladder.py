"""Rows of the ladder: what is refused, and how they are shown."""

import json
import math
from types import SimpleNamespace

import IPython.display
import numpy as np
import pytest
import torch

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


def test_a_row_holds_plain_numbers_and_what_was_given():
    """The build writes rows as JSON, whatever kind of number came in."""
    given = {k: torch.tensor(v) for k, v in ROW.items()}
    row = ladder.record("m", "names", **given, spread=np.float32(0.5),
                        seeds=2, sample="ann")
    assert json.loads(json.dumps(row)) == row == ladder.ROWS[0]
    assert row.pop("bits") == pytest.approx(3.0)
    assert row.pop("val") == pytest.approx(math.log(8))
    assert row == {
        "model": "m", "corpus": "names", "context": 3, "params": 1234,
        "train": 2.0, "seconds": 0.25, "spread": 0.5, "seeds": 2,
        "sample": "ann"}
    row = ladder.record("n", "names", **{**ROW, "train": 0.0})
    assert row["spread"] is row["sample"] is None and row["seeds"] == 1


def test_a_notebook_keeps_the_row_out_of_sight(monkeypatch):
    """The build looks for it in the metadata of the cell's outputs."""
    shown = []
    monkeypatch.setattr(IPython, "get_ipython",
                        lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display",
                        lambda data, **more: shown.append((data, more)))
    row = ladder.record("m", "names", **ROW)
    ((data, more),) = shown
    assert more["raw"] and more["metadata"]["zerohero_ladder"] == row
    prefix = more["metadata"]["scrapbook"]["mime_prefix"]
    assert all(kind.startswith(prefix) for kind in data)  # nothing to see
    for shell in (None, SimpleNamespace(kernel=None), SimpleNamespace()):
        monkeypatch.setattr(IPython, "get_ipython", lambda s=shell: s)
        ladder.record("m", "names", **ROW)
    assert len(shown) == 1  # outside a notebook nothing is displayed


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


def test_the_table_by_hand():
    ladder.record("counts", "names", **ROW)
    ladder.record("GPT", "names", spread=0.0126, seeds=2, context=64,
                  params=9, train=1.0, val=math.log(2), seconds=12.34)
    assert repr(ladder.table()).splitlines() == [
        "model   context  parameters  train (nats)  val (nats)  val (bits)"
        "  spread  seconds",
        "counts        3       1,234         2.000       2.079       3.000"
        "             0.25",
        "GPT          64           9         1.000       0.693       1.000"
        "   0.013       12"]
    ladder.record("counts", "shakespeare", **{**ROW, "seconds": 10})
    lines = repr(ladder.table()).splitlines()
    assert lines[0].startswith("model   corpus       context  ")
    assert lines[1].startswith("counts  names              3  ")
    assert lines[3].startswith("counts  shakespeare        3  ")
    assert lines[3].endswith(" 10") and len(lines) == 4
    html = ladder.table()._repr_html_()
    assert html.count('class="word"') == 4  # the corpus, in each row
    assert html.count("<tr>") == 4 and html.count('scope="row"') == 3
    assert "class" not in ladder.table("names")._repr_html_().replace(
        'class="ladder"', "")


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
        {"train": -0.1},
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
    (tmp_path / "no.json").write_text('[{"model": "ä"}]', encoding="utf-8")
    assert ladder.load() == [{"model": "ä"}]
    rows = [ladder.record("m", "names", **ROW)]
    ladder.record("n", "names", **ROW)
    assert [r["model"] for r in ladder.table(rows=rows).rows] == ["m"]
    assert ladder.table("shakespeare", rows).rows == []


def test_without_a_build_or_a_record_the_place_is_named(monkeypatch):
    monkeypatch.delenv("ZEROHERO_LADDER", raising=False)
    monkeypatch.setattr(ladder.Path, "is_file", lambda path: False)
    with pytest.raises(FileNotFoundError, match="_build.ladder.json"):
        ladder.load()
    with pytest.raises(ValueError, match="no run 'GPT, fast.*spread.py"):
        ladder.recorded("GPT, fast recipe", "shakespeare")


def test_recorded_runs_say_how_they_spread():
    """What benchmarks/spread.py kept: several seeds that hardly differ."""
    vals = ladder.recorded("GPT, fast recipe", "shakespeare")
    assert len(vals) >= 3
    assert 0 < max(vals) - min(vals) < 0.1
    assert all(1.4 < v < 1.8 for v in vals)
    with pytest.raises(ValueError, match="no run 'x on names'"):
        ladder.recorded("x", "names")
