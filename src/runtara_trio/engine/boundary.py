"""Where tasks stop for a pause, and the steps that a pause waits for.

A pause is two-phase. *Asked*, nothing is interrupted: no new step starts, and a task that
reaches a boundary parks there. When at least one is parked and no step runs, nothing is
half done: the scope is cancelled, and every parked task goes on into it. When the grace
is over it is cancelled all the same: that is the scope's own deadline, so there is no
timer to keep.

A step in which somebody waits at a boundary does not count as running: it would wait for
itself. A resume in the first phase withdraws the pause. Once the scope is cancelled, by
whatever, nothing parks: what is parked inside a shield simply goes on.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

import trio


class Step:
    """Work that a pause must not tear apart."""

    __slots__ = ("key", "waiting")

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.waiting = 0
        """Tasks inside it that are at a boundary."""


_steps_around: ContextVar[tuple[Step, ...]] = ContextVar("runtara_trio_steps", default=())


class Boundary:
    """The boundaries of one block."""

    def __init__(self, scope: trio.CancelScope, grace: float) -> None:
        self._scope = scope
        self._grace = grace
        self._steps: set[Step] = set()
        self._waiting = 0
        self._changed = trio.Event()
        self.pause_requested = False

    # ---- the operator's side

    def ask(self) -> None:
        """A pause came."""
        if not self.pause_requested and not self._scope.cancel_called:
            self.pause_requested = True
            self._scope.deadline = trio.current_time() + self._grace
            self._settle()

    def withdraw(self) -> bool:
        """A resume came. False where the pause has cancelled the scope already."""
        if self._scope.cancel_called:
            return False
        self.pause_requested = False
        self._scope.deadline = math.inf
        self.release()
        return True

    def release(self) -> None:
        """Let what is parked look again: the pause or the scope has changed."""
        self._changed.set()
        self._changed = trio.Event()

    # ---- the program's side

    async def reach(self) -> None:
        """A boundary: park while a pause is asked. Raises Cancelled in a cancelled scope."""
        if self.pause_requested:
            with self.waiting():
                while self.pause_requested and not self._scope.cancel_called:
                    with trio.move_on_at(self._scope.deadline):
                        await self._changed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait that is a boundary for its whole length. Call ``reach`` after it."""
        steps = _steps_around.get()
        self._count(steps, 1)
        try:
            self._settle()
            yield
        finally:
            self._count(steps, -1)

    @asynccontextmanager
    async def step(self, key: str | None) -> AsyncIterator[None]:
        """A step; its entry and its exit are boundaries.

        An error goes out at once: it must not wait behind a pause, nor be replaced by the
        Cancelled that ends one.
        """
        await self.reach()
        around = _steps_around.get()
        step = Step(key)
        self._steps.add(step)
        _steps_around.set((*around, step))
        try:
            yield
        finally:
            _steps_around.set(around)
            self._steps.discard(step)
            self._settle()
        await self.reach()

    @property
    def in_step(self) -> bool:
        """Whether the calling task is inside a step of this block."""
        return any(step in self._steps for step in _steps_around.get())

    @property
    def step_key(self) -> str | None:
        """The checkpoint id that the innermost step around the calling task was given."""
        inside = [step for step in _steps_around.get() if step in self._steps]
        return inside[-1].key if inside else None

    # ----

    def _count(self, steps: tuple[Step, ...], change: int) -> None:
        self._waiting += change
        for step in steps:
            step.waiting += change

    def _settle(self) -> None:
        """Cancel the scope if a pause is asked and nothing would be half done."""
        if (
            self.pause_requested
            and self._waiting
            and not self._scope.cancel_called
            and all(step.waiting for step in self._steps)
        ):
            self._scope.cancel()
            self.release()
