"""Numbers of things that are alike: the first of its kind in this run, the second."""

from __future__ import annotations

from collections import Counter


class Counts:
    """How often each thing has come in this run of one block."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: Counter[object] = Counter()

    def next(self, thing: object) -> int:
        """From 0."""
        self._seen[thing] += 1
        return self._seen[thing] - 1
