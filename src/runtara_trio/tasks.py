"""What tasks wait for, once for the whole package.

Answer                 what another task gives, or raises
RepeatedEvent          an event that is set again and again
InFlight               the end of all that is under way
open_service_nursery   tasks that outlive the body of a block
staggered              the first of several places that answers
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import outcome
import sniffio
import trio

from .interrupts import protected_manager

GRACE = 1.0
"""Seconds that a cancelled task waits for the answer to a save that is on its way. It has one
in time from all but a backend that is gone, and a replay finds what was saved."""

STAGGER = 0.3
"""Seconds that a place may be silent before the next one is tried as well."""

T = TypeVar("T")


async def staggered(
    attempt: Callable[[T, trio.Event], Awaitable[object]],
    places: Iterable[T],
    is_won: Callable[[], bool],
) -> None:
    """Try places in their order, until one has won. One that is silent holds the next one up
    for a moment only. It returns once all tries have ended.

    Args:
      attempt: tries a place, and sets the event once it is decided.
      places: what to try.
      is_won: whether one has won: the rest is not tried.
    """
    async with trio.open_nursery() as nursery:
        for place in places:
            over = trio.Event()
            nursery.start_soon(attempt, place, over)
            with trio.move_on_after(STAGGER):
                await over.wait()
            if is_won():
                return


class Answer:
    """An answer that one task waits for. Given twice, it changes nothing."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._result: outcome.Outcome[Any] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits for it."""
        return self._task is not None

    async def wait(self, *, grace: float = 0.0, leaves: Callable[[], object] = lambda: None) -> Any:
        """The answer. Raises what it is, where it is an error.

        Args:
          grace: seconds for which a cancelled task goes on waiting; infinite: neither a
            cancelled scope nor Ctrl-C ends the wait.
          leaves: called where it is cancelled, and waits no longer.
        """
        if self._result is not None:  # it was given at once
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            if grace == math.inf:
                return trio.lowlevel.Abort.FAILED
            if grace:
                trio.lowlevel.spawn_system_task(self._leave_after, grace, raise_cancel, leaves)
                return trio.lowlevel.Abort.FAILED
            self._task = None
            leaves()
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def give(self, result: outcome.Outcome[Any]) -> None:
        """Let the task go on with it."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, result)
        elif self._result is None:
            self._result = result

    async def _leave_after(
        self,
        seconds: float,
        raise_cancel: trio.lowlevel.RaiseCancelT,
        leaves: Callable[[], object],
    ) -> None:
        await trio.sleep(seconds)
        if self._task is not None:
            self.give(outcome.capture(raise_cancel))
            leaves()


class RepeatedEvent:
    """An event that is set again and again; each time all who wait are woken.

    What it stands for is asked before, without an await between::

        while not jobs:
            await more.wait()
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: trio.lowlevel.ParkingLot | None = None  # many are never waited for

    def set(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            self._waiting.unpark_all()

    async def wait(self) -> None:
        """Until it is set next. A checkpoint."""
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()


class InFlight:
    """How much is under way, and its end."""

    __slots__ = ("_count", "_fewer")

    def __init__(self) -> None:
        self._count = 0
        self._fewer = RepeatedEvent()

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """Something begins; :meth:`end` ends it."""
        self._count += 1

    def end(self) -> None:
        self._count -= 1
        self._fewer.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around something that is under way."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    async def until_none(self) -> None:
        """Until nothing is under way. No checkpoint where nothing is."""
        while self._count:
            await self._fewer.wait()


@protected_manager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for services of what is done in the body.

    They outlive it: a cancelled scope around the block reaches the body, whose clean-up can
    still use them; they are cancelled once the body has ended.
    """
    async with trio.open_nursery() as nursery:
        opened = Answer()
        nursery.start_soon(_host, opened)
        # Not nursery.start: where the scope around is cancelled already, it waits for ever for
        # a task that is shielded from that.
        services: trio.Nursery = await opened.wait(grace=math.inf)
        try:
            yield services
        finally:
            services.cancel_scope.cancel()


@trio.lowlevel.enable_ki_protection
async def _host(opened: Answer) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as services:
            opened.give(outcome.Value(services))
            await trio.sleep_forever()


def runs_on_trio() -> bool:
    """Whether the calling code runs in a Trio task, not in a thread or in asyncio."""
    return sniffio.thread_local.name == "trio"
