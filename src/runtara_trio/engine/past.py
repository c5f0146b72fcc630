"""What earlier runs of an instance have left, and what this one has asked of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .. import logs
from ..errors import NotSupported
from ..ids import signal_id, wake_id
from ..messages import Checkpoint, Request, Sleep, TakeSignal
from .stored import Stored
from .visited import Visited

LOOK_FOR_UNVISITED = 5.0
"""Seconds that a block which has ended may look for ids that it never asked for."""

_TRACES: dict[type[Request[Any]], Callable[[str], str]] = {
    Checkpoint: str,
    Sleep: wake_id,
    TakeSignal: signal_id,
}
"""Where a message that was answered before has left its trace."""


def leaves_trace(message: Request[Any]) -> bool:
    """Whether it can be told later that a message was answered. Of others, such as an event,
    nobody knows whether they are new."""
    return type(message) in _TRACES


class Past:
    """The past of one block's instance."""

    __slots__ = ("_instance_id", "_request", "_stored", "_visited")

    def __init__(self, instance_id: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        self._instance_id = instance_id
        self._request = request
        self._stored = Stored(instance_id, request)
        self._visited = Visited()

    def begins(self, *, resumed: bool, skips: bool) -> None:
        """The instance is registered.

        Args:
          resumed: it was there before.
          skips: this run was told to begin somewhere, and skips what is before that.
        """
        if not resumed:
            self._stored.nothing_yet()
        if not resumed or skips:
            self._visited.nothing_missed()

    def touch(self, checkpoint_id: str) -> None:
        """This run has to do with an id."""
        self._visited.add(checkpoint_id)

    async def find(self, checkpoint_id: str) -> bytes | None:
        """What is stored under an id, by this run or an earlier one; None: nothing."""
        touched = self._visited.add(checkpoint_id)
        return await self._stored.find(checkpoint_id, touched=touched)

    async def trace(self, message: Request[Any]) -> bytes | None:
        """What a message has left that was answered before; None: it is new."""
        trace = _TRACES.get(type(message))
        if trace is None:
            return None
        return await self._stored.find(trace(getattr(message, "checkpoint_id")), touched=True)  # noqa: B009

    @property
    def tells_unvisited(self) -> bool:
        """Whether it can be told what this run never asked for."""
        return self._visited.warns

    async def tell_unvisited(self) -> None:
        """Warn of work that is stored, and that a run which completed did not look for.

        The outcome is recorded: whatever fails here, only a warning is lost.
        """
        try:
            with trio.fail_after(LOOK_FOR_UNVISITED):
                missed = await self._visited.missed(self._instance_id, self._request)
        except NotSupported:
            return  # only a store can tell
        except Exception as exc:
            logs.request_failed(task="the look for unvisited ids", error=str(exc))
            return
        if missed:
            logs.unvisited(
                instance_id=self._instance_id, count=len(missed), unvisited=", ".join(missed[:10])
            )
