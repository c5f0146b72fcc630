"""What earlier runs of an instance have left, and what this one has asked of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import trio

from .. import logs
from ..errors import NotSupported
from ..ids import failure_id, inside_id, retry_id, signal_id, wake_id
from ..messages import Checkpoint, GetCheckpoint, Request, Sleep, TakeMessage, TakeSignal
from .stored import Stored
from .visited import Visited

TELL_UNVISITED = 5.0
"""Seconds that a block which has ended may look for ids that it never asked for."""

_TRACES: dict[type[Request[Any]], Callable[[str], str]] = {
    Checkpoint: str,
    Sleep: wake_id,
    TakeSignal: signal_id,
    TakeMessage: str,
}
"""Where a message that was answered before has left its trace."""


def leaves_trace(message: Request[Any]) -> bool:
    """Whether it can be told later that a message was answered. Of others, such as an event,
    nobody knows whether they are new."""
    return type(message) in _TRACES


MOST_INSIDE = 1000
"""Ids that are noted of what a durable call uses inside."""

_inside: ContextVar[tuple[set[str], ...]] = ContextVar("runtara_trio_inside", default=())


class Past:
    """The past of one block's instance."""

    __slots__ = (
        "_failed",
        "_generation",
        "_instance_id",
        "_request",
        "_stored",
        "_visited",
        "resumed",
    )

    def __init__(self, instance_id: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        self._instance_id = instance_id
        self._request = request
        self._stored = Stored(instance_id, request)
        self._visited = Visited()
        self._failed: set[str] = set()
        self._generation = 0
        self.resumed = False

    def begins(self, *, resumed: bool, skips: bool, generation: int = 0) -> None:
        """The instance is registered.

        Args:
          resumed: it was there before.
          skips: this run was told to begin somewhere, and skips what is before that.
          generation: how often it was revived by a backend that cannot remove failures: those
            of earlier generations do not count.
        """
        self.resumed = resumed
        self._generation = generation
        if not resumed:
            self._stored.nothing_yet()
        if not resumed or skips:
            self._visited.nothing_missed()

    def touch(self, checkpoint_id: str) -> bool:
        """This run has to do with an id. Whether it had before, or it cannot be told."""
        for inside in _inside.get():
            inside.add(checkpoint_id)
        return self._visited.add(checkpoint_id)

    async def find(self, checkpoint_id: str) -> bytes | None:
        """What is stored under an id, by this run or an earlier one; None: nothing."""
        touched = self._visited.add(checkpoint_id)
        return await self._stored.find(checkpoint_id, touched=touched)

    # ---- durable calls

    async def find_call(self, checkpoint_id: str) -> tuple[bytes | None, bytes | None]:
        """The result of a durable call and the record of its failure, of which one at most is
        there."""
        state = await self._stored.find(checkpoint_id, touched=self.touch(checkpoint_id))
        if state is not None:
            return state, None
        known = checkpoint_id in self._failed
        failure = await self._stored.find(self.failure_id(checkpoint_id), touched=known)
        if failure is not None:
            self._failed.add(checkpoint_id)
        return None, failure

    async def knows_call(self, checkpoint_id: str) -> bool:
        """Whether earlier runs have made a call under an id that is not its id today.

        An id that this run uses for another call tells nothing.
        """
        if self._visited.has(checkpoint_id):
            return False
        for stored_as in (
            checkpoint_id,
            self.failure_id(checkpoint_id),
            retry_id(checkpoint_id, 1),
        ):
            if await self._stored.find(stored_as, touched=False, keep=True) is not None:
                return True
        return False

    def failure_id(self, checkpoint_id: str) -> str:
        return failure_id(checkpoint_id, self._generation)

    def failed(self, checkpoint_id: str) -> None:
        """This run has saved the failure of a call."""
        self._failed.add(checkpoint_id)

    @contextmanager
    def inside(self) -> Iterator[set[str]]:
        """Around a durable call's function: the ids that are used inside. A replay that finds
        the call does not ask for them."""
        around = _inside.get()
        ids: set[str] = set()
        _inside.set((*around, ids))
        try:
            yield ids
        finally:
            _inside.set(around)

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
        """Warn of stored work that a completed run never asked for.

        The outcome is recorded: whatever fails here, only a warning is lost.
        """
        try:
            with trio.fail_after(TELL_UNVISITED):
                missed = await self._missed()
        except NotSupported:
            return  # only a store can tell
        except Exception as exc:
            logs.request_failed(task="the search for unvisited ids", error=str(exc))
            return
        if missed:
            logs.unvisited(
                instance_id=self._instance_id, count=len(missed), unvisited=", ".join(missed[:10])
            )

    async def _missed(self) -> list[str]:
        """What is stored, was not asked for, and is not inside a call that was."""
        missed, with_insides = await self._visited.missed(self._instance_id, self._request)
        todo = [name for name in with_insides if self._visited.has(name)]
        while todo and missed:
            ids = await self._ids_inside(todo.pop())
            if ids is None:
                return []  # too many were used there: it cannot be told
            todo += [name for name in ids if name in with_insides and name in missed]
            missed -= ids
        return sorted(missed)

    async def _ids_inside(self, checkpoint_id: str) -> set[str] | None:
        message = GetCheckpoint(
            instance_id=self._instance_id, checkpoint_id=inside_id(checkpoint_id)
        )
        state = (await self._request(message)).state
        return msgspec.json.decode(state, type=set[str]) if state else None
