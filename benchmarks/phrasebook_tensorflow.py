"""Run the TensorFlow column of the phrasebook, where TensorFlow is at hand.

The book does not need TensorFlow, so the build runs only the torch and the
NumPy column. This script runs the third one, in an environment that has
torch, numpy, myst-nb and TensorFlow, and says which entries do not do what
the page says::

    pip install tensorflow-cpu
    python benchmarks/phrasebook_tensorflow.py
"""

import os
import re
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

PAGE = Path(__file__).parent.parent / "book" / "phrasebook.md"
CELL = re.compile(
    r"^```\{code-cell\}\n(?::tags:[^\n]*\n\n)?(.*?)^```$", re.S | re.M
)


def plain(value):
    """A result of TensorFlow in the form that the page compares."""
    if isinstance(value, tf.DType):
        return value.name
    if isinstance(value, (tf.Tensor, tf.Variable)):
        value = value.numpy()
    if isinstance(value, keras.Variable):
        value = value.numpy()
    if isinstance(value, (tf.TensorShape, tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


def main() -> int:
    helper, *cells = CELL.findall(PAGE.read_text(encoding="utf-8"))
    page = {}
    exec(helper, page)
    ran, wrong = 0, []
    for text in re.findall(r'Entries\("""(.*?)"""\)', "\n".join(cells), re.S):
        for entry in page["parse"](text):
            sign, code = page["split_sign"](entry.get("tf", "–"))
            if sign == "–":
                continue
            ran += 1
            numbers = {k: tf.constant(t.numpy())
                       for k, t in page["given"]().items()}
            names = {"tf": tf, "keras": keras, "np": np, **numbers}
            try:
                other = plain(page["run"](code, names))
            except Exception as error:
                if sign != "✗":
                    wrong.append((code, f"raised {error!r:.200}"))
                continue
            if sign == "✗":
                wrong.append((code, f"did not raise, gave {other}"))
            elif sign != "~":
                value = page["check_torch"](entry)
                if page["same"](other, value) != (sign == ""):
                    wrong.append((code, f"gave {other}, torch {value}"))
    for code, why in wrong:
        print(f"{code}\n    {why}")
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}: {ran} "
        f"entries run, {len(wrong)} not as the page says"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
