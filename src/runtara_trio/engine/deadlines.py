"""Durable deadlines around a task, and when one that is over already cancels.

A run that goes on after a deadline has passed must do again what the first run did: get
back what is stored, and be cancelled where the first run had not come further. Cancelled
from its start, it would lose the results that the program works with afterwards. So such
a deadline waits for the replay, and cancels at the first thing that is new: a call that
writes, a wait that is not over, or, where the program waits for something else, once
nothing was replayed for a second.
"""

from __future__ import annotations

from contextvars import ContextVar

import trio

IDLE = 1.0
"""Seconds of Trio's clock without a replay."""

SETTLED = 0.05
"""The same, once a task has come to something new."""


class Deadline:
    """One deadline of a run."""

    __slots__ = ("ending", "over", "scope")

    def __init__(self, scope: trio.CancelScope, *, over: bool) -> None:
        self.scope = scope
        self.over = over
        """It had passed when this run came to it."""
        self.ending = False
        """A task has come to something new: it ends once nobody replays any more."""


_around: ContextVar[tuple[Deadline, ...]] = ContextVar("runtara_trio_deadlines", default=())


def enter(deadline: Deadline) -> tuple[Deadline, ...]:
    """Put a deadline around the calling task; returns those around it, for :func:`leave`."""
    before = _around.get()
    _around.set((*before, deadline))
    replayed()
    return before


def leave(before: tuple[Deadline, ...]) -> None:
    _around.set(before)


def replaying() -> bool:
    """Whether the calling task only replays what was done before a deadline."""
    return any(_waiting())


def replayed() -> None:
    """Something stored was handed out: the replay goes on."""
    for deadline in _waiting():
        left = SETTLED if deadline.ending else IDLE
        deadline.scope.deadline = trio.current_time() + left


async def new_work() -> None:
    """The calling task's replay has ended: nothing new begins, and what is over cancels it.

    It waits for the tasks beside it, which may have something to get back yet.
    """
    waiting = _waiting()
    for deadline in waiting:
        deadline.ending = True
    replayed()
    while waiting:
        await trio.sleep_until(max(deadline.scope.deadline for deadline in waiting))
        # Only inside a shield it comes this far.
        waiting = [one for one in waiting if not one.scope.cancel_called]


async def note(state: bytes | None) -> None:
    """What was found under an id: stored, it is a replay; None, it is new work."""
    if state is None:
        await new_work()
    else:
        replayed()


def _waiting() -> list[Deadline]:
    around = _around.get()
    return [one for one in around if one.over and not one.scope.cancel_called] if around else []
