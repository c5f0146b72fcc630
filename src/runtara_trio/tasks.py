"""What tasks wait for: an answer that somebody else gives, and the first place that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import outcome
import trio

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
          grace: seconds for which a cancelled task goes on waiting.
          leaves: called where it is cancelled, and waits no longer.
        """
        if self._result is not None:  # it was given at once
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
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
