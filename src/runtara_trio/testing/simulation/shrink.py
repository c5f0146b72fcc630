"""The fewest faults that still show what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from .plan import Planned

MOST_TRIES = 300


class Found(Protocol):
    @property
    def planned(self) -> tuple[Planned, ...]: ...


FoundT = TypeVar("FoundT", bound=Found)


def shrunk(found: FoundT, still: Callable[[Sequence[Planned]], FoundT | None]) -> FoundT:
    """Leave out faults, the larger parts first, for as long as it is found.

    Args:
      found: what was found with all of its faults.
      still: simulates with fewer; None: then it is not found.
    """
    tries = 0
    size = len(found.planned)
    while size >= 1:
        start = 0
        while start < len(found.planned) and tries < MOST_TRIES:
            fewer = found.planned[:start] + found.planned[start + size :]
            tries += 1
            again = still(fewer)
            if again is None:
                start += size
            else:
                found = again
        size = min(size, len(found.planned)) // 2
    return found
