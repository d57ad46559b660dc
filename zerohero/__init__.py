"""The package behind Zero-Hero, a textbook that runs.

The rooms, in the order in which imports may run:

- ``functional``: what has no parameters. ``nn``, ``optim``: layers and
  optimizers, twins of torch's.
- ``data``, ``shakespeare``, ``tokens``: corpora, their symbols, splits and
  windows.
- ``tensors``, ``gradients``, ``bigrams``, ``sequences``, ``backprop``,
  ``wavenet``, ``attention``, ``gpt``: what the chapter of the same name
  builds.
- ``train``, ``distributed``, ``generate``, ``diagnostics``, ``metrics``,
  ``scaling``: what works with any model. ``parity``: the table of twins.
- ``plots``, ``drawings``: figures. ``ladder``, ``exercises``: the book's
  own bookkeeping.

Nothing is re-exported: ``from zerohero import data`` says where a name
lives.
"""
