"""What tasks wait for, on Trio's lowest level: an answer that somebody else gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import outcome
import trio

GRACE = 1.0
"""Seconds that a cancelled task waits for the answer to a save that is on its way. It has one
in time from all but a backend that is gone, and a replay finds what was saved."""


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
