"""Numbers that a chapter measures, for the sentences that quote them.

In the image for Binder this takes the place of `myst_nb.glue`, which would
bring the book's tool chain along. JupyterLab puts the numbers of this very
session into the prose, as soon as the cells have run.
"""

NUMBERS: dict = {}


def glue(name, value, display=True):
    """Keep a value under a name."""
    NUMBERS[name] = value


def glued(name: str, form: str = "") -> str:
    """The kept value as the sentence wants it; dots before it is known."""
    return format(NUMBERS[name], form) if name in NUMBERS else "..."
