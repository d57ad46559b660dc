"""The spread over seeds of runs that are too long to repeat in a chapter.

    python benchmarks/spread.py [seeds]     # 3 by default, a few minutes

Each run is the one of its chapter, with other seeds. Losses are exact, over
the whole validation split. They are kept with date, machine and versions in
benchmarks/spread.json, from where zerohero.ladder.recorded reads them.
"""

import datetime
import json
import platform
import sys
import time
from pathlib import Path

import torch

from zerohero import train
from zerohero.data import chunks, load
from zerohero.gpt import GPT, fast_config, fast_optimizers


def gpt_shakespeare(seed: int) -> float:
    """Section "The whole model, fast" of the chapter on the GPT."""
    plays, steps = load("shakespeare"), 350
    g = torch.Generator().manual_seed(seed)
    config = fast_config(len(plays.vocab), 64, dtype=train.number_format())
    model = GPT(config, g)
    history = train.fit(
        model, train.TextBatches(plays.train, 64, 16, g),
        fast_optimizers(model), steps, log=False,
        schedule=train.linear_to_zero(steps, 10),
        val=chunks(plays.val, 64))
    return history.val[-1][1]


RUNS = {"GPT, fast recipe on shakespeare": gpt_shakespeare}


def main(seeds: int) -> None:
    train.threads()
    kept = {}
    for name, run in RUNS.items():
        start, vals = time.perf_counter(), []
        for seed in range(4, 4 + seeds):
            vals.append(round(run(seed), 4))
            print(f"{name}, seed {seed}: {vals[-1]:.4f}", flush=True)
        each = (time.perf_counter() - start) / seeds
        print(f"spread {max(vals) - min(vals):.4f}, {each:.0f} s each")
        kept[name] = {"val": vals, "seconds each": round(each)}
    record = {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "number format": str(train.number_format()),
        "runs": kept,
    }
    path = Path(__file__).with_name("spread.json")
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
