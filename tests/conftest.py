"""Settings that all tests share."""

import os

# Small tensors: one thread is faster, and much faster on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402

# Clocks of shared machines jump, so no test has a deadline. The same
# examples every time; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("book", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "book"))
