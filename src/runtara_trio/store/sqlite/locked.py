"""How long a store waits where another writer has the file locked.

SQLite's own waiting cannot be ended; so it waits for short whiles, and is asked again until
the time is up, or the store is to end and its patience with it.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from . import failures

T = TypeVar("T")

WHILE_MS = 100
"""Milliseconds for which SQLite itself waits; then it is asked again."""


class LockWaits:
    """The waits of one store. Its methods are called on the database's thread, but
    :meth:`give_up_after`."""

    def __init__(self) -> None:
        self._latest = math.inf

    def give_up_after(self, seconds: float) -> None:
        """The store is to end: no wait goes on for longer."""
        self._latest = time.monotonic() + seconds

    def wait(self, run: Callable[[], T]) -> T:
        """What ``run`` returns, called again while the file is locked.

        Raises:
          sqlite3.Error: it is locked still, or something else is wrong.
        """
        until = time.monotonic() + failures.BUSY_TIMEOUT
        while True:
            try:
                return run()
            except sqlite3.Error as exc:
                if not failures.is_busy(exc) or time.monotonic() >= min(until, self._latest):
                    raise
