"""Trio's scheduling, from a seed: the same order of tasks in every run.

Trio runs the tasks of one pass in a random order, from a generator of its own. Under Hypothesis it
sorts them first, by when they were made; the same switch is used here. These names of Trio's are
private: they are asked for at import, and what they do is seen by a test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio._core import _run as trio_run

_NAMES = ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING")

for _name in _NAMES:
    if not hasattr(trio_run, _name):
        raise ImportError(
            f"trio {trio.__version__} has no {_name} in trio._core._run, which simulations need; "
            "runtara-trio of a newer version may know another way"
        )


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Around a run of Trio: its order, and that of Python's ``random``, come from the seed."""
    before = {name: getattr(trio_run, name) for name in _NAMES}
    state = random.getstate()
    random.seed(seed)
    trio_run._r = random.Random(seed)
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(trio_run, name, value)
        random.setstate(state)
