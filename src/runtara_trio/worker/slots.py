"""How many runs of a worker work at once.

A run that waits costs no slot. One that goes on takes a slot again before runs that have not
begun: a worker claims no more than is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import outcome
import trio


class Slots:
    """The slots of one worker. First come, first served."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self._alone = False
        self._reserved = 0

    @property
    def free(self) -> int:
        """How many runs may begin now."""
        if self._alone:
            return 0
        return max(0, self.total - self.held - self._reserved - len(self._waiting))

    @contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        """Keep free slots for runs that are to begin within this block."""
        self._reserved += count
        try:
            yield
        finally:
            self._reserved -= count
            self._wake()

    def begin(self, *, alone: bool = False) -> None:
        """A run begins in a slot that is free; ``alone``: no other works until :meth:`share`."""
        self.held += 1
        self._alone = alone or self._alone

    def share(self) -> None:
        """The run that was alone is so no more."""
        self._alone = False
        self._wake()

    def take_nowait(self) -> bool:
        """Take a slot, where there is one."""
        if self._has_room and not self._waiting and not self._alone:
            self.held += 1
            return True
        return False

    async def take(self) -> None:
        """Wait for a slot, and take it. A checkpoint only where there is none."""
        if self.take_nowait():
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def abort(raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def give(self) -> None:
        """Give one back."""
        self.held -= 1
        self._wake()

    @property
    def _has_room(self) -> bool:
        return self.held + self._reserved < self.total

    def _wake(self) -> None:
        while self._waiting and self._has_room and not self._alone:
            self.held += 1
            trio.lowlevel.reschedule(self._waiting.popleft(), outcome.Value(None))
