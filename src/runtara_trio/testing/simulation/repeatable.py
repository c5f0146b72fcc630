"""Trio's scheduling, from a seed: the same order of tasks in every run.

Trio runs the tasks of one pass in a random order, from a generator of its own. Under Hypothesis it
sorts them first, by when they were made; the same switch is used here. And a cancel reaches the
tasks of a scope in the order of a set, which is that of addresses in memory; here it is that in
which they came. These names of Trio's are private: they are asked for at import, and what they do
is seen by a test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio._core import _run as trio_run

_NAMES = ("_r", "_ALLOW_DETERMINISTIC_SCHEDULING", "CancelStatus")
_OF_STATUS = ("_tasks", "_children", "__attrs_post_init__")

for _name in _NAMES:
    if not hasattr(trio_run, _name):
        raise ImportError(
            f"trio {trio.__version__} has no {_name} in trio._core._run, which simulations need; "
            "runtara-trio of a newer version may know another way"
        )
for _name in _OF_STATUS:
    if not hasattr(trio_run.CancelStatus, _name):
        raise ImportError(f"trio {trio.__version__} has no CancelStatus.{_name}; see above")


class InOrder(dict[Any, None]):
    """What Trio needs of a set, in the order of insertion."""

    def add(self, one: object) -> None:
        self[one] = None

    def remove(self, one: object) -> None:
        del self[one]


def _begin(status: Any) -> None:
    status._tasks, status._children = InOrder(), InOrder()
    _post_init(status)


_post_init = trio_run.CancelStatus.__attrs_post_init__


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Around a run of Trio: its order, and that of Python's ``random``, come from the seed."""
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = random.getstate()
    random.seed(seed)
    trio_run._r = random.Random(seed)
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run.CancelStatus.__attrs_post_init__ = _begin  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_run.CancelStatus.__attrs_post_init__ = _post_init  # type: ignore[method-assign]
        random.setstate(state)
