"""Who waits for a custom signal, and is told that one may have come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Hints:
    """The waits of one block, by checkpoint id."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[str, set[trio.Event]] = {}

    @contextmanager
    def wait(self, checkpoint_id: str) -> Iterator[trio.Event]:
        """An event that is set when a custom signal may have come.

        To be entered before the backend is asked, or one that comes between is missed.
        """
        event = trio.Event()
        waiters = self._waiters.setdefault(checkpoint_id, set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters and self._waiters.get(checkpoint_id) is waiters:
                del self._waiters[checkpoint_id]

    def give(self, checkpoint_id: str) -> None:
        """A signal may be there."""
        for event in self._waiters.get(checkpoint_id, ()):
            event.set()

    def give_all(self) -> None:
        """The block has ended: a stray task must not wait for ever."""
        for checkpoint_id in self._waiters:
            self.give(checkpoint_id)

    def last_has_gone(self, checkpoint_id: str) -> bool:
        """Whether nobody waits for this id any more."""
        return checkpoint_id not in self._waiters
