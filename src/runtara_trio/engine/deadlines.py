"""Durable deadlines around a task, and when one that is over already cancels.

A run that goes on after a deadline has passed must do again what the first run did: get
back what is stored, and be cancelled where the first run had not come further. Cancelled
from its start, it would lose the results that the program works with afterwards. So such
a deadline waits for the replay, and cancels at the first thing that is new: a call that
writes, a wait that was not over in time, or, where the program waits for something else,
once nothing was replayed for a second.

Of several deadlines that wait so, one cancels first: the innermost that is stored as "too
late", for there the first run went on behind it; else the one that had passed first. The
others go on waiting, for the program may have more to get back behind the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

IDLE = 1.0
"""Seconds of Trio's clock without a replay."""

SETTLED = 0.05
"""The same, once a task has come to something new."""


NEVER_MS = 2**63 - 1
"""The time of one that something else than a clock ends."""


class Deadline:
    """One deadline of a run."""

    __slots__ = ("_at", "asked", "ending", "over", "recorded", "scope", "until_ms")

    def __init__(
        self, scope: trio.CancelScope, until_ms: int, *, over: bool, recorded: bool = False
    ) -> None:
        self.scope = scope
        self.until_ms = until_ms
        """When it passes, Unix ms."""
        self.over = over
        """It had passed when this run came to it."""
        self.recorded = recorded
        """An earlier run was cancelled by it, and went on."""
        self.ending = False
        """A task has come to something new: it ends once nobody replays any more."""
        self.asked = 0
        """Requests inside it that are on their way: what they bring may be a replay."""
        self._at = scope.deadline

    @property
    def moved(self) -> bool:
        """Whether the program has set the scope's deadline itself: from then on it is its own."""
        return self.scope.deadline != self._at

    def pass_now(self) -> None:
        """It has passed, as an earlier run knew: it ends the replay of that."""
        self.over = True
        self.cancel_at(trio.current_time() + IDLE)

    def cancel_at(self, time: float) -> None:
        """Have the scope cancelled at this time of Trio's clock."""
        if not self.moved:
            self.scope.deadline = self._at = time


_around: ContextVar[tuple[Deadline, ...]] = ContextVar("runtara_trio_deadlines", default=())


def enter(deadline: Deadline) -> tuple[Deadline, ...]:
    """Put a deadline around the calling task; returns those around it, for :func:`leave`."""
    before = _around.get()
    _around.set((*before, deadline))
    replayed()
    return before


def leave(before: tuple[Deadline, ...]) -> None:
    _around.set(before)
    replayed()


def earliest_ms() -> int | None:
    """When the first durable deadline around the calling task passes, Unix ms."""
    known = (one.until_ms for one in _around.get() if not one.moved)
    return min((ms for ms in known if ms != NEVER_MS), default=None)


def scopes() -> Iterator[trio.CancelScope]:
    """The scopes of the durable deadlines around the calling task."""
    return (one.scope for one in _around.get() if not one.moved)


def replaying() -> bool:
    """Whether the calling task only replays what was done before a deadline."""
    return any(_waiting())


def replayed() -> None:
    """Something stored was handed out: the replay goes on."""
    waiting = _waiting()
    if not waiting:
        return
    left = SETTLED if waiting[0].ending else IDLE
    for rank, deadline in enumerate(waiting):
        idle = math.inf if deadline.asked else left + rank * IDLE
        deadline.cancel_at(trio.current_time() + idle)


@contextmanager
def asking() -> Iterator[None]:
    """Around a request: while it is on its way, no deadline that waits for the replay cancels,
    however slow the backend is."""
    waiting = _waiting()
    for deadline in waiting:
        deadline.asked += 1
    replayed()
    try:
        yield
    finally:
        for deadline in waiting:
            deadline.asked -= 1
        replayed()


async def new_work() -> None:
    """The calling task's replay has ended: nothing new begins, and what is over cancels it.

    It waits for the tasks beside it, which may have something to get back yet.
    """
    waiting = _waiting()
    if not waiting:
        return
    first = waiting[0]
    first.ending = True
    replayed()
    while not first.scope.cancel_called and not first.moved:  # noqa: ASYNC110
        await trio.sleep_until(min(first.scope.deadline, trio.current_time() + IDLE))
    # Only inside a shield it comes this far.


async def wait_over(ended_ms: int) -> None:
    """A stored wait had its end at this wall time, Unix ms: later than a deadline around it, it
    was cancelled there, and is so again."""
    if any(deadline.until_ms <= ended_ms for deadline in _waiting()):
        await new_work()


async def note(state: bytes | None) -> None:
    """What was found under an id: stored, it is a replay; None, it is new work."""
    if state is None:
        await new_work()
    else:
        replayed()


def _waiting() -> list[Deadline]:
    """Those around the task that wait for the end of its replay, in the order in which they
    cancel."""
    around = _around.get()
    if not around:
        return []
    waiting = [one for one in around if one.over and not one.moved and not one.scope.cancel_called]
    if len(waiting) > 1:
        recorded = [one for one in reversed(waiting) if one.recorded]
        rest = sorted((one for one in waiting if not one.recorded), key=lambda one: one.until_ms)
        waiting = recorded + rest
    return waiting
